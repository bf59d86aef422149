//! `fmq fid`: which features, which images, and what is said of them.

use super::*;
use fm_candle::device::Device;
use fm_candle::fid::inception::Inception;
use fm_candle::fid::{Statistics, npz};

#[test]
fn fid_compares_embedded_digits() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["fid", "mnist:test", "mnist:train", "-n", "256", "--json"];
    let json: Value = serde_json::from_str(&ok(dir.path(), &args)).unwrap();
    assert_eq!((json["features"].as_str(), json["n_a"].as_u64()), (Some("lenet"), Some(256)));
    let real = json["fid"].as_f64().unwrap();
    assert!((5.0..30.0).contains(&real), "{real}");
    assert_eq!((&json["a"], &json["b"]), (&"mnist:test".into(), &"mnist:train".into()));
    assert_eq!(json["reference"], "built in");
    let text = ok(dir.path(), &["fid", "mnist:test", "mnist:train", "-n", "256"]);
    let sets = "(A: mnist:test, 256 images; B: mnist:train, 60000 images)";
    assert_eq!(text, format!("FID (LeNet features) = {real:.4}  {sets}\n"));
}

/// A folder with an untrained Inception net as `inception.safetensors`, and two sets of six images, in
/// colour and grey.
pub(super) fn inception() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut weights = RandomInit::new(1, &Device::Cpu);
    Inception::new(&mut weights, &Device::Cpu).unwrap();
    let tensors: Vec<_> =
        weights.vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    checkpoint::safetensors::save(&dir.path().join("inception.safetensors"), &tensors, &[])
        .unwrap();
    for (name, salt, channels) in [("a.npz", 7, 3), ("b.npz", 11, 1)] {
        let pixels: Vec<u8> =
            (0..6 * 8 * 8 * channels).map(|i| (i * i * salt % 251) as u8).collect();
        npz::write_images(&dir.path().join(name), &pixels, [6, 8, 8, channels]).unwrap();
    }
    dir
}

#[test]
fn inception_features_come_from_a_weight_file() {
    let dir = inception();
    let dir = dir.path();
    let fid = |arguments: &[&str]| -> Value {
        let arguments = [&["fid", "a.npz", "b.npz", "--json"], arguments].concat();
        serde_json::from_str(&ok(dir, &arguments)).unwrap()
    };
    let weights = ["--weights", "inception.safetensors"];
    let early = [&["--features", "inception-64"], &weights[..]].concat();
    let json = fid(&early);
    assert_eq!(
        (&json["features"], &json["resize"]),
        (&"inception-64".into(), &"torchmetrics".into())
    );
    assert_eq!((json["n_a"].as_u64(), json["n_b"].as_u64()), (Some(6), Some(6)));
    let warnings: Vec<String> = serde_json::from_value(json["warnings"].clone()).unwrap();
    assert_eq!(warnings.len(), 2);
    assert!(warnings[1].starts_with("B: 6 images for 64 features"), "{warnings:?}");
    let distance = json["fid"].as_f64().unwrap();
    assert!(distance > 0.0);
    let other = fid(&[&early[..], &["--resize", "tf1"]].concat());
    assert_eq!(other["resize"], "tf1");
    assert!((other["fid"].as_f64().unwrap() / distance - 1.0).abs() > 1e-6);

    // Statistics of one set stand for its images.
    ok(dir, &[&["fid", "a.npz", "--save-stats", "stats.npz"], &early[..]].concat());
    let text = ok(dir, &[&["fid", "stats.npz", "b.npz"], &early[..]].concat());
    let sets = "A: stats.npz of a.npz, 6 images; B: b.npz, 6 images; resize: torchmetrics";
    assert_eq!(text, format!("FID (64 Inception features) = {distance:.4}  ({sets})\n"));

    // Statistics say which net and resize they are of, and are compared with no other.
    let error = fails(dir, &[&["fid", "stats.npz", "b.npz"], &weights[..]].concat());
    assert!(error.contains("A has features of inception-64, weights"), "{error}");
    assert!(error.contains("but B of inception, weights"), "{error}");
    let tf1 = [&["fid", "stats.npz", "b.npz", "--resize", "tf1"], &early[..]].concat();
    let error = fails(dir, &tf1);
    assert!(
        error.contains("resize torchmetrics, but B") && error.contains("resize tf1"),
        "{error}"
    );
    // Those of other programs do not say, and are warned of.
    let theirs = dir.join("theirs.npz");
    npz::write_statistics(&theirs, &npz::read_statistics(&dir.join("stats.npz")).unwrap()).unwrap();
    let args = [&["fid", "theirs.npz", "b.npz", "--json"], &early[..]].concat();
    let json: Value = serde_json::from_str(&ok(dir, &args)).unwrap();
    assert_eq!(json["fid"].as_f64(), Some(distance));
    let warned =
        |w: &Value| w.as_str().unwrap().starts_with("A does not say what its features are");
    assert!(json["warnings"].as_array().unwrap().iter().any(warned), "{json}");

    // The score needs the features before the classes.
    let error = fails(dir, &[&["fid", "a.npz", "--is"], &early[..]].concat());
    assert!(error.contains("--is") && error.contains("2048 features, not 64"), "{error}");
    let args = [&["fid", "a.npz", "--is", "--is-splits", "2", "--json"], &weights[..]].concat();
    let json: Value = serde_json::from_str(&ok(dir, &args)).unwrap();
    assert!((1.0..1008.0).contains(&json["is_mean"].as_f64().unwrap()), "{json}");
    assert_eq!((json["fid"].as_f64(), json["n_b"].as_u64()), (None, None));
}

#[test]
fn measures_beside_the_distance_are_those_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    save_rows(dir, "x.safetensors", 60, 1.0);
    save_rows(dir, "y.safetensors", 40, 2.0);
    let run = |arguments: &[&str]| -> Value {
        let args = [&["fid", "x.safetensors", "y.safetensors", "--json"], arguments].concat();
        serde_json::from_str(&ok(dir, &args)).unwrap()
    };
    let alone = run(&[]);
    for key in ["fid_error", "kid_mean", "precision", "is_mean"] {
        assert!(alone.get(key).is_none(), "{key}");
    }
    let json = run(&["--kid", "--prdc", "--bootstrap", "50"]);
    assert_eq!(json["fid"], alone["fid"]);
    let number = |key: &str| json[key].as_f64().unwrap_or_else(|| panic!("{key}: {json}"));
    assert!(number("fid_error") > 0.0 && number("kid_std") > 0.0);
    for key in ["precision", "recall", "coverage"] {
        assert!((0.0..=1.0).contains(&number(key)), "{json}");
    }
    assert!(number("density") >= 0.0);
    // The seed draws resamples and subsets; A and B are not alike.
    let other = run(&["--kid", "--prdc", "--bootstrap", "50", "--seed", "1"]);
    assert!(other["kid_mean"] != json["kid_mean"] && other["fid_error"] != json["fid_error"]);
    assert_eq!(other["precision"], json["precision"]);
    let args = ["fid", "y.safetensors", "x.safetensors", "--prdc", "--json"];
    let turned: Value = serde_json::from_str(&ok(dir, &args)).unwrap();
    assert_eq!((&turned["precision"], &turned["recall"]), (&json["recall"], &json["precision"]));

    // The interval is A's, so B may be statistics.
    ok(dir, &["fid", "x.safetensors", "--save-stats", "x.npz"]);
    ok(dir, &["fid", "y.safetensors", "x.npz", "--bootstrap", "9"]);

    let text = ok(dir, &["fid", "x.safetensors", "y.safetensors", "--kid", "--prdc"]);
    for part in [
        "KID (3 given features) = ",
        "(100 subsets of 40)",
        "recall (3 given features) = ",
        "(k = 3)",
        "A: x.safetensors, 60 images; B: y.safetensors, 40 images",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// A file of `n` rows of 3 features.
pub(super) fn save_rows(dir: &Path, name: &str, n: usize, salt: f32) {
    let rows: Vec<f32> = (0..3 * n).map(|i| ((i * i) as f32 * salt).sin() + 0.1 * salt).collect();
    let rows = Tensor::from_vec(rows, (n, 3), &Device::Cpu).unwrap();
    checkpoint::safetensors::save(&dir.join(name), &[("features".into(), rows)], &[]).unwrap();
}

#[test]
fn digits_have_a_score_on_lenet() {
    let dir = tempfile::tempdir().unwrap();
    let text = ok(dir.path(), &["fid", "mnist:test", "--is", "-n", "400"]);
    let score = text.strip_prefix("IS (LeNet features) = ").unwrap();
    let score: f64 = score.split(' ').next().unwrap().parse().unwrap();
    // Ten classes, almost equally frequent and clearly told.
    assert!((8.0..10.0).contains(&score), "{text}");
}

#[test]
fn folders_may_hold_images_of_several_formats_and_sizes() {
    let dir = inception();
    let dir = dir.path();
    for folder in ["one", "two"] {
        std::fs::create_dir(dir.join(folder)).unwrap();
        for i in 0..4_u8 {
            let side = if folder == "two" { 8 + u32::from(i % 2) } else { 8 };
            png(&dir.join(folder).join(format!("{i}.png")), side, 40 * i);
        }
    }
    let early = ["--features", "inception-64", "--weights", "inception.safetensors", "--json"];
    let json: Value =
        serde_json::from_str(&ok(dir, &[&["fid", "one", "two"], &early[..]].concat())).unwrap();
    assert_eq!((json["n_a"].as_u64(), json["n_b"].as_u64()), (Some(4), Some(4)));
    std::fs::write(dir.join("two/9.bmp"), b"BM").unwrap();
    let error = fails(dir, &[&["fid", "one", "two"], &early[..]].concat());
    assert!(error.contains("9.bmp`: is neither JPEG, PNG, WebP, BMP, PNM nor TIFF"), "{error}");
}

/// Writes a grey picture with a ramp.
fn png(path: &Path, side: u32, from: u8) {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    let pixels: Vec<u8> = (0..side * side).map(|i| (i % 100) as u8 + from).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn data_sets_are_kept_by_what_they_are() {
    let dir = inception();
    let dir = dir.path();
    let run = |arguments: &[&str]| {
        let weights = ["--weights", "inception.safetensors", "--json", "--cache", "kept"];
        let args = [&["fid", "a.npz", "mnist:test"], arguments, &weights[..]].concat();
        let json: Value = serde_json::from_str(&ok(dir, &args)).unwrap();
        json["fid"].as_f64().unwrap()
    };
    let kept = || {
        let files = std::fs::read_dir(dir.join("kept")).unwrap();
        let mut names: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        names.sort();
        names
    };
    let early = ["--features", "inception-64", "-n", "6"];
    let first = run(&early);
    let [file] = &kept()[..] else { panic!("{:?}", kept()) };
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("mnist_test-inception-64__weights_"), "{name}");
    assert!(name.ends_with("-torchmetrics-6.npz"), "{name}");
    // The second time they come from there: changed ones change the distance.
    assert_eq!(run(&early).to_bits(), first.to_bits());
    let (mut statistics, about) =
        (npz::read_statistics(file).unwrap(), npz::read_about(file).unwrap());
    statistics.mean[0] += 1.0;
    npz::write_statistics_about(file, &statistics, &about).unwrap();
    assert!((run(&early) - first).abs() > 0.1);
    // Another resize or number is another file.
    run(&[&early[..], &["--resize", "tf1"]].concat());
    run(&["--features", "inception-64", "-n", "5"]);
    assert_eq!(kept().len(), 3);
}

#[test]
fn other_images_under_the_same_name_are_not_those_of_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_half(dir, "t10k", 13);
    let fid = |more: &[&str]| -> f64 {
        let args = ["fid", "mnist:test", "mnist:train", "--data-path", "train", "--json"];
        let json: Value = serde_json::from_str(&ok(dir, &[&args, more].concat())).unwrap();
        assert!(["computed", "cached"].contains(&json["reference"].as_str().unwrap()), "{json}");
        json["fid"].as_f64().unwrap()
    };
    let time = std::time::SystemTime::UNIX_EPOCH + core::time::Duration::from_secs(1_700_000_000);
    // Files of the same names, sizes and times.
    let lay = |salt: u32| {
        fs::create_dir_all(dir.join("train")).unwrap();
        for half in ["train", "t10k"] {
            write_half(&dir.join("train"), half, if half == "train" { salt } else { 13 });
            let path = dir.join(format!("train/{half}-images-idx3-ubyte"));
            fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
        }
    };
    let cached = ["--cache", "kept"];
    lay(7);
    let first = fid(&[]);
    assert_eq!([fid(&cached), fid(&cached)], [first, first]);
    lay(11);
    let second = fid(&[]);
    assert!((second / first - 1.0).abs() > 1e-3, "{first} {second}");
    assert_eq!([fid(&cached), fid(&cached)], [second, second]);
    lay(7);
    assert_eq!(fid(&cached), first);
    assert_eq!(
        names(&dir.join("kept"))
            .iter()
            .filter(|p| p.display().to_string().contains("mnist_train"))
            .count(),
        2
    );
}

#[test]
fn checkpoints_are_sampled_in_parts_as_at_once() {
    let dir = inception();
    let dir = dir.path();
    save(&dir.join("net.safetensors"), |_, tensor| tensor);
    ok(dir, &["sample", "net.safetensors", "-n", "70", "-o", "samples.safetensors"]);
    let args = ["fid", "net.safetensors", "samples.safetensors", "-n", "70", "--json"];
    let weights = ["--features", "inception-64", "--weights", "inception.safetensors"];
    let json: Value = serde_json::from_str(&ok(dir, &[&args[..], &weights].concat())).unwrap();
    assert_eq!((json["n_a"].as_u64(), json["n_b"].as_u64()), (Some(70), Some(70)));
    assert!(json["fid"].as_f64().unwrap() < 1e-9, "{json}");
}

#[test]
fn statistics_are_read_in_every_layout() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let sigma = [2.0, 0.25, 0.25, 3.0];
    let statistics =
        |mean: [f64; 2]| Statistics { n: None, mean: mean.to_vec(), covariance: sigma.to_vec() };
    npz::write_statistics(&dir.join("b.npz"), &statistics([0.5, 1.0])).unwrap();
    let mu = npz::Array { shape: vec![1, 2], values: npz::NpyValues::F32(vec![0.5, -1.0]) };
    let covariance = npz::Array { shape: vec![2, 2], values: npz::NpyValues::F64(sigma.to_vec()) };
    npz::write(&dir.join("row.npz"), &[("mu", mu.clone()), ("sigma", covariance)]).unwrap();
    let pickles =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fm-candle/testdata/pickled-statistics");
    // Others are big-endian f4 and f2.
    for name in ["protocol2.pkl", "edm2.pkl", "others.pkl"] {
        fs::copy(pickles.join(name), dir.join(name)).unwrap();
    }
    for name in ["row.npz", "protocol2.pkl", "edm2.pkl", "others.pkl"] {
        let json: Value =
            serde_json::from_str(&ok(dir, &["fid", name, "b.npz", "--json"])).unwrap();
        assert!((json["fid"].as_f64().unwrap() - 4.0).abs() < 1e-12, "{name}: {json}");
        assert_eq!(json["reference"], "given");
    }
}
