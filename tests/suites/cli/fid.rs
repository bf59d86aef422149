//! `fmq fid`: which features, which images, and what is said of them.

use super::*;
use fm_candle::device::Device;
use fm_candle::fid::inception::Inception;
use fm_candle::fid::npz;

#[test]
fn fid_compares_embedded_digits() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["fid", "mnist:test", "mnist:train", "-n", "256", "--json"];
    let json: Value = serde_json::from_str(&ok(dir.path(), &args)).unwrap();
    assert_eq!((json["features"].as_str(), json["n_a"].as_u64()), (Some("lenet"), Some(256)));
    let real = json["fid"].as_f64().unwrap();
    assert!((5.0..30.0).contains(&real), "{real}");
    let text = ok(dir.path(), &["fid", "mnist:test", "mnist:train", "-n", "256"]);
    assert!(text.starts_with("FID (LeNet features)"), "{text}");
}

/// A folder with an untrained Inception net as `inception.safetensors`, and two sets of six images, in
/// colour and grey.
fn inception() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut weights = Initial::new(1, &Device::Cpu);
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
    let expected =
        format!("FID (64 Inception features) = {distance:.4}  (A: 6 images, B: 6 images, ");
    assert_eq!(text, format!("{expected}resize: torchmetrics)\n"));
    // Weights alone ask for Inception's last features, which are another number.
    let error = fails(dir, &[&["fid", "stats.npz", "b.npz"], &weights[..]].concat());
    assert!(error.contains("64 features") && error.contains("2048"), "{error}");
}

#[test]
fn features_that_cannot_be_had_say_why() {
    let dir = folder();
    let dir = dir.path();
    let error =
        fails(dir, &["fid", "mnist:test", "mnist:train", "-n", "4", "--features", "inception"]);
    assert!(error.contains("--weights") && error.contains("fmq data fetch inception"), "{error}");
    let error = fails(dir, &["fid", "mnist:test", "mnist:train", "-n", "4", "--resize", "tf1"]);
    assert!(error.contains("lenet"), "{error}");
    let error = fails(dir, &["fid", "mnist:test", "mnist:train", "--features", "vgg"]);
    assert!(error.contains("inception-768"), "{error}");
    let net = ["fid", "mnist:test", "mnist:train", "-n", "4", "--weights", "net.safetensors"];
    let error = fails(dir, &net);
    assert!(error.contains("net.safetensors") && error.contains("Conv2d_1a_3x3"), "{error}");
}
