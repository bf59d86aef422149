//! The paper's commands, `python train.py` replaced by `fmq train`, on small stand-ins for its data.

use super::*;

/// The smallest RGB net of upstream's kind, with or without classes.
fn net(dir: &Path, num_classes: Option<usize>) {
    let tiny = UNetConfig { in_channels: 3, out_channels: 3, num_classes, ..tiny() };
    fs::write(dir.join("rgb.json"), config::to_json(&tiny)).unwrap();
}

/// A PNG of one colour with a ramp in it.
fn picture(path: &Path, side: u32, color: u8) {
    let file = fs::File::create(path).unwrap();
    let mut encoder = png::Encoder::new(file, side, side);
    encoder.set_color(png::ColorType::Rgb);
    let row = |y: u32| (0..side).flat_map(move |x| [color, (x * 16) as u8, (y * 16) as u8]);
    let pixels: Vec<u8> = (0..side).flat_map(row).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
}

/// 66 images of 16x16 pixels in three class folders.
fn image_net(dir: &Path) {
    for class in 0..3u8 {
        let folder = dir.join(format!("imagenet/n0{class}"));
        fs::create_dir_all(&folder).unwrap();
        (0..22).for_each(|i| picture(&folder.join(format!("{i}.png")), 16, 80 * class + i));
    }
}

/// Runs one of the paper's commands with the small net, for one batch; what it said.
fn test_run(dir: &Path, command: &str, more: &[&str]) -> String {
    let command = command.split_whitespace().map(|word| word.trim_matches('\''));
    let args: Vec<&str> =
        ["train"].into_iter().chain(command).chain(["--test_run", "--arch", "rgb.json"]).collect();
    let output = fmq(dir, &[&args[..], more].concat());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{command}: {stderr}", command = args.join(" "));
    stderr
}

fn log(dir: &Path) -> Value {
    let text = fs::read_to_string(dir.join("output_dir/log.txt")).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn imagenet() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    image_net(dir);
    net(dir, Some(1000));
    let command = "--data_path=imagenet --batch_size=64 --accum_iter=1 --eval_frequency=50 \
                   --decay_lr --ode_method dopri5";
    let options = ["--ode_options", r#"{"atol": 1e-5, "rtol":1e-5}"#, "--image-size", "8"];
    test_run(dir, command, &options);
    assert_eq!(log(dir)["epoch"], 0);
    assert!(dir.join("output_dir/snapshots/0_1.png").exists());
    let args: Value =
        serde_json::from_slice(&fs::read(dir.join("output_dir/args.json")).unwrap()).unwrap();
    assert_eq!((&args["dataset"], &args["ode_method"]), (&"imagenet".into(), &"dopri5".into()));
}

#[test]
fn celeba() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("celeba")).unwrap();
    (0..65).for_each(|i| picture(&dir.join(format!("celeba/{i:06}.png")), 8, i));
    net(dir, None);
    let command = "--dataset=celeba --data_path=celeba --batch_size=64 --accum_iter=1 \
                   --eval_frequency=2 --decay_lr --ode_method dopri5";
    test_run(dir, command, &["--ode_options", r#"{"atol": 1e-5, "rtol":1e-5}"#]);
    assert_eq!(log(dir)["epoch"], 0);
}

#[test]
fn cifar10() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let folder = dir.join("data/image_generation/cifar-10-batches-bin");
    fs::create_dir_all(&folder).unwrap();
    for batch in 1..=5u8 {
        let row = |i: u8| (0..3073u16).map(move |at| if at == 0 { i % 10 } else { batch * i });
        let rows: Vec<u8> = (0..14).flat_map(row).collect();
        fs::write(folder.join(format!("data_batch_{batch}.bin")), rows).unwrap();
    }
    net(dir, None);
    let command = "--dataset=cifar10 --batch_size=64 --nodes=1 --accum_iter=1 \
                   --eval_frequency=100 --epochs=3000 --class_drop_prob=1.0 --cfg_scale=0.0 \
                   --ode_method heun2 --use_ema --edm_schedule --skewed_timesteps";
    let said = test_run(dir, command, &["--ode_options", r#"{"nfe": 2}"#]);
    assert!(said.contains("ignored here: --nodes"), "{said}");
    assert_eq!(log(dir)["epoch"], 0);
    // A net without classes does not look at labels that are not dropped either.
    fs::remove_dir_all(dir.join("output_dir")).unwrap();
    let command = command.replace("prob=1.0", "prob=0").replace("size=64", "size=4");
    test_run(dir, &command, &["--ode_options", r#"{"nfe": 2}"#]);
}

#[test]
fn folders_that_cannot_be_trained_on_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    image_net(dir);
    net(dir, Some(2));
    let train =
        ["train", "--arch", "rgb.json", "--test_run", "--ode_options", r#"{"step_size": 0.5}"#];
    let refused = |args: &[&str]| fails(dir, &[&train[..], args].concat());
    let error = refused(&["--data_path", "imagenet", "--batch_size", "4"]);
    assert!(error.contains("3 classes, the net only 2"), "{error}");
    net(dir, Some(3));
    let error = refused(&["--data_path", "imagenet", "--batch_size", "67"]);
    assert!(error.contains("has only 66 images"), "{error}");
    assert!(refused(&["--data_path", "nowhere"]).contains("nowhere"));
    fs::create_dir(dir.join("imagenet/n05")).unwrap();
    assert!(refused(&["--data_path", "imagenet"]).contains("n05"));
    fs::remove_dir(dir.join("imagenet/n05")).unwrap();

    // A file that is no image: an error by its name, or passed over when asked.
    fs::write(dir.join("imagenet/n00/7.png"), b"no picture").unwrap();
    let all = ["--data_path", "imagenet", "--batch_size", "66", "--output_dir"];
    let run = |more: &[&str]| fmq(dir, &[&train[..], &all, more].concat());
    let output = run(&["bad"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("n00/7.png") && stderr.contains("--skip-bad"), "{stderr}");
    let output = run(&["good", "--skip-bad"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("passed over 1 bad file(s): `imagenet/n00/7.png`"), "{stderr}");
}
