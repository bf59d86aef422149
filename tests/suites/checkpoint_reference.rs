//! Promise: checkpoints that torch wrote load with their exact values and order, and damaged or
//! hostile ones are refused without a panic. The files are described beside them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use fm_candle::checkpoint::{Checkpoint, Kind, NET_KEY, load, safetensors as container};
use safetensors::tensor::View;
use safetensors::{Dtype, SafeTensors};

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/checkpoint").join(file)
}

/// Names with the given beginning, sorted.
fn files(beginning: &str) -> Vec<String> {
    let names = fs::read_dir(data("")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(beginning)).collect();
    names.sort();
    names
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    View::data(tensor).into_owned()
}

/// Holds `loaded` to the safetensors file `expect`, bit for bit; bool and i8 are widened.
fn assert_exact(loaded: &Checkpoint, expect: &str) {
    let file = fs::read(data(expect)).unwrap();
    let mut expected: HashMap<_, _> =
        SafeTensors::deserialize(&file).unwrap().tensors().into_iter().collect();
    for (name, tensor) in &loaded.tensors {
        // Files of upstream's layout lose the name of the dictionary around the net.
        let full = format!("model.{name}");
        let view = expected.remove(name).or_else(|| expected.remove(&full));
        let view = view.unwrap_or_else(|| panic!("{expect} lacks {name}"));
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
    for (file, expect) in [
        ("dtypes.pth", "dtypes"),
        ("dtypes.legacy.pth", "dtypes"),
        ("views.pth", "views"),
        ("views.legacy.pth", "views"),
        ("parameters.pth", "parameters"),
        ("containers.pth", "containers"),
        ("bare_tensor.pth", "bare_tensor"),
        ("list_top.pth", "list_top"),
        ("protocol2.pth", "protocol"),
        ("protocol3.pth", "protocol"),
        ("protocol4.pth", "protocol"),
        ("protocol5.pth", "protocol"),
        ("handmade.pth", "handmade"),
        ("no_byteorder.pth", "handmade"),
        ("big_endian.pth", "handmade"),
        ("deflated.pth", "handmade"),
        ("other_top.pth", "handmade"),
        ("cuda_tagged.pth", "cuda_tagged"),
    ] {
        let loaded = load(&data(file), false).unwrap_or_else(|error| panic!("{error}"));
        assert_exact(&loaded, &format!("{expect}.expect.safetensors"));
        let legacy = file.contains(".legacy.");
        assert_eq!(loaded.kind, if legacy { Kind::TorchLegacy } else { Kind::Torch });
        assert!(!loaded.ema);
    }
}

#[test]
fn tensors_come_in_the_order_of_the_state_dict() {
    let loaded = load(&data("cuda_tagged.pth"), false).unwrap();
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
        let loaded = load(&data("ema.pth"), raw_weights).unwrap();
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
fn damaged_files_are_refused_by_name() {
    for file in files("bad_").iter().chain(&files("whole_")) {
        let error = load(&data(file), false).unwrap_err().to_string();
        assert!(error.contains(file.as_str()), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn hostile_files_are_refused_and_nothing_runs() {
    for file in files("evil_") {
        let error = load(&data(&file), false).unwrap_err().to_string();
        assert!(
            error.contains("belongs to no checkpoint") || error.contains("is no torch"),
            "{error}"
        );
    }
}

/// Loads every file that differs from `file` by a cut, or by one byte in `step`.
fn load_variants(file: &str, step: usize) {
    let whole = fs::read(data(file)).unwrap();
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
    load_variants("handmade.pth", 1);
    load_variants("deflated.pth", 1);
    load_variants("dtypes.legacy.pth", 3);
    load_variants("ema.pth", 7);
    load_variants("protocol.expect.safetensors", 1);
}

#[test]
fn a_torch_file_saved_as_safetensors_stays_the_same() {
    let loaded = load(&data("ema.pth"), false).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    container::save(&path, &loaded.tensors, &[(NET_KEY, "{}")]).unwrap();
    let again = load(&path, false).unwrap();
    assert_eq!(again.kind, Kind::Safetensors);
    assert_eq!(again.net(), Some("{}"));
    assert_eq!(again.tensors.len(), loaded.tensors.len());
    for ((name, tensor), (same, reloaded)) in loaded.tensors.iter().zip(&again.tensors) {
        assert_eq!((name, bytes(tensor)), (same, bytes(reloaded)));
    }
}
