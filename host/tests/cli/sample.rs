//! `fmq sample`: its outputs, the way to them as pictures, folders written again.

use std::fs::File;
use std::io::BufReader;

use super::*;

/// Color, size and frames of a PNG.
fn frames(path: &Path) -> (png::ColorType, (u32, u32), Vec<Vec<u8>>) {
    let mut reader =
        png::Decoder::new(BufReader::new(File::open(path).unwrap())).read_info().unwrap();
    let animated = reader.info().animation_control.map(|control| control.num_frames);
    // In front of an animation lies the picture for viewers that know none.
    let count = animated.map_or(1, |frames| frames + 1);
    let frame = |_| {
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        pixels
    };
    let mut frames: Vec<Vec<u8>> = (0..count).map(frame).collect();
    if animated.is_some() {
        let still = frames.remove(0);
        assert_eq!(Some(&still), frames.last());
    }
    (reader.info().color_type, reader.info().size(), frames)
}

fn files(dir: &Path) -> Vec<String> {
    let relative = |path: PathBuf| path.strip_prefix(dir).unwrap().to_str().unwrap().to_string();
    names(dir).into_iter().map(relative).collect()
}

const COARSE: &str = r#"{"step_size": 0.25}"#;

#[test]
fn so_many_steps_are_those_of_their_size() {
    let dir = folder();
    let dir = dir.path();
    let draw = |out: &str, solver: &[&str]| {
        let all = ["sample", "net.safetensors", "-n", "1", "--label", "3", "-o", out];
        ok(dir, &[&all, solver].concat());
        fs::read(dir.join(out)).unwrap()
    };
    let euler = |more: [&'static str; 2]| ["--ode-method", "euler", more[0], more[1]];
    let steps = draw("a.npz", &euler(["--steps", "4"]));
    assert_eq!(steps, draw("b.npz", &euler(["--ode-options", COARSE])));
    assert_ne!(steps, draw("c.npz", &euler(["--steps", "5"])));
}

#[test]
fn every_kind_of_output_is_written() {
    let dir = folder();
    let dir = dir.path();
    ok(dir, &["sample", "net.safetensors", "-n", "4", "-o", "grid.png", "--label", "3"]);
    ok(dir, &["sample", "net.safetensors", "-n", "4", "-o", "s.npz", "--label", "all"]);
    ok(dir, &["sample", "net.safetensors", "-n", "2", "-o", "images"]);
    ok(dir, &["sample", "net.safetensors", "-n", "2", "-o", "t.safetensors", "--trajectory"]);
    assert!(fs::read(dir.join("s.npz")).unwrap().starts_with(b"PK"));
    assert_eq!(files(&dir.join("images")), ["000000.png", "000001.png"]);
    let file = checkpoint::load(&dir.join("t.safetensors"), true).unwrap();
    let find = |name: &str| file.tensor(name).unwrap().clone();
    assert_eq!(find("trajectory").dims(), [21, 2, 1, 8, 8]);
    assert_eq!(find("nfe").to_vec1::<i64>().unwrap(), [40]);
    let times = find("times").to_vec1::<f64>().unwrap();
    assert_eq!((times.len(), times[0], times[20]), (21, 0.0, 1.0));
    let end = find("trajectory").get(20).unwrap().flatten_all().unwrap();
    let samples = find("samples").flatten_all().unwrap();
    assert_eq!(end.to_vec1::<f32>().unwrap(), samples.to_vec1::<f32>().unwrap());
    assert_eq!(find("label").dims(), [2]);
}

#[test]
fn pictures_of_one_channel_are_rgb_and_fid_takes_them() {
    let dir = folder();
    let dir = dir.path();
    ok(dir, &["sample", "net.safetensors", "-n", "4", "-o", "grid.png"]);
    ok(dir, &["sample", "net.safetensors", "-n", "4", "-o", "images"]);
    for (path, side) in [("grid.png", 2 * 16 + 2), ("images/000003.png", 8)] {
        let (color, size, frames) = frames(&dir.join(path));
        assert_eq!((color, size), (png::ColorType::Rgb, (side, side)), "{path}");
        assert!(frames[0].chunks_exact(3).all(|rgb| rgb[0] == rgb[1] && rgb[1] == rgb[2]));
    }
    // 28 x 28, the size that LeNet takes: the pictures count as the grey images they are.
    let net = ["--image-size", "28", "--ode-options", COARSE, "-n", "4"];
    for output in ["digits", "digits.npz"] {
        ok(dir, &[&["sample", "net.safetensors", "-o", output], &net[..]].concat());
    }
    let json: Value =
        serde_json::from_str(&ok(dir, &["fid", "digits", "digits.npz", "--json"])).unwrap();
    assert_eq!(json["n_a"], 4);
    assert!(json["fid"].as_f64().unwrap() < 1e-9, "{json}");
}

#[test]
fn options_without_effect_or_against_the_file_are_told() {
    let dir = folder();
    let args = ["sample", "net.safetensors", "-n", "1", "-o", "x.png", "--ode-options", COARSE];
    let cases: [(&[&str], _); 3] = [
        (&["--raw-weights"], "--raw-weights has no effect: `net.safetensors` has no average (EMA)"),
        (&["--image-size", "16"], "the net of `net.safetensors` is for images of side 8"),
        (&["--image-size", "8"], ""),
    ];
    for (more, told) in cases {
        let output = fmq(dir.path(), &[&args[..], more].concat());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && stderr.contains(told), "{more:?}: {stderr}");
        assert_eq!(stderr.contains("warning"), !told.is_empty(), "{more:?}: {stderr}");
    }
}

#[test]
fn the_way_to_the_images_becomes_an_animation() {
    let dir = folder();
    let dir = dir.path();
    let args = ["sample", "net.safetensors", "-n", "3", "--trajectory", "--ode-options", COARSE];
    ok(dir, &[&args[..], &["-o", "grid.png"]].concat());
    let (_, size, end) = frames(&dir.join("grid.png"));
    let (color, moving, states) = frames(&dir.join("grid.trajectory.png"));
    assert_eq!((color, moving, states.len()), (png::ColorType::Rgb, size, 5));
    assert_eq!(states[4], end[0], "the last frame is the result");
    assert!(states.windows(2).all(|pair| pair[0] != pair[1]), "every frame moves");

    ok(dir, &[&args[..], &["-o", "images"]].concat());
    let frames_dir = dir.join("images/frames");
    let expected = ["0000.png", "0001.png", "0002.png", "0003.png", "0004.png", "trajectory.png"];
    assert_eq!(files(&frames_dir), expected);
    assert_eq!(frames(&frames_dir.join("trajectory.png")).2, states);
    for (i, state) in states.iter().enumerate() {
        assert_eq!(&frames(&frames_dir.join(expected[i])).2[0], state, "frame {i}");
    }

    // Never more than 50 frames, and those run from the first time to the last.
    let fine = ["--ode-method", "euler", "--ode-options", r#"{"step_size": 0.01}"#];
    let args = ["sample", "net.safetensors", "-n", "1", "--trajectory"];
    ok(dir, &[&args[..], &fine, &["-o", "fine.png"]].concat());
    let (.., states) = frames(&dir.join("fine.trajectory.png"));
    assert_eq!((states.len(), &states[49]), (50, &frames(&dir.join("fine.png")).2[0]));
}

#[test]
fn a_folder_is_written_again_without_leftovers() {
    let dir = folder();
    let dir = dir.path();
    let sample = |n: &'static str, extra: &[&'static str]| {
        let args = ["sample", "net.safetensors", "--ode-options", COARSE, "-o", "images", "-n", n];
        [&args[..], extra].concat()
    };
    let images = dir.join("images");
    ok(dir, &sample("4", &["--trajectory"]));
    fs::write(images.join(".hidden"), "a file manager's").unwrap();
    ok(dir, &sample("2", &["--seed", "1"]));
    assert_eq!(files(&images), [".hidden", "000000.png", "000001.png"]);
    let two = fs::read(images.join("000001.png")).unwrap();

    // What another program numbered likewise, and anything else, is neither replaced nor removed.
    let mut foreign = Vec::new();
    let writer = png::Encoder::new(&mut foreign, 1, 1).write_header();
    writer.unwrap().write_image_data(&[7]).unwrap();
    for (name, bytes) in [("000001.png", &foreign[..]), ("notes.txt", b"mine"), ("a.png", &two)] {
        let before = fs::read(images.join(name)).ok();
        fs::write(images.join(name), bytes).unwrap();
        let error = fails(dir, &sample("1", &[]));
        assert!(error.contains(name) && error.contains("empty folder"), "{error}");
        assert_eq!(fs::read(images.join(name)).unwrap(), bytes);
        match before {
            Some(before) => fs::write(images.join(name), before).unwrap(),
            None => fs::remove_file(images.join(name)).unwrap(),
        }
    }
    fs::create_dir(images.join("sub")).unwrap();
    assert!(fails(dir, &sample("1", &[])).contains("sub"));
    fs::write(dir.join("file"), "no folder").unwrap();
    let args = ["sample", "net.safetensors", "-n", "1", "-o", "file"];
    assert!(fails(dir, &args).contains("file"));
}

#[test]
fn a_run_that_was_killed_goes_on_with_the_parts_that_are_there() {
    let dir = folder();
    let dir = dir.path();
    let draw = |seed: &'static str, out: &'static str| {
        let args =
            ["sample", "net.safetensors", "-n", "4000", "--steps", "2", "--seed", seed, "-o"];
        [&args[..], &[out]].concat()
    };
    let mut fmq = Command::new(env!("CARGO_BIN_EXE_fmq"));
    let mut child = fmq.args(draw("0", "cut.npz")).current_dir(dir).spawn().unwrap();
    let parts = dir.join("cut.npz.parts");
    while !parts.join("000000-000256.safetensors").exists() {
        assert!(child.try_wait().unwrap().is_none(), "done without parts");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!dir.join("cut.npz").exists());
    let error = fails(dir, &draw("1", "cut.npz"));
    assert!(error.contains("its seed is 0, not 1"), "{error}");

    let again = fmq_with(dir, &draw("0", "cut.npz"));
    assert!(again.contains("of 4000 images were drawn before"), "{again}");
    assert!(!parts.exists());
    ok(dir, &draw("0", "whole.npz"));
    assert!(fs::read(dir.join("cut.npz")).unwrap() == fs::read(dir.join("whole.npz")).unwrap());

    // The same images as in one part.
    ok(dir, &["sample", "net.safetensors", "-n", "8", "--steps", "2", "-o", "few.safetensors"]);
    ok(dir, &["sample", "net.safetensors", "-n", "300", "--steps", "2", "-o", "many.safetensors"]);
    let samples = |name: &str| {
        let file = checkpoint::load(&dir.join(name), true).unwrap();
        file.tensor("samples").unwrap().narrow(0, 0, 8).unwrap().flatten_all().unwrap()
    };
    let values = |name| samples(name).to_vec1::<f32>().unwrap();
    assert_eq!(values("few.safetensors"), values("many.safetensors"));

    // A folder holds a picture for each image, and none of an earlier run.
    ok(dir, &["sample", "net.safetensors", "-n", "302", "--steps", "2", "-o", "images/"]);
    ok(dir, &["sample", "net.safetensors", "-n", "300", "--steps", "2", "-o", "images/"]);
    let pictures = files(&dir.join("images"));
    assert_eq!((pictures.len(), &*pictures[299]), (300, "000299.png"));
}

/// Runs `fmq`, which must succeed, and returns what it wrote to stderr.
fn fmq_with(dir: &Path, args: &[&str]) -> String {
    let output = fmq(dir, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "fmq {args:?}: {stderr}");
    stderr
}
