//! Promise: a torch file made from a torch file differs from it in the values of the floating
//! tensors alone, and one made from anything else holds the same state dict.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use fm_candle::Result;
use fm_candle::checkpoint::{Choice, FileKind, Source, load, safetensors as container, torch};
use fm_candle::quantize::{Report, TensorPolicy, quantize_to_torch};
use fmq_tests::{ran, reference, width};
use quant_core::quantize::QuantizeOptions;
use quant_core::scheme::Scheme;
use safetensors::tensor::View;
use zip::ZipArchive;

/// A torch file of ours, or of the reference.
fn data(file: &str) -> PathBuf {
    let ours = fmq_tests::data("checkpoint").join(file);
    let theirs = ["pth", "unet"].map(|folder| reference(folder).join(file));
    [ours].into_iter().chain(theirs).find(|path| path.exists()).unwrap_or_default()
}

fn bits(bits: u8) -> TensorPolicy {
    TensorPolicy::Quantize(QuantizeOptions::new(Scheme::EqualMass, width(bits)))
}

/// A torch file made from another.
struct Made {
    _folder: tempfile::TempDir,
    path: PathBuf,
    /// What the quantizer says the values are, by the file's names.
    values: HashMap<String, Tensor>,
    report: Report,
}

/// Quantizes all that the state dict of `input` holds, or only those of these names.
fn make(
    input: &str,
    only: Option<&[&str]>,
    policy: impl Fn(&str, &[usize]) -> TensorPolicy,
) -> Result<Made> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.pth");
    let source = Source::open_whole(&data(input), &Choice::default())?;
    let names = source.tensors().iter().map(|info| info.name.as_str());
    let picked = names.zip(0..).filter(|(name, _)| only.is_none_or(|only| only.contains(name)));
    let indices: Vec<usize> = picked.map(|(_, index)| index).collect();
    let mut values = HashMap::new();
    let report = quantize_to_torch(&path, &source, &indices, policy, |info, packed| {
        values.insert(info.name.clone(), packed.tensor(&info.shape)?);
        Ok(())
    });
    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, usize::from(report.is_ok()), "{input}");
    Ok(Made { _folder: folder, path, values, report: report? })
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    View::data(tensor).into_owned()
}

/// Holds the tensors of a file to the values of a quantizer, in the dtypes of the input, or to
/// the input's bits where they were kept.
fn assert_holds(made: &Made, input: &str) {
    let was = Source::open_whole(&data(input), &Choice::default()).unwrap();
    let is = Source::open_whole(&made.path, &Choice::default()).unwrap();
    assert_eq!(was.tensors(), is.tensors(), "{input}");
    for (index, info) in is.tensors().iter().enumerate() {
        let report = made.report.tensors.iter().find(|tensor| tensor.name == info.name);
        let expected = match report.map(|tensor| tensor.scheme.as_str()) {
            Some("f32" | "i64") => was.read(index).unwrap(),
            Some(_) => made.values[&info.name].to_dtype(info.dtype).unwrap(),
            None => continue,
        };
        assert_eq!(bytes(&is.read(index).unwrap()), bytes(&expected), "{}", info.name);
    }
}

/// The records of an archive by name, in order; reading checks their CRC-32.
fn records(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut archive = ZipArchive::new(File::open(path).unwrap()).unwrap();
    let count = 0..archive.len();
    let record = |index| {
        let mut record = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        record.read_to_end(&mut bytes).unwrap();
        (record.name().unwrap().to_string(), bytes)
    };
    count.map(record).collect()
}

/// Files that torch wrote, or could have; f64 values that f32 has not are in `dtypes` alone.
const FILES: [&str; 15] = [
    "views.pth",
    "views.legacy.pth",
    "parameters.pth",
    "containers.pth",
    "list_top.pth",
    "protocol2.pth",
    "protocol3.pth",
    "protocol4.pth",
    "protocol5.pth",
    "handmade.pth",
    "no_byteorder.pth",
    "big_endian.pth",
    "cuda_tagged.pth",
    "ema.pth",
    "shared.pth",
];

/// Checkpoints of real runs of upstream's training, where the whole reference is.
fn upstreams() -> impl Iterator<Item = &'static str> {
    let files = ["ema_class.checkpoint-9.pth", "train_ckpt.checkpoint-9.pth"];
    let present = files.into_iter().filter(|file| data(file).exists());
    ran("checkpoints of upstream's training", present.clone().count(), files.len(), 1);
    present
}

#[test]
fn values_that_stay_the_same_give_the_same_file() {
    for file in FILES {
        // No channel has more than 256 weights, so 8 bits lose nothing.
        let made =
            make(file, None, |_, _| bits(8)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(made.report.quantized_parameters > 0, "{file}");
        let same = fs::read(&made.path).unwrap() == fs::read(data(file)).unwrap();
        assert!(same, "{file}");
    }
}

#[test]
fn floats_of_every_dtype_take_their_values_and_nothing_else_changes() {
    for file in [
        "dtypes.pth",
        "dtypes.legacy.pth",
        "training.pth",
        "plain.pth",
        "cuda_tagged.pth",
        "handmade.pth",
        "big_endian.pth",
        "no_byteorder.pth",
        "legacy_attn.legacy.pth",
    ]
    .into_iter()
    .chain(upstreams())
    {
        let source = Source::open_whole(&data(file), &Choice::default()).unwrap();
        let infos = source.tensors();
        // Infinities and NaN cannot be quantized.
        let names: Vec<&str> = infos.iter().map(|info| info.name.as_str()).collect();
        let finite: Vec<&str> =
            names.into_iter().filter(|name| !name.ends_with("special")).collect();
        let made = make(file, Some(&finite), |_, _| bits(1));
        let made = made.unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(made.report.mse > 0.0, "{file}");
        assert_holds(&made, file);
        let (was, is) = (fs::read(data(file)).unwrap(), fs::read(&made.path).unwrap());
        assert_eq!(was.len(), is.len(), "{file}");
        if file.contains("legacy") {
            continue;
        }
        let floats = infos.iter().filter(|info| info.dtype.is_float()).count();
        let (was, is) = (records(&data(file)), records(&made.path));
        let differ = was.iter().zip(&is).filter(|(was, is)| was.1 != is.1);
        let differ: Vec<&str> = differ.map(|(was, _)| was.0.as_str()).collect();
        assert!(was.iter().map(|(name, _)| name).eq(is.iter().map(|(name, _)| name)), "{file}");
        assert!(!differ.is_empty() && differ.len() <= floats, "{file}: {differ:?}");
        assert!(differ.iter().all(|name| name.contains("/data/")), "{file}: {differ:?}");
    }
}

#[test]
fn optimizer_and_arguments_of_a_training_run_stay() {
    // Ten parameters and ten shadows around four buffers; four parameters. What follows is the
    // optimizer's.
    for (file, parameters, first) in [("training.pth", 20, 23), ("plain.pth", 4, 4)] {
        let made = make(file, None, |_, _| bits(1)).unwrap();
        let (was, is) = (records(&data(file)), records(&made.path));
        let changed: Vec<usize> = was
            .iter()
            .zip(&is)
            .filter(|(was, is)| was.1 != is.1)
            .map(|(was, _)| was.0.rsplit('/').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(changed.len(), parameters, "{file}: {changed:?}");
        assert!(changed.iter().all(|&key| key < first), "{file}: {changed:?}");
    }
}

#[test]
fn raw_weights_and_shadows_are_treated_by_the_name_of_their_parameter() {
    let policy = |name: &str, _: &[usize]| {
        if name == "conv.weight" { bits(1) } else { TensorPolicy::F32 }
    };
    let made = make("training.pth", None, policy).unwrap();
    assert_holds(&made, "training.pth");
    let coded = made.report.tensors.iter().filter(|tensor| tensor.scheme == "ot");
    let coded: Vec<&str> = coded.map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(coded.len(), 2);
    assert!(coded.contains(&"model.conv.weight") && coded[1].starts_with("shadow_params."));
    for raw_weights in [false, true] {
        let (was, is) = (
            load(&data("training.pth"), raw_weights).unwrap(),
            load(&made.path, raw_weights).unwrap(),
        );
        assert_eq!(is.ema, !raw_weights);
        for ((name, was), (_, is)) in was.tensors.iter().zip(&is.tensors) {
            assert_eq!(bytes(was) == bytes(is), name != "conv.weight", "{name}");
        }
    }
}

#[test]
fn views_take_their_values_where_they_lie() {
    for file in ["views.pth", "views.legacy.pth"] {
        for name in [
            "transposed",
            "permuted",
            "channels_last",
            "cols_step2",
            "block",
            "rows",
            "tail_of_big",
        ] {
            let made = make(file, Some(&[name]), |_, _| bits(1)).unwrap();
            assert!(made.report.mse > 0.0, "{name}");
            assert_holds(&made, file);
        }
    }
    // Two names of one tensor, and two parts of one storage.
    let made = make("shared.pth", None, |_, _| bits(1)).unwrap();
    assert!(made.report.mse > 0.0);
    assert_holds(&made, "shared.pth");
}

#[test]
fn one_element_cannot_have_two_values() {
    for (file, only, policy) in [
        ("views.pth", &["base", "transposed"][..], None),
        ("views.legacy.pth", &["base", "transposed"], None),
        ("shared.pth", &["a", "b"], Some("b")),
    ] {
        let policy = |name: &str, _: &[usize]| {
            if policy.is_none_or(|coded| coded == name) { bits(1) } else { TensorPolicy::F32 }
        };
        let error = make(file, Some(only), policy).err().unwrap().to_string();
        assert!(error.contains(&format!("tensor `{}`: shares memory", only[1])), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn an_archive_without_sums_is_as_good() {
    let made = make("no_sums.pth", None, |_, _| bits(1)).unwrap();
    assert_eq!(made.report.quantized_parameters, 55);
    assert_holds(&made, "no_sums.pth");
}

#[test]
fn compressed_storages_are_refused() {
    let error = make("deflated.pth", None, |_, _| bits(1)).err().unwrap().to_string();
    assert!(error.contains("is compressed") && error.contains("tensor `"), "{error}");
}

#[test]
fn a_state_dict_of_our_own_has_the_same_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let (dense, path) = (folder.path().join("a.safetensors"), folder.path().join("a.pth"));
    let cpu = &Device::Cpu;
    let floats = Tensor::new(&[[0.1_f32, -2.0, 3.5], [4.0, 0.0, 65504.0]], cpu).unwrap();
    let mut tensors = vec![
        ("z.weight".to_string(), floats.clone()),
        ("scalar".into(), Tensor::new(-7_i64, cpu).unwrap()),
        ("empty".into(), Tensor::zeros((2, 0, 3), DType::F32, cpu).unwrap()),
        ("large".into(), Tensor::zeros((70_000, 1), DType::F32, cpu).unwrap()),
    ];
    for dtype in
        [DType::F16, DType::BF16, DType::F64, DType::I64, DType::I32, DType::I16, DType::U8]
    {
        tensors.push((format!("{dtype:?}"), floats.to_dtype(dtype).unwrap()));
    }
    container::save(&dense, &tensors, &[]).unwrap();
    torch::save(&path, &Source::open(&dense, false).unwrap()).unwrap();
    let made = load(&path, false).unwrap();
    assert_eq!((made.kind, made.tensors.len()), (FileKind::Torch, tensors.len()));
    for ((name, was), (same, is)) in tensors.iter().zip(&made.tensors) {
        assert_eq!((name, was.dtype(), was.dims()), (same, is.dtype(), is.dims()));
        assert_eq!(bytes(was), bytes(is), "{name}");
    }
    let mut archive = ZipArchive::new(File::open(&path).unwrap()).unwrap();
    for index in 0..archive.len() {
        let record = archive.by_index(index).unwrap();
        assert_eq!(record.data_start().unwrap() % 64, 0, "{:?}", record.name());
    }

    // Quantized on the way, in the dtypes of the input.
    let source = Source::open(&dense, false).unwrap();
    let all: Vec<usize> = (0..tensors.len()).collect();
    let mut values = HashMap::new();
    quantize_to_torch(
        &path,
        &source,
        &all,
        |_, _| bits(1),
        |info, packed| {
            values.insert(info.name.clone(), packed.tensor(&info.shape)?.to_dtype(info.dtype)?);
            Ok(())
        },
    )
    .unwrap();
    for (name, is) in load(&path, false).unwrap().tensors {
        assert_eq!(bytes(&is), bytes(&values[&name]), "{name}");
    }
}
