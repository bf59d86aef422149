//! What bad input is answered with: a file per command in `errors/`, of command lines and what they said.
//!
//! A line `$ fmq ...` there is a case, run in a folder of [`files`]. To add one, write it; to accept what
//! is said now: `INSTA_UPDATE=always cargo test --workspace --test cli -- errors::`.

use fm_candle::data::catalog::INCEPTION;
use fm_candle::device::Device;
use fm_candle::fid::npz;

use super::fid::save_rows;
use super::*;

/// Runs the cases of `errors/COMMAND.snap` in `dir` and holds them to what is written there.
fn said(command: &str, dir: &Path) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/errors");
    let cases = fs::read_to_string(folder.join(format!("{command}.snap"))).unwrap();
    let mut said = String::new();
    for line in cases.lines().filter(|line| line.starts_with("$ ")) {
        let args = words(line.strip_prefix("$ fmq ").expect(line));
        assert_eq!(args[0], command);
        let shown = match refusal(dir, &args) {
            (1, error) => error,
            (code, usage) => {
                format!("{}\n[exit code {code}]\n", usage.split("\n\n").next().unwrap())
            }
        };
        said.extend([line, "\n", &shown]);
    }
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path("errors");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(command, said));
}

/// The words of a command line, without its single quotes.
fn words(line: &str) -> Vec<&str> {
    let parts = line.split('\'').enumerate();
    parts
        .flat_map(|(i, part)| match i % 2 {
            0 => part.split_whitespace().collect(),
            _ => vec![part],
        })
        .collect()
}

/// Changes the tensors of `net.safetensors` into the file `name`, which says its net or not.
fn edit(dir: &Path, name: &str, says_net: bool, change: impl Fn(&mut Vec<(String, Tensor)>)) {
    let mut tensors = checkpoint::load(&dir.join("net.safetensors"), true).unwrap().tensors;
    change(&mut tensors);
    let json = config::to_json(&tiny());
    let metadata = [(checkpoint::NET_KEY, json.as_str())];
    let metadata: &[_] = if says_net { &metadata } else { &[] };
    checkpoint::safetensors::save(&dir.join(name), &tensors, metadata).unwrap();
}

fn set(tensors: &mut [(String, Tensor)], name: &str, change: impl Fn(&Tensor) -> Tensor) {
    let (_, tensor) = tensors.iter_mut().find(|(found, _)| found == name).unwrap();
    *tensor = change(tensor);
}

/// Writes tensors that are no net.
fn write(dir: &Path, name: &str, tensors: &[(&str, Tensor)]) {
    let tensors: Vec<_> = tensors.iter().map(|(n, t)| ((*n).to_string(), t.clone())).collect();
    checkpoint::safetensors::save(&dir.join(name), &tensors, &[]).unwrap();
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

/// A folder of small files: a net, packed and not; damaged ones and of other kinds, named after their
/// fault; and sets of images.
fn files() -> TempDir {
    let folder = folder();
    let dir = folder.path();
    let fill = |tensor: &Tensor, value: f64| (tensor.ones_like().unwrap() * value).unwrap();
    edit(dir, "bare.safetensors", false, |_| ());
    edit(dir, "missing.safetensors", true, |all| drop(all.remove(0)));
    edit(dir, "extra.safetensors", true, |all| all.push(("extra".into(), zeros(&[2]))));
    edit(dir, "shape.safetensors", true, |all| set(all, "out.2.bias", |_| zeros(&[2])));
    edit(dir, "nan.safetensors", true, |all| set(all, "out.2.bias", |t| fill(t, f64::NAN)));
    edit(dir, "huge.safetensors", true, |all| {
        set(all, "out.2.bias", |t| fill(t, f32::MAX.into()));
        set(all, "out.0.weight", |t| fill(t, 1e38));
    });
    write(dir, "list.safetensors", &[("w", zeros(&[2, 3]))]);
    write(dir, "x0.safetensors", &[("x0", zeros(&[2, 1, 8, 8])), ("label", labels(&[3, 4]))]);
    ok(dir, &words("quantize net.safetensors --scheme ot --bits 2 -o q.fmq"));
    ok(dir, &words("quantize list.safetensors --scheme ot --bits 2 -o list.fmq"));
    ok(dir, &words("unpack q.fmq -o q.pth"));
    ok(dir, &words("unpack list.fmq -o list.pth"));
    let free = UNetConfig { num_classes: None, ..tiny() };
    misfits::write(&dir.join("no-classes.safetensors"), &free, true);
    fs::write(dir.join("misspelt.json"), r#"{"num_head": 4}"#).unwrap();

    for kind in ["fmq", "safetensors", "pth"] {
        let whole = if kind == "safetensors" { "net.safetensors" } else { &format!("q.{kind}") };
        let bytes = fs::read(dir.join(whole)).unwrap();
        fs::write(dir.join(format!("cut.{kind}")), &bytes[..bytes.len() / 2]).unwrap();
        fs::write(dir.join(format!("text.{kind}")), "not a model at all").unwrap();
        fs::write(dir.join(format!("empty.{kind}")), "").unwrap();
    }
    // Of zeros, so that its checksums are the same everywhere.
    let bytes = fs::read(dir.join("list.fmq")).unwrap();
    let last = bytes.len() - 1;
    for (name, at, value) in [("flipped.fmq", last, !bytes[last]), ("future.fmq", 4, 9)] {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        fs::write(dir.join(name), bytes).unwrap();
    }
    for folder in ["empty", "folder.fmq", "folder.safetensors"] {
        fs::create_dir(dir.join(folder)).unwrap();
    }
    idx(dir);
    fs::create_dir(dir.join("digits")).unwrap();
    write_half(&dir.join("digits"), "t10k", 13);
    write_half(&dir.join("digits"), "train", 7);
    folder
}

fn labels(labels: &[i64]) -> Tensor {
    Tensor::new(labels, &Device::Cpu).unwrap()
}

#[test]
fn quantize() {
    said("quantize", files().path());
}

#[test]
fn tune() {
    said("tune", files().path());
}

#[test]
fn unpack() {
    said("unpack", files().path());
}

#[test]
fn inspect() {
    said("inspect", files().path());
}

#[test]
fn calibrate() {
    said("calibrate", files().path());
}

#[test]
fn export() {
    said("export", files().path());
}

#[test]
fn data() {
    said("data", files().path());
}

#[test]
fn train_lenet() {
    said("train-lenet", files().path());
}

#[test]
fn sample() {
    let folder = files();
    let dir = folder.path();
    write(dir, "no-x0.safetensors", &[("noise", zeros(&[1, 1, 8, 8]))]);
    write(dir, "three-channels.safetensors", &[("x0", zeros(&[1, 3, 8, 8]))]);
    write(dir, "nan-x0.safetensors", &[("x0", (zeros(&[1, 1, 8, 8]) * f64::NAN).unwrap())]);
    write(dir, "label-11.safetensors", &[("x0", zeros(&[1, 1, 8, 8])), ("label", labels(&[11]))]);
    said("sample", dir);
}

#[test]
fn velocity() {
    let folder = files();
    let dir = folder.path();
    write(dir, "no-t.safetensors", &[("x", zeros(&[1, 1, 8, 8]))]);
    write(dir, "no-x.safetensors", &[("t", zeros(&[1]))]);
    let whole = Tensor::zeros((1, 1, 8, 8), DType::I64, &Device::Cpu).unwrap();
    for (name, tensor, value) in [
        ("in", "t", zeros(&[1])),
        ("three-times", "t", zeros(&[3])),
        ("three-channels", "x", zeros(&[1, 3, 8, 8])),
        ("nan-t", "t", (zeros(&[1]) * f64::NAN).unwrap()),
        ("whole-x", "x", whole.clone()),
        ("whole-t", "t", labels(&[0])),
        ("whole-concat", "concat_conditioning", whole),
        ("two-labels", "label", labels(&[1, 2])),
        ("label-11", "label", labels(&[11])),
        ("label-minus-1", "label", labels(&[-1])),
        ("float-label", "label", zeros(&[1])),
    ] {
        misfits::points(&dir.join(format!("{name}.safetensors")), &[(tensor, value)]);
    }
    said("velocity", dir);
}

#[test]
fn encode() {
    let folder = files();
    let dir = folder.path();
    let colours: Vec<u8> = (0..192).collect();
    npz::write_images(&dir.join("colour.npz"), &colours, [1, 8, 8, 3]).unwrap();
    npz::write_images(&dir.join("small.npz"), &[0; 64], [1, 8, 8, 1]).unwrap();
    npz::write_images(&dir.join("large.npz"), &[0; 81], [1, 9, 9, 1]).unwrap();
    npz::write_images(&dir.join("none.npz"), &[], [0, 8, 8, 1]).unwrap();
    let image = zeros(&[1, 1, 8, 8]);
    write(dir, "nan-image.safetensors", &[("samples", (&image * f64::NAN).unwrap())]);
    write(dir, "flat.safetensors", &[("samples", zeros(&[64]))]);
    write(dir, "three-channels.safetensors", &[("samples", zeros(&[1, 3, 8, 8]))]);
    for (name, label) in [("label-11.safetensors", 11), ("label-minus-1.safetensors", -1)] {
        write(dir, name, &[("samples", image.clone()), ("label", labels(&[label]))]);
    }
    said("encode", dir);
}

#[test]
fn fid() {
    let folder = files();
    let dir = folder.path();
    save_rows(dir, "rows.safetensors", 60, 1.0);
    save_rows(dir, "few.safetensors", 40, 2.0);
    ok(dir, &["fid", "rows.safetensors", "--save-stats", "stats.npz"]);
    for (name, bytes) in [
        ("archive.zip", &b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..]),
        ("one.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF"),
        ("one.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
        ("array.npy", b"\x93NUMPY\x01\0\x76\0{'descr': '|O'}"),
        ("empty.npz", b""),
        ("lfs.npz", b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n"),
        ("images.gz", b"\x1f\x8b\x08\0\0\0\0\0"),
        ("noise", b"\xff\0\xfe"),
        ("other.pkl", b"\x80\x04}(\x8c\x01a\x8c\x01bu."),
    ] {
        fs::write(dir.join(name), bytes).unwrap();
    }
    fs::create_dir_all(dir.join("classes/cat")).unwrap();
    fs::copy(dir.join("q.pth"), dir.join("digits").join(INCEPTION)).unwrap();
    let array = |shape: &[usize], values: &[f64]| npz::Array {
        shape: shape.to_vec(),
        values: npz::NpyValues::F64(values.to_vec()),
    };
    let two = array(&[2], &[0.5, 1.0]);
    npz::write(&dir.join("arrays.npz"), &[("m", two.clone()), ("s", two.clone())]).unwrap();
    for (name, sigma) in [
        ("two.npz", [2.0, 0.0, 0.0, 3.0]),
        ("nan.npz", [1.0, f64::NAN, f64::NAN, 1.0]),
        ("negative.npz", [1.0, 2.0, 2.0, 1.0]),
        ("asymmetric.npz", [1.0, 0.5, 0.0, 1.0]),
    ] {
        let sigma = array(&[2, 2], &sigma);
        npz::write(&dir.join(name), &[("mu", two.clone()), ("sigma", sigma)]).unwrap();
    }
    let whole = Tensor::zeros((2, 1, 28, 28), DType::I64, &Device::Cpu).unwrap();
    write(dir, "flat.safetensors", &[("samples", zeros(&[70, 3]))]);
    write(dir, "whole.safetensors", &[("samples", whole)]);
    said("fid", dir);
}

#[test]
fn sweep() {
    said("sweep", files().path());
}

#[test]
fn latent() {
    said("latent", files().path());
}

#[test]
fn train() {
    let folder = files();
    let dir = folder.path();
    let deep = UNetConfig { num_res_blocks: 2, ..tiny() };
    fs::write(dir.join("deep.json"), config::to_json(&deep)).unwrap();
    let mut bytes = fs::read(dir.join("mnist/train-images-idx3-ubyte")).unwrap();
    bytes[7] = 21;
    fs::create_dir(dir.join("lying")).unwrap();
    fs::write(dir.join("lying/train-images-idx3-ubyte"), bytes).unwrap();
    let from = dir.join("mnist/train-labels-idx1-ubyte");
    fs::copy(from, dir.join("lying/train-labels-idx1-ubyte")).unwrap();
    said("train", dir);
}
