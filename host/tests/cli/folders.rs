//! Folders of images as people have them: with hidden names, links to nothing, pipes, any kind of file.

use core::time::Duration;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::thread;
use std::time::Instant;

use super::train::idx;
use super::*;

/// A PNG of `size` by `size` pixels, RGB, whose values depend on `salt`.
fn png(path: &Path, size: u32, salt: u32) {
    let pixels: Vec<u8> = (0..3 * size * size).map(|i| (i * 7 + salt * 31) as u8).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size, size);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Classes `set/train/cat` and `dog` of three images of 8 x 8 pixels, and the nets `classes.json`, of
/// two classes, and `free.json`, of none.
fn classes() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (class, i) in [("cat", 0), ("cat", 1), ("cat", 2), ("dog", 3), ("dog", 4), ("dog", 5)] {
        png(&folder.path().join(format!("set/train/{class}/{i}.png")), 8, i);
    }
    let net = UNetConfig { in_channels: 3, out_channels: 3, num_classes: Some(2), ..tiny() };
    fs::write(folder.path().join("classes.json"), config::to_json(&net)).unwrap();
    let free = UNetConfig { num_classes: None, ..net };
    fs::write(folder.path().join("free.json"), config::to_json(&free)).unwrap();
    folder
}

/// One batch on `data_path` with the net `arch`.
fn train<'a>(data_path: &'a str, arch: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let run =
        ["train", "--data_path", data_path, "--arch", arch, "--batch_size", "2", "--test_run"];
    [&run[..], &["--ode_options", r#"{"step_size": 0.5}"#, "--output_dir", "run"], more].concat()
}

/// Runs `fmq` and expects success; returns what it wrote to stderr.
fn said(dir: &Path, args: &[&str]) -> String {
    let output = fmq(dir, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "fmq {args:?}: {stderr}");
    stderr
}

/// The lines that speak of what was passed over.
fn passed_over(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| line.contains("passed over")).collect()
}

#[test]
fn hidden_names_are_neither_classes_nor_images() {
    let dir = classes();
    let dir = dir.path();
    let clean = said(dir, &train("set", "classes.json", &[]));
    assert!(clean.contains("imagenet:train: 6 images in 2 classes\n"), "{clean}");
    assert_eq!(passed_over(&clean), Vec::<&str>::new());
    let weights = fs::read(dir.join("run/model.safetensors")).unwrap();

    png(&dir.join("set/train/.ipynb_checkpoints/0-checkpoint.png"), 8, 9);
    png(&dir.join("set/train/__MACOSX/cat/._0.png"), 8, 9);
    png(&dir.join("set/train/cat/._0.png"), 8, 9);
    fs::create_dir(dir.join("set/train/.empty")).unwrap();
    for name in [".DS_Store", "Thumbs.db", "desktop.ini"] {
        fs::write(dir.join("set/train/dog").join(name), b"x").unwrap();
    }
    fs::remove_dir_all(dir.join("run")).unwrap();
    let stderr = said(dir, &train("set", "classes.json", &[]));
    assert!(stderr.contains("imagenet:train: 6 images in 2 classes\n"), "{stderr}");
    let lines = passed_over(&stderr);
    assert_eq!(lines.len(), 1, "{stderr}");
    assert!(lines[0].contains("passed over 4 hidden or system name(s)"), "{stderr}");
    assert!(lines[0].contains("set/train/.empty`, ..."), "{stderr}");
    assert!(fs::read(dir.join("run/model.safetensors")).unwrap() == weights, "other labels");

    // The same of the test half, and of a folder that is read flat.
    fs::rename(dir.join("set/train"), dir.join("set/test")).unwrap();
    let latent = ["latent", "run/model.safetensors", "--data", "imagenet", "--data-path", "set"];
    let stderr = said(dir, &[&latent[..], &["--invert", "0"]].concat());
    assert!(stderr.contains("imagenet:test: 6 images in 2 classes\n"), "{stderr}");
    assert_eq!(passed_over(&stderr).len(), 1, "{stderr}");
    let encode = ["encode", "run/model.safetensors", "set/test/cat", "-o", "x0.safetensors"];
    let options = ["--ode-method", "euler", "--ode-options", r#"{"step_size": 0.5}"#, "--json"];
    let output = fmq(dir, &[&encode[..], &options].concat());
    let stderr = String::from_utf8(output.stderr).unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["n"], 3, "{stderr}");
    assert!(passed_over(&stderr)[0].contains("1 hidden or system name(s)"), "{stderr}");
}

#[test]
fn a_net_with_classes_wants_images_with_classes() {
    let dir = classes();
    let dir = dir.path();
    let error = fails(dir, &train("set/train/cat", "classes.json", &[]));
    for part in ["`set/train/cat` have no classes, but the net has 2", "\"num_classes\": null"] {
        assert!(error.contains(part), "{error}");
    }
    // What it names as ways out.
    let free = said(dir, &train("set/train/cat", "free.json", &[]));
    assert!(free.contains("imagenet:train: 3 images without classes\n"), "{free}");
    said(dir, &train("set/train/cat", "classes.json", &["--class_drop_prob=1", "--output_dir=b"]));
    // CelebA's own net has upstream's classes, and its images have none.
    let celeba = ["train", "--dataset=celeba", "--data_path=set/train/cat", "--batch_size=4"];
    assert!(fails(dir, &celeba).contains("--batch_size 4: the data set has only 3 images"));
}

#[test]
fn what_is_no_file_is_named_or_passed_over() {
    let dir = classes();
    let dir = dir.path();
    let cat = dir.join("set/train/cat");
    symlink("gone", cat.join("7.png")).unwrap();
    let error = fails(dir, &train("set", "classes.json", &[]));
    assert!(error.contains("set/train/cat/7.png`: is a link to nothing, no image"), "{error}");
    assert!(error.contains("--skip-bad"), "{error}");
    let _socket = UnixListener::bind(cat.join("5.jpg")).unwrap();
    let pipe = cat.join("6.jpg");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::write(cat.join("8.png"), b"").unwrap();

    let stderr = said(dir, &train("set", "classes.json", &["--skip-bad", "--image-size", "8"]));
    assert!(stderr.contains("imagenet:train: 7 images in 2 classes\n"), "{stderr}");
    assert!(stderr.contains("warning: passed over 3 bad file(s): "), "{stderr}");
    for name in ["5.jpg", "6.jpg", "7.png"] {
        assert!(stderr.contains(&format!("cat/{name}`")), "{name}: {stderr}");
    }

    // Nobody opens a pipe, which would not end.
    let flat = fails(dir, &["fid", "set/train/cat", "set/train/dog"]);
    assert!(flat.contains("set/train/cat/5.jpg`: is a socket, no image"), "{flat}");
    let alone = fails(dir, &["fid", "set/train/cat/6.jpg", "mnist:train"]);
    assert!(alone.contains("6.jpg`: is a pipe; a regular file is needed"), "{alone}");
    // An empty class.
    fs::create_dir(dir.join("set/train/eel")).unwrap();
    let empty = fails(dir, &train("set", "classes.json", &["--skip-bad", "--output_dir=b"]));
    assert!(empty.contains("set/train/eel`: is a class, but holds no images"), "{empty}");
}

#[test]
fn mnist_goes_by_the_names_of_unpackers_too() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    idx(dir);
    for (from, to) in
        [("train-images-idx3", "train-images.idx3"), ("train-labels-idx1", "train-labels.idx1")]
    {
        let at = |name: &str| dir.join(format!("mnist/{name}-ubyte"));
        fs::rename(at(from), at(to)).unwrap();
    }
    let stderr = said(dir, &[&TRAIN[..], &["--test_run"]].concat());
    assert!(stderr.contains("mnist:train: 20 images in 10 classes\n"), "{stderr}");
    let pipe = dir.join("mnist/train-images-idx3-ubyte");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = fails(dir, &[&TRAIN[..], &["--output_dir=b"]].concat());
    assert!(error.contains("train-images-idx3-ubyte`: is a pipe; a regular file"), "{error}");
}

/// A file of 28 x 28 grey values in RGB, `salt` apart, without a compressor.
fn grey(salt: usize, kind: &str) -> Vec<u8> {
    let pixels: Vec<u8> = (0..784).map(|i| (i * i * salt % 251) as u8).collect();
    let thrice =
        |values: &mut dyn Iterator<Item = &u8>| values.flat_map(|&v| [v; 3]).collect::<Vec<_>>();
    match kind {
        "ppm" => [b"P6 28 28 255\n".to_vec(), thrice(&mut pixels.iter())].concat(),
        "pgm" => [b"P5 28 28 255\n".to_vec(), pixels].concat(),
        "bmp" => {
            let mut file =
                b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x1c\0\0\0\x1c\0\0\0\x01\0\x18\0".to_vec();
            file.resize(54, 0);
            pixels.rchunks(28).for_each(|row| file.extend(thrice(&mut row.iter())));
            file
        }
        _ => {
            // Width, height, bits, interpretation, where the only strip lies, its length.
            let tags = [(256, 28), (257, 28), (258, 8), (262, 1), (273, 8), (279, 784_u16)];
            let mut file = b"II*\0\x18\x03\0\0".to_vec();
            file.extend(&pixels);
            file.extend(6_u16.to_le_bytes());
            for (tag, value) in tags {
                file.extend(
                    [tag, 3, 1, 0, value, 0_u16].iter().flat_map(|half| half.to_le_bytes()),
                );
            }
            [file, vec![0; 4]].concat()
        }
    }
}

#[test]
fn images_of_every_kind_are_the_same_images() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for kind in ["ppm", "pgm", "bmp", "tif"] {
        fs::create_dir(dir.join(kind)).unwrap();
        for i in 1..5 {
            let name =
                if i == 1 { format!("1.{}", kind.to_uppercase()) } else { format!("{i}.{kind}") };
            fs::write(dir.join(kind).join(name), grey(i, kind)).unwrap();
        }
    }
    for kind in ["pgm", "bmp", "tif"] {
        let json: Value = serde_json::from_str(&ok(dir, &["fid", kind, "ppm", "--json"])).unwrap();
        assert_eq!((&json["n_a"], &json["n_b"]), (&4.into(), &4.into()), "{kind}");
        assert!(json["fid"].as_f64().unwrap().abs() < 1e-6, "{kind}: {json}");
    }
}

#[test]
fn a_signal_is_obeyed_while_images_are_waited_for() {
    let dir = classes();
    let dir = dir.path();
    // A batch of many large images, which takes far longer than a second to read.
    fs::create_dir(dir.join("many")).unwrap();
    png(&dir.join("large.png"), 1500, 1);
    for i in 0..4000 {
        fs::hard_link(dir.join("large.png"), dir.join(format!("many/{i}.png"))).unwrap();
    }
    let args = ["--batch_size", "4000", "--image-size", "8", "--cache-mib", "0", "--epochs", "2"];
    let mut run = train("many", "free.json", &args);
    run.retain(|arg| *arg != "--test_run");
    let mut fmq = Command::new(env!("CARGO_BIN_EXE_fmq"));
    let mut child = fmq.args(run).current_dir(dir).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while !dir.join("run/args.json").exists() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "the run has ended too early");
    let asked = Instant::now();
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(kill.success() && output.status.success(), "{stderr}");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert!(stderr.contains("stopped by a signal, saved"), "{stderr}");
    assert!(dir.join("run/checkpoint.pth").exists());
}
