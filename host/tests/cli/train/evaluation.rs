//! Evaluations: what they ask for, and the distance that they measure.

use fm_candle::fid::npz;

use super::*;

#[test]
fn an_evaluation_asks_nothing_of_the_training() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    idx(dir);
    told(dir, &["--epochs", "2"]);
    let evaluate = |file: &str, to: &str, more: &[&str]| {
        let args =
            ["train", "--eval_only", "--dataset=mnist", "--data_path=mnist", "--batch_size=5"];
        let args = [&args[..], &["--ode_options", r#"{"step_size": 0.5}"#], more].concat();
        ok(dir, &[&args[..], &["--resume", file, "--output_dir", to]].concat());
        let read = |path: &str| fs::read(dir.join(path)).unwrap();
        let model = format!("{to}/model.safetensors");
        assert!(read(&model) == read("run/model.safetensors"), "{file}: other weights");
        let picture = names(&dir.join(to).join("snapshots")).remove(0);
        assert!(
            fs::read(&picture).unwrap() == read("run/snapshots/1_8.png"),
            "{file}: another picture"
        );
        picture.file_name().unwrap().to_str().unwrap().to_string()
    };
    assert_eq!(evaluate("run/checkpoint.pth", "a", &[]), "1_8.png");
    assert_eq!(evaluate("run/model.safetensors", "b", &[]), "0_0.png");
    let others = [
        "--lr=0",
        "--accum_iter=99",
        "--epochs=1",
        "--class_drop_prob=7",
        "--skewed_timesteps",
        "--precision=bf16",
        "--device=cpu",
        "--arch=tiny.json",
    ];
    assert_eq!(evaluate("run/checkpoint-1.pth", "c", &others), "1_8.png");

    let refused = |args: &[&str]| {
        let all = ["train", "--eval_only", "--dataset=mnist", "--data_path=mnist", "--resume"];
        fails(dir, &[&all[..], args].concat())
    };
    let deep = UNetConfig { num_res_blocks: 2, ..tiny() };
    fs::write(dir.join("deep.json"), config::to_json(&deep)).unwrap();
    let error = refused(&["run/checkpoint.pth", "--arch=deep.json"]);
    let expected = "--arch: num_res_blocks 2, but the file's net has num_res_blocks 1";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn the_training_sets_statistics_are_of_the_images_that_are_there() {
    let dir = crate::fid::inception();
    let dir = dir.path();
    idx(dir);
    let run = |epochs: &str| {
        let mut args = TRAIN.to_vec();
        args.extend(["--compute_fid", "--weights", "inception.safetensors", "--fid_samples", "2"]);
        args.extend(["--resume", "auto", "--epochs", epochs]);
        let output = fmq(dir, &args);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        let statistics = npz::read_statistics(&dir.join("run/fid_reference.npz")).unwrap();
        (statistics, told.contains("fid_reference.npz` is of other images"))
    };
    let (first, told) = run("1");
    assert!(!told);
    assert_eq!(run("2"), (first.clone(), false));
    // Other images of the same number and size, under the same names.
    let path = dir.join("mnist/train-images-idx3-ubyte");
    let mut bytes = fs::read(&path).unwrap();
    bytes[16..].iter_mut().for_each(|pixel| *pixel = 255 - *pixel);
    fs::write(&path, bytes).unwrap();
    let (second, told) = run("3");
    assert!(told && second.mean != first.mean);
}

#[test]
fn fid_is_measured_at_evaluations() {
    let dir = crate::fid::inception();
    let dir = dir.path();
    idx(dir);
    let mut args = TRAIN.to_vec();
    args.extend(["--compute_fid", "--weights", "inception.safetensors", "--fid_samples", "7"]);
    args.extend(["--save_fid_samples", "--test_run"]);
    ok(dir, &args);
    let log = fs::read_to_string(dir.join("run/log.txt")).unwrap();
    let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert!(line["eval_fid"].as_f64().unwrap() > 0.0, "{log}");
    // A test run ends after one batch, of 5.
    assert_eq!(names(&dir.join("run/fid_samples")).len(), 5);
    // Fewer samples leave none of those before.
    let at = args.iter().position(|&argument| argument == "7").unwrap();
    args[at] = "3";
    args.extend(["--resume", "auto", "--eval_only"]);
    ok(dir, &args);
    assert_eq!(names(&dir.join("run/fid_samples")).len(), 3);
    args.truncate(args.len() - 3);
    args[at] = "7";
    // An evaluation in another folder has a line of its own.
    args.extend(["--eval_only", "--resume", "run/checkpoint.pth", "--output_dir", "again"]);
    ok(dir, &args);
    let log = fs::read_to_string(dir.join("again/log.txt")).unwrap();
    let again: Value = serde_json::from_str(&log).unwrap();
    assert_eq!((&again["epoch"], &again["eval_fid"]), (&line["epoch"], &line["eval_fid"]));
}
