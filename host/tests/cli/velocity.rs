//! `fmq velocity`: upstream's numbers from upstream's file.

use super::*;

/// A file of the reference data.
fn data(name: &str) -> String {
    format!("{}/../tests/data/unet/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn equals_upstream_on_its_own_files() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let cases: Value = serde_json::from_slice(&fs::read(data("unet.json")).unwrap()).unwrap();
    for case in ["concat_cond", "ignore_time", "no_input_proj"] {
        // Upstream has no field for the size of the images; whatever is absent has its default.
        fs::write(dir.join("net.json"), cases[case]["config"].to_string()).unwrap();
        let [net, io] = ["bare.pth", "io.safetensors"].map(|kind| data(&format!("{case}.{kind}")));
        ok(dir, &["velocity", &net, "--arch", "net.json", "--inputs", &io, "-o", "v.safetensors"]);
        let read = |path: &Path, name: &str| {
            let file = checkpoint::load(path, true).unwrap();
            file.tensors.into_iter().find(|(found, _)| found == name).unwrap().1
        };
        let (v, y) = (read(&dir.join("v.safetensors"), "v"), read(Path::new(&io), "y"));
        let difference = (v - y).unwrap().abs().unwrap().max_all().unwrap();
        let difference = difference.to_scalar::<f32>().unwrap();
        assert!(difference < 1e-5, "{case}: {difference}");
        fs::remove_file(dir.join("v.safetensors")).unwrap();
    }
}

#[test]
fn packed_weights_give_the_numbers_of_their_decoded_ones() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let micro = format!("{}/assets/mnist-micro.safetensors", env!("CARGO_MANIFEST_DIR"));
    ok(dir, &["quantize", &micro, "--scheme", "lloyd-max", "--bits", "4", "-o", "net.fmq"]);
    ok(dir, &["unpack", "net.fmq", "-o", "net.safetensors"]);
    let cpu = &fm_candle::device::Device::Cpu;
    let ramp: Vec<f32> = (0..2 * 28 * 28).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let inputs = [
        ("x".to_string(), Tensor::from_vec(ramp, (2, 1, 28, 28), cpu).unwrap()),
        ("t".to_string(), Tensor::new(&[0.25f32, 0.75], cpu).unwrap()),
        ("label".to_string(), Tensor::new(&[3i64, 7], cpu).unwrap()),
    ];
    checkpoint::safetensors::save(&dir.join("in.safetensors"), &inputs, &[]).unwrap();
    let v = |net: &str, more: &[&str]| {
        let output = format!("{net}{}.safetensors", more.len());
        ok(dir, &[&["velocity", net, "--inputs", "in.safetensors", "-o", &output], more].concat());
        let file = checkpoint::load(&dir.join(output), true).unwrap();
        file.tensor("v").unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let (packed, dense) = (v("net.fmq", &[]), v("net.safetensors", &[]));
    assert_eq!(packed, dense);
    // Eight bits for the inner layers' factors: near, and not the same.
    let integers = v("net.fmq", &["--dtype", "int8"]);
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>();
    let off = square(&mut integers.iter().zip(&packed).map(|(a, b)| a - b));
    let ratio = (off / square(&mut packed.iter().copied())).sqrt();
    assert!(ratio > 1e-5 && ratio < 0.03, "{ratio}");
}
