//! `fmq train` in two processes: losses, weights, FID, signals, errors.

use super::*;

/// The losses that a run's log tells, epoch by epoch.
fn losses(run: &Path) -> Vec<f64> {
    let log = fs::read_to_string(run.join("log.txt")).unwrap_or_default();
    let entry = |line: &str| serde_json::from_str::<Value>(line).ok()?["train_loss"].as_f64();
    log.lines().filter_map(entry).collect()
}

/// Waits until a run has trained for some epochs.
fn wait_for_epochs(run: &Path, epochs: usize) {
    within(120, || (losses(run).len() >= epochs).then_some(()));
}

/// The values of all tensors in a file, the moving average of a run.
fn values(file: &Path) -> Vec<f32> {
    let tensors = checkpoint::load(file, false).unwrap().tensors;
    tensors.iter().flat_map(|(_, t)| t.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
}

#[test]
fn two_processes_train_as_one_of_twice_the_batch() {
    let dir = folder();
    let dir = dir.path();
    Job::alone(dir, &["--output_dir=one", "--batch_size=10", "--epochs=4"]).ok();
    let said = Job::pair(dir, &["--output_dir=two", "--batch_size=5", "--epochs=4"]).ok();
    assert_eq!(said.matches("epoch 3:").count(), 1, "the first process alone tells: {said}");

    let (one, two) = (dir.join("one"), dir.join("two"));
    let (expected, found) = (losses(&one), losses(&two));
    assert_eq!((expected.len(), found.len()), (4, 4));
    for (a, b) in expected.iter().zip(&found) {
        assert!((a / b - 1.0).abs() < 1e-5, "{expected:?}, {found:?}");
    }
    assert_eq!(files(&one), files(&two));
    let snapshot = "snapshots/3_16.png";
    assert_eq!(
        fs::read(one.join(snapshot)).unwrap().len(),
        fs::read(two.join(snapshot)).unwrap().len()
    );
    let args: Value = serde_json::from_slice(&fs::read(two.join("args.json")).unwrap()).unwrap();
    assert_eq!((args["world_size"].as_u64(), args["distributed"].as_bool()), (Some(2), Some(true)));

    // A run moves its weights by a thousandth. Where a gradient is nothing but rounding, AdamW may
    // make a whole step of it.
    let (a, b) = (values(&one.join("model.safetensors")), values(&two.join("model.safetensors")));
    assert_eq!(a.len(), b.len());
    let mut differences: Vec<f32> = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).collect();
    differences.sort_by(f32::total_cmp);
    let (most, all) = (differences[a.len() / 100 * 99], differences[a.len() - 1]);
    assert!(most < 1e-7 && all < 1e-4, "99 in 100 differ by {most} at most, all by {all}");
}

/// The FID that a run's log tells of its last epoch.
fn fid(run: &Path) -> Option<f64> {
    let log = fs::read_to_string(run.join("log.txt")).unwrap();
    serde_json::from_str::<Value>(log.lines().last()?).ok()?["eval_fid"].as_f64()
}

/// What a run is told that measures FID.
const FID: [&str; 4] =
    ["--compute_fid", "--weights=inception.safetensors", "--fid_samples=21", "--save_fid_samples"];

#[test]
fn two_processes_measure_the_same_fid_as_one() {
    let dir = folder();
    let dir = dir.path();
    inception(dir);
    for run in ["--output_dir=one", "--output_dir=two"] {
        Job::alone(dir, &[run, "--batch_size=10", "--epochs=1"]).ok();
    }
    // Steps of the solver's own choice depend on the images that are drawn together.
    let solver = ["--ode_method=dopri5", "--ode_options={\"atol\": 1e-3, \"rtol\": 1e-3}"];
    let own = [&FID[..], &solver, &["--eval_only"]].concat();
    Job::alone(dir, &[&own[..], &["--output_dir=one", "--batch_size=10"]].concat()).ok();
    let said = Job::pair(dir, &[&own[..], &["--output_dir=two", "--batch_size=5"]].concat()).ok();
    assert_eq!(said.matches("epoch 0: FID").count(), 1, "the first process alone tells: {said}");

    let (one, two) = (dir.join("one"), dir.join("two"));
    let (expected, found) = (fid(&one).unwrap(), fid(&two).unwrap());
    assert!(expected > 0.0 && expected.to_bits() == found.to_bits(), "{expected}, {found}");
    let bytes = |run: &Path, name: &str| fs::read(run.join(name)).unwrap();
    assert!(bytes(&one, "fid_reference.npz") == bytes(&two, "fid_reference.npz"));
    assert_eq!(files(&one.join("fid_samples")).len(), 21);
    for name in files(&one.join("fid_samples")) {
        let name = format!("fid_samples/{name}");
        assert!(bytes(&one, &name) == bytes(&two, &name), "{name}");
    }
}

#[test]
fn a_signal_stops_the_measuring_of_fid() {
    let dir = folder();
    let dir = dir.path();
    inception(dir);
    let own = [&FID[..], &["--output_dir=cut", "--batch_size=5", "--epochs=1"]].concat();
    let job = Job::pair(dir, &own);
    // The first round has begun, of several: the statistics of the training set are there.
    within(120, || dir.join("cut/fid_samples").exists().then_some(()));
    job.signal("USR1");
    let (success, said) = job.end(60);
    assert!(success && said.contains("stopped by a signal, saved"), "{said}");
    assert_eq!(fid(&dir.join("cut")), None);
    Job::pair(dir, &own).ok();
    assert!(fid(&dir.join("cut")).is_some(), "a run that was cut there begins with it");
}

#[test]
fn a_signal_saves_and_the_run_goes_on_bit_for_bit() {
    let dir = folder();
    let dir = dir.path();
    let cut = ["--output_dir=cut", "--batch_size=5", "--epochs=100000"];
    // mpirun passes USR1 on, and then ends as its processes do; TERM ends mpirun as an error.
    for (signal, good) in [("USR1", true), ("TERM", false)] {
        let before = losses(&dir.join("cut")).len();
        let job = Job::pair(dir, &cut);
        wait_for_epochs(&dir.join("cut"), before + 2);
        job.signal(signal);
        let (success, said) = job.end(60);
        assert_eq!(success, good, "{said}");
        assert!(said.contains("stopped by a signal, saved"), "{said}");
    }
    let epochs = format!("--epochs={}", losses(&dir.join("cut")).len() + 2);
    let rest = |run: &str| {
        Job::pair(dir, &[&format!("--output_dir={run}"), "--batch_size=5", &epochs]).ok();
        let run = dir.join(run);
        (losses(&run), values(&run.join("checkpoint.pth")), values(&run.join("model.safetensors")))
    };
    assert!(rest("cut") == rest("whole"), "a cut run and an unbroken one differ");
}

#[test]
fn a_killed_process_ends_the_others() {
    let dir = folder();
    let dir = dir.path();
    let job = Job::pair(dir, &["--output_dir=run", "--batch_size=5", "--epochs=100000"]);
    wait_for_epochs(&dir.join("run"), 1);
    signal("KILL", second(&job));
    job.fails();
}

#[test]
fn an_error_of_one_process_ends_all() {
    let dir = folder();
    let dir = dir.path();
    let run = ["--output_dir=run", "--batch_size=5", "--epochs=2"];
    let with = |own: &'static str| [&run[..], &[own]].concat();
    let said = Job::two(dir, &run, &with("--data_path=nowhere")).fails();
    assert!(said.contains("error: process 1 of 2: ") && said.contains("nowhere"), "{said}");
    let said = Job::two(dir, &run, &with("--no_flip")).fails();
    assert!(said.contains("do not all train the same run"), "{said}");
    let said = Job::pair(dir, &with("--lr=1e30")).fails();
    assert!(said.contains("the loss is") && said.contains("images ["), "{said}");
}
