//! `fmq encode`: upstream's noise from upstream's samples, the way back, kinds of images.

use fm_candle::device::Device;
use fm_candle::fid::npz;

use super::*;

/// A file of the reference data.
fn data(name: &str) -> String {
    format!("{}/../tests/data/sampling/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path, name: &str) -> Tensor {
    checkpoint::load(path, true).unwrap().tensor(name).unwrap().clone()
}

fn difference(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

fn write(path: &Path, tensors: &[(&str, Tensor)]) {
    let tensors: Vec<_> = tensors.iter().map(|(n, t)| ((*n).to_string(), t.clone())).collect();
    checkpoint::safetensors::save(path, &tensors, &[]).unwrap();
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// `n` images of 8x8 pixels.
fn pixels(n: usize, channels: usize) -> Vec<u8> {
    (0..n * 64).flat_map(|i| vec![(i * 31 % 256) as u8; channels]).collect()
}

#[test]
fn equals_upstream_and_leads_back() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let cases: Value = serde_json::from_slice(&fs::read(data("sampling.json")).unwrap()).unwrap();
    fs::write(dir.join("net.json"), cases["nets"]["cond"]["config"].to_string()).unwrap();
    let io = PathBuf::from(data("cond.samples.safetensors"));
    let (name, label) = ("cond.dopri5.cfg0.2", read(&io, "label"));
    write(
        &dir.join("images.safetensors"),
        &[("samples", read(&io, name)), ("label", label.clone())],
    );
    let weights = data("cond.weights.safetensors");
    let net = [&weights, "--arch", "net.json", "--cfg-scale", "0.2"];
    let encode = ["images.safetensors", "-o", "x0.safetensors", "--round-trip", "--json"];
    let json = json(&ok(dir, &[&["encode"], &net[..], &encode].concat()));

    let out = dir.join("x0.safetensors");
    let x0 = read(&out, "x0");
    // 20 times what a change of the last bits of x1 moves the reference's result, which then takes
    // 32 or 38 evaluations.
    let off = difference(&x0, &read(&io, &format!("{name}.encoded")));
    assert!(off < 20.0 * 1.23e-4, "{off}");
    println!("off by {off:e}");
    assert!(json["nfe"].as_u64().unwrap().abs_diff(32) <= 6, "{json}");
    assert_eq!((json["n"].as_u64(), json["method"].as_str()), (Some(3), Some("dopri5")));
    assert_eq!(read(&out, "label").to_vec1::<i64>().unwrap(), label.to_vec1::<i64>().unwrap());

    let values: Vec<f32> = x0.flatten_all().unwrap().to_vec1().unwrap();
    let count = values.len() as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let var = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
    assert!((json["mean"].as_f64().unwrap() - mean).abs() < 1e-9);
    assert!((json["std"].as_f64().unwrap() - var.sqrt()).abs() < 1e-9);

    let (back, images) = (read(&out, "reconstruction"), read(&io, name));
    assert!(difference(&back, &images) < 1e-3);
    let squares = (&back - &images).unwrap().sqr().unwrap().flatten_from(1).unwrap();
    let each = squares.mean(1).unwrap().to_vec1::<f32>().unwrap();
    let expected: Vec<f64> =
        each.iter().map(|&mse| 10.0 * (4.0 / f64::from(mse)).log10()).collect();
    let psnr = read(&out, "psnr").to_vec1::<f32>().unwrap();
    assert_eq!(psnr.len(), 3);
    assert!(psnr.iter().zip(&expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-2), "{psnr:?}");
    let mean = expected.iter().sum::<f64>() / 3.0;
    assert!((json["psnr_db"].as_f64().unwrap() - mean).abs() < 1e-2, "{json} {mean}");
    assert!(mean > 60.0, "{mean}");
    assert!(json["nfe_reconstruction"].is_u64() && json["mse"].is_f64());

    // `fmq sample` goes on from the file, with its labels, to the same images.
    let sample = ["--x0", "x0.safetensors", "--ode-method", "dopri5", "-o", "again.safetensors"];
    ok(dir, &[&["sample"], &net[..], &sample].concat());
    let again = dir.join("again.safetensors");
    assert!(difference(&read(&again, "samples"), &back) < 1e-5);
    // And what it writes is encoded again.
    ok(dir, &[&["encode"], &net[..], &["again.safetensors", "-o", "x1.safetensors"]].concat());
    assert!(difference(&read(&dir.join("x1.safetensors"), "x0"), &x0) < 2e-3);
}

#[test]
fn every_kind_of_image_set_is_taken() {
    let dir = folder();
    let dir = dir.path();
    idx(dir);
    fs::create_dir(dir.join("set")).unwrap();
    let first = Images::new([1, 8, 8], pixels(3, 1), vec![0, 1, 2]).unwrap();
    for i in 0..3 {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 8, 8);
        encoder.set_color(png::ColorType::Rgb);
        let rgb: Vec<u8> = first.image(i).iter().flat_map(|&grey| [grey; 3]).collect();
        encoder.write_header().unwrap().write_image_data(&rgb).unwrap();
        fs::write(dir.join(format!("set/{i}.png")), bytes).unwrap();
    }
    npz::write_images(&dir.join("set.npz"), &pixels(3, 1), [3, 8, 8, 1]).unwrap();
    npz::write_images(&dir.join("rgb.npz"), &pixels(3, 3), [3, 8, 8, 3]).unwrap();
    let values: Vec<f32> = pixels(3, 1).iter().map(|&p| f32::from(p) / 127.5 - 1.0).collect();
    let samples = Tensor::from_vec(values, (3, 1, 8, 8), &Device::Cpu).unwrap();
    write(&dir.join("set.safetensors"), &[("samples", samples)]);

    let encode = |set: &str, extra: &[&str]| {
        let fixed = ["--ode-method", "midpoint", "--data-path", "mnist", "-o", "x.safetensors"];
        ok(dir, &[&["encode", "net.safetensors", set, "-n", "2"], &fixed[..], extra].concat());
        let out = dir.join("x.safetensors");
        (read(&out, "x0"), read(&out, "label").to_vec1::<i64>().unwrap())
    };
    // Without classes: the row after the last class.
    let (folder, labels) = encode("set", &[]);
    assert_eq!((folder.dims(), &labels[..]), (&[2, 1, 8, 8][..], &[10, 10][..]));
    for set in ["set.npz", "rgb.npz", "set.safetensors"] {
        let (x0, labels) = encode(set, &[]);
        assert!(difference(&x0, &folder) < 1e-5, "{set}");
        assert_eq!(labels, [10, 10]);
    }
    // A data set has classes; the same images without them are encoded otherwise.
    let (x0, labels) = encode("mnist:train", &[]);
    assert_eq!(labels, [0, 1]);
    assert!(difference(&x0, &folder) > 1e-4);
    let (x0, labels) = encode("mnist:train", &["--label", "none"]);
    assert_eq!(labels, [10, 10]);
    assert!(difference(&x0, &folder) < 1e-5);
    assert_eq!(encode("set.npz", &["--label", "all"]).1, [0, 1]);
    assert_eq!(encode("mnist:train", &["--label", "7"]).1, [7, 7]);
}

#[test]
fn the_edm_grid_is_walked_backward() {
    let dir = folder();
    let dir = dir.path();
    npz::write_images(&dir.join("set.npz"), &pixels(2, 1), [2, 8, 8, 1]).unwrap();
    let edm = ["--edm-schedule", "--ode-method", "heun2", "--round-trip", "--json"];
    let args = ["encode", "net.safetensors", "set.npz", "-o", "x.safetensors"];
    let json = json(&ok(dir, &[&args[..], &edm].concat()));
    assert_eq!((json["nfe"].as_u64(), json["nfe_reconstruction"].as_u64()), (Some(100), Some(100)));
    assert!(json["psnr_db"].as_f64().unwrap() > 40.0, "{json}");
    // The net at the grid's ends only: a step of Euler's from 1 to 0 is x1 - v(x1, 1).
    let one = ["--ode-method", "euler", "--ode-options", r#"{"step_size": 1}"#];
    ok(dir, &[&args[..], &one].concat());
    let values: Vec<f32> = pixels(2, 1).iter().map(|&p| f32::from(p) / 127.5 - 1.0).collect();
    let x1 = Tensor::from_vec(values, (2, 1, 8, 8), &Device::Cpu).unwrap();
    let t = Tensor::ones(2, DType::F32, &Device::Cpu).unwrap();
    write(&dir.join("in.safetensors"), &[("x", x1.clone()), ("t", t)]);
    let velocity = ["--inputs", "in.safetensors", "-o", "v.safetensors"];
    ok(dir, &[&["velocity", "net.safetensors"], &velocity[..]].concat());
    let expected = (x1 - read(&dir.join("v.safetensors"), "v")).unwrap();
    assert!(difference(&read(&dir.join("x.safetensors"), "x0"), &expected) < 1e-5);
}
