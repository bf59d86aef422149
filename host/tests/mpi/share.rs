//! Commands that share their work out: `tune`, `sample`, `fid`, `sweep`.

use super::*;

#[test]
fn two_processes_tune_as_one_does() {
    let dir = folder();
    let dir = dir.path();
    save_net(dir);
    let tune = "tune net.safetensors --bits=2 --keep=*bias=16 --steps=3 --batch-size=5 --trajectories=2 --code-lr=0 \
        --threads=1 --device=cpu -o";
    let tune: Vec<&str> = tune.split_whitespace().collect();
    Job::start(FMQ, dir, &[&tune[..], &["alone.fmq"]].concat()).ok();
    let said = Job::several(dir, "2", &[&tune[..], &["two.fmq"]].concat()).ok();
    // The first alone speaks and writes.
    assert_eq!(said.matches("wrote `two.fmq`").count(), 1, "{said}");
    let load = |name: &str| checkpoint::load(&dir.join(name), true).unwrap().tensors;
    for ((name, alone), (_, two)) in load("alone.fmq").iter().zip(load("two.fmq")) {
        let off = (alone - two).unwrap().abs().unwrap().max_all().unwrap();
        assert!(off.to_scalar::<f32>().unwrap() < 1e-3, "{name}");
    }
    // A process of another run ends both.
    let other = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "1", FMQ];
    let parts = [&other[..], &tune, &["x.fmq", ":", "-n", "1", FMQ], &tune, &["x.fmq", "--lr=1"]];
    let said = Job::start("mpirun", dir, &parts.concat()).fails();
    assert!(said.contains("do not all tune the same run"), "{said}");
    assert!(!dir.join("x.fmq").exists());
}

#[test]
fn any_number_of_processes_draws_the_same_images() {
    let dir = folder();
    let dir = dir.path();
    save_net(dir);
    // Steps of the solver's own choice depend on the images that are drawn together.
    let draw = [
        "sample",
        "net.safetensors",
        "-n=75",
        "--ode-method=dopri5",
        "--ode-options={\"atol\": 1e-3, \"rtol\": 1e-3}",
        "--threads=1",
        "--device=cpu",
        "-o",
    ];
    let bytes = |name: &str| fs::read(dir.join(name)).unwrap();
    for out in ["x.npz", "x.safetensors", "x/"] {
        let name = |count: &str| format!("{count}{out}");
        Job::start(FMQ, dir, &[&draw[..], &[&name("1")]].concat()).ok();
        for count in ["2", "3"] {
            let said = Job::several(dir, count, &[&draw[..], &[&name(count)]].concat()).ok();
            assert_eq!(said.matches("75 images").count(), 1, "the first alone tells: {said}");
            if out == "x/" {
                let pictures = files(&dir.join(name("1")));
                assert_eq!((pictures.len(), &pictures), (75, &files(&dir.join(name(count)))));
                for picture in pictures {
                    assert!(bytes(&(name("1") + &picture)) == bytes(&(name(count) + &picture)));
                }
            } else {
                assert!(bytes(&name("1")) == bytes(&name(count)), "{}", name(count));
            }
        }
    }
    let left = files(dir).into_iter().filter(|name| name.contains(".parts")).count();
    assert_eq!(left, 0, "parts that nobody needs");
    let mixed = [&["-n", "1", FMQ][..], &draw, &["m.npz", ":", "-n", "1", FMQ], &draw, &["m.npz"]];
    let mpirun = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"];
    let args = [&mpirun[..], &mixed.concat(), &["--seed=1"]].concat();
    let said = Job::start("mpirun", dir, &args).fails();
    assert!(said.contains("not started with the same arguments"), "{said}");
}

#[test]
fn any_number_of_processes_measures_and_sweeps_the_same() {
    let dir = sweep_folder();
    let dir = dir.path();
    let features = "--data-path=mnist --features=inception --weights=inception.safetensors --threads=1 \
                    --device=cpu";
    let with = |args: &str, more: &str| {
        let all = format!("{args} {features} {more}");
        all.split_whitespace().map(str::to_string).collect::<Vec<_>>()
    };
    let run = |count: &str, args: Vec<String>| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if count == "1" { Job::start(FMQ, dir, &args) } else { Job::several(dir, count, &args) }
    };
    let fid = "fid net.safetensors mnist:train -n 8 --kid --kid-subset-size 5 --cache cache";
    let sweep =
        "sweep net.safetensors --data=mnist --schemes=ot,lloyd-max --bits=2,3 -n 6 --steps=2";
    let bytes = |name: String| fs::read(dir.join(name)).unwrap();
    for count in ["1", "2", "3"] {
        run(count, with(fid, &format!("--save-stats={count}.npz"))).ok();
        assert!(bytes("1.npz".into()) == bytes(format!("{count}.npz")), "fid, {count}");
        run(count, with(sweep, &format!("-o {count}"))).ok();
        let rows = |count: &str| {
            let results: Value =
                serde_json::from_slice(&bytes(format!("{count}/results.json"))).unwrap();
            let mut rows = results["rows"].as_array().unwrap().clone();
            for row in &mut rows {
                row["seconds"] = Value::Null;
            }
            (rows, results["fid_full"].as_f64().unwrap().to_bits())
        };
        assert_eq!(rows("1").0.len(), 4);
        assert!(rows("1") == rows(count), "sweep, {count}");
        assert!(!dir.join(count).join("rows").exists());
    }
}

#[test]
fn a_sweep_whose_process_was_killed_goes_on() {
    let dir = sweep_folder();
    let dir = dir.path();
    let sweep = "sweep net.safetensors --data=mnist --data-path=mnist --features=inception --no-analyses \
                 --weights=inception.safetensors --threads=1 --device=cpu --schemes=ot,uniform,pwl --bits=2,3,4,5 -n 2 -o out";
    let sweep: Vec<&str> = sweep.split_whitespace().collect();
    let job = Job::several(dir, "2", &sweep);
    let rows = || files(&dir.join("out/rows")).into_iter().filter(|name| name.contains(".json"));
    within(300, || (dir.join("out/rows").is_dir() && rows().count() > 2).then_some(()));
    signal("KILL", second(&job));
    job.fails();
    let before: Vec<(String, Vec<u8>)> = rows()
        .map(|name| (name.clone(), fs::read(dir.join("out/rows").join(name)).unwrap()))
        .collect();
    Job::several(dir, "3", &sweep).ok();
    let results: Value =
        serde_json::from_slice(&fs::read(dir.join("out/results.json")).unwrap()).unwrap();
    let all = results["rows"].as_array().unwrap();
    assert_eq!(all.len(), 3 * 4);
    for (name, row) in before {
        let row: Value = serde_json::from_slice(&row).unwrap();
        assert!(all.contains(&row["row"]), "{name}: computed again");
    }
}
