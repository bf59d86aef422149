//! Promise: checkpoints that torch wrote load with their exact values and order, and damaged or
//! hostile ones are refused without a panic. The files are described beside them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use fm_candle::checkpoint::{
    Checkpoint, FileKind, NET_KEY, Source, load, safetensors as container,
};
use fmq_tests::{data, json, ran, reference};
use safetensors::tensor::View;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};

/// A file of the reference's torch files.
fn pth(file: &str) -> PathBuf {
    reference(&format!("pth/{file}"))
}

/// The small file that is tagged as a GPU run leaves it.
fn cuda_tagged() -> PathBuf {
    reference("unet/cuda_tagged.pth")
}

/// Files and facts that `pth.json` lists under a heading; all of them are committed, too.
fn listed(heading: &str) -> Map<String, Value> {
    let files = json("pth/pth.json")[heading].as_object().unwrap().clone();
    let present = files.keys().filter(|file| pth(file).exists()).count();
    ran(heading, present, files.len(), files.len());
    files
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    View::data(tensor).into_owned()
}

/// Holds `loaded` to the safetensors file `expect`, bit for bit; bool and i8 are widened.
///
/// The reference keeps but one of the four tensors of the old-format file of containers.
fn assert_exact(loaded: &Checkpoint, expect: &Path) {
    let partial = expect.ends_with("containers.legacy.pth.expect.safetensors");
    let file = fs::read(expect).unwrap();
    let expect = expect.display();
    let mut expected: HashMap<_, _> =
        SafeTensors::deserialize(&file).unwrap().tensors().into_iter().collect();
    for (name, tensor) in &loaded.tensors {
        // Files of upstream's layout lose the name of the dictionary around the net.
        let full = format!("model.{name}");
        let view = expected.remove(name).or_else(|| expected.remove(&full));
        let Some(view) = view else {
            assert!(partial, "{expect} lacks {name}");
            continue;
        };
        assert_eq!(tensor.dims(), view.shape(), "{name}");
        let values = match view.dtype() {
            Dtype::I8 => {
                let wide = view.data().iter().map(|&byte| i16::from(byte.cast_signed()));
                wide.flat_map(i16::to_le_bytes).collect()
            }
            _ => view.data().to_vec(),
        };
        assert_eq!(bytes(tensor), values, "{name}");
    }
    assert!(expected.is_empty(), "{expect}: not loaded: {:?}", expected.keys());
}

#[test]
fn torch_files_have_their_exact_values() {
    for file in listed("must_load").keys() {
        // One file of expected tensors serves every version of the pickle protocol.
        let expect = if file.starts_with("protocol") { "protocols" } else { file.as_str() };
        let loaded = load(&pth(file), false).unwrap_or_else(|error| panic!("{error}"));
        assert_exact(&loaded, &pth(&format!("{expect}.expect.safetensors")));
        let legacy = file.contains(".legacy.");
        assert_eq!(loaded.kind, if legacy { FileKind::TorchLegacy } else { FileKind::Torch });
        assert!(!loaded.ema);
    }
    let loaded = load(&cuda_tagged(), false).unwrap();
    assert_exact(&loaded, &reference("unet/cuda_tagged.expect.safetensors"));
}

#[test]
fn tensors_come_in_the_order_of_the_state_dict() {
    let loaded = load(&cuda_tagged(), false).unwrap();
    let names: Vec<_> = loaded.tensors.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "time_embed.0.weight",
        "time_embed.0.bias",
        "time_embed.2.weight",
        "time_embed.2.bias",
        "input_blocks.0.0.weight",
        "input_blocks.0.0.bias",
        "input_blocks.1.0.in_layers.0.weight",
        "input_blocks.1.0.in_layers.0.bias",
    ];
    assert_eq!(names, expected);
}

#[test]
fn shadows_are_taken_unless_raw_weights_are_asked_for() {
    for (raw_weights, shift) in [(false, 0.5), (true, 0.0)] {
        let loaded = load(&data("checkpoint/ema.pth"), raw_weights).unwrap();
        assert_eq!(loaded.ema, !raw_weights);
        assert_eq!(loaded.tensors.len(), 13);
        let (steps, parameters): (Vec<_>, Vec<_>) =
            loaded.tensors.into_iter().partition(|(name, _)| name == "steps");
        assert_eq!(steps[0].1.to_scalar::<i64>().unwrap(), 7);
        for (i, (name, tensor)) in (0_u8..).zip(&parameters) {
            assert_eq!(*name, format!("out.{}.weight", 11 - i));
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(
                values.iter().all(|&value| value.to_bits() == (f32::from(i) + shift).to_bits())
            );
        }
    }
}

#[test]
fn without_an_average_there_are_the_raw_weights_alone() {
    for raw_weights in [false, true] {
        let loaded = load(&data("checkpoint/plain.pth"), raw_weights).unwrap();
        assert!(!loaded.ema);
        let names: Vec<_> = loaded.tensors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["0.weight", "0.bias", "1.weight", "1.bias"]);
        for (i, (name, tensor)) in (0_u8..).zip(&loaded.tensors) {
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let expected: Vec<f32> = (i..).map(f32::from).take(values.len()).collect();
            assert_eq!(values, expected, "{name}");
        }
    }
}

/// Names of the tensors of `file` that have to be copied; the elements of all must be those of
/// the tensor that is read.
fn copied(path: &Path) -> Vec<String> {
    let (file, source) = (path.display(), Source::open(path, false).unwrap());
    let mut copied = Vec::new();
    for (index, info) in source.tensors().iter().enumerate() {
        let (elements, tensor) = (source.elements(index).unwrap(), source.read(index).unwrap());
        assert_eq!(elements.bytes().as_ref(), bytes(&tensor), "{file}: {}", info.name);
        assert_eq!((elements.dtype(), elements.len()), (tensor.dtype(), tensor.elem_count()));
        assert_eq!((info.dtype, info.shape.as_slice()), (tensor.dtype(), tensor.dims()));
        if matches!(elements.bytes(), Cow::Owned(_)) {
            copied.push(info.name.clone());
        }
    }
    copied
}

#[test]
fn what_a_file_stores_plainly_is_borrowed_from_its_map() {
    let plain = [
        cuda_tagged(),
        data("checkpoint/ema.pth"),
        pth("protocol2.pth"),
        pth("handmade.pth"),
        pth("no_byteorder.pth"),
        pth("handmade.pth.expect.safetensors"),
        pth("views.pth.expect.safetensors"),
    ];
    for path in plain {
        assert!(copied(&path).is_empty(), "{}: {:?}", path.display(), copied(&path));
    }
    // All but the bytes that are widened.
    for file in ["dtypes.pth", "dtypes.legacy.pth", "dtypes.pth.expect.safetensors"] {
        assert_eq!(copied(&pth(file)), ["i8"], "{file}");
    }
    // Those in another order or with gaps.
    assert_eq!(copied(&pth("views.pth")), copied(&pth("views.legacy.pth")));
    for file in ["views.pth", "deflated.pth", "big_endian.pth"] {
        assert!(!copied(&pth(file)).is_empty(), "{file}");
    }
}

#[test]
fn floats_of_every_width_become_f32() {
    for file in ["dtypes.pth", "dtypes.legacy.pth", "dtypes.pth.expect.safetensors"] {
        let source = Source::open(&pth(file), false).unwrap();
        let mut dtypes = Vec::new();
        for (index, info) in source.tensors().iter().enumerate() {
            let (elements, tensor) = (source.elements(index).unwrap(), source.read(index).unwrap());
            let flat = tensor.flatten_all().unwrap();
            if !info.dtype.is_float() {
                let expected = flat.to_dtype(DType::I64).unwrap().to_vec1::<i64>().unwrap();
                assert_eq!(elements.i64s().unwrap(), expected, "{file}: {}", info.name);
                continue;
            }
            dtypes.push(info.dtype);
            let expected = flat.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
            let mut found = vec![0.0; info.count()];
            elements.fill_f32(0..info.count(), &mut found);
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&found), bits(&expected), "{file}: {}", info.name);
        }
        for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
            assert!(dtypes.contains(&dtype), "{file} has no {dtype:?}");
        }
    }
}

#[test]
fn damaged_files_are_refused_by_name() {
    for file in listed("must_fail_cleanly").keys() {
        let error = load(&pth(file), false).unwrap_err().to_string();
        assert!(error.contains(file.as_str()), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn hostile_files_are_refused_and_nothing_runs() {
    for (file, facts) in &listed("hostile_must_be_refused") {
        let error = load(&pth(file), false).unwrap_err().to_string();
        assert!(
            error.contains("belongs to no checkpoint") || error.contains("is no torch"),
            "{error}"
        );
        if let Some(marker) = facts["marker_that_must_not_appear"].as_str() {
            let places = [Path::new(".").join(marker), std::env::temp_dir().join(marker)];
            assert!(!places.iter().any(|place| place.exists()), "{file} ran");
        }
    }
}

/// Loads every file that differs from `file` by a cut, or by one byte in `step`.
fn load_variants(path: &Path, step: usize) {
    let whole = fs::read(path).unwrap();
    let file = path.file_name().unwrap().to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let load_bytes = |bytes: &[u8]| {
        // A new file each time: some systems sync a file that is written anew.
        let path = folder.path().join(file);
        fs::write(&path, bytes).unwrap();
        let loaded = load(&path, false);
        fs::remove_file(path).unwrap();
        loaded
    };
    for at in (0..whole.len()).step_by(step) {
        assert!(load_bytes(&whole[..at]).is_err(), "{file} cut at {at}");
        for change in [0x01, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[at] ^= change;
            // A changed weight is still a weight; all that counts is a result.
            _ = load_bytes(&changed);
        }
    }
}

#[test]
fn no_damage_panics() {
    load_variants(&pth("handmade.pth"), 1);
    load_variants(&pth("deflated.pth"), 1);
    load_variants(&pth("dtypes.legacy.pth"), 3);
    load_variants(&data("checkpoint/ema.pth"), 7);
    load_variants(&pth("protocols.expect.safetensors"), 1);
}

#[test]
fn a_torch_file_saved_as_safetensors_stays_the_same() {
    let loaded = load(&data("checkpoint/ema.pth"), false).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    container::save(&path, &loaded.tensors, &[(NET_KEY, "{}")]).unwrap();
    let again = load(&path, false).unwrap();
    assert_eq!(again.kind, FileKind::Safetensors);
    assert_eq!(again.net(), Some("{}"));
    assert_eq!(again.tensors.len(), loaded.tensors.len());
    for ((name, tensor), (same, reloaded)) in loaded.tensors.iter().zip(&again.tensors) {
        assert_eq!((name, bytes(tensor)), (same, bytes(reloaded)));
    }
}
