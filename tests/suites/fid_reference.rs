//! Inception's features, the images before them and the measures after them are those of torchmetrics,
//! torch-fidelity and pytorch-fid.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a suite: it panics to fail"
)]

use std::collections::HashMap;

use candle_core::{Device, IndexOp, Tensor};
use fm_candle::data::Images;
use fm_candle::fid::inception::{FeatureLayer, Inception};
use fm_candle::fid::inception_score::inception_score;
use fm_candle::fid::kid::{MeanStd, mmd2};
use fm_candle::fid::prdc::prdc;
use fm_candle::fid::resize::{Resize, SIDE};
use fm_candle::fid::{Features, Statistics, fid};
use fm_candle::model::ShapeRecorder;
use fmq_tests::{formula, formula_state_dict, json, max_difference, numbers, ran, tensors};
use serde_json::Value;

/// How the reference calls a way to resize, in its images and in its features.
const WAYS: [(Resize, &str, &str); 3] = [
    (Resize::Tf1, "resized_tf1", "tf"),
    (Resize::Torchmetrics, "resized_antialias", "torchmetrics"),
    (Resize::PytorchFid, "resized_pytorch_fid", "pytorchfid"),
];

/// How the reference calls a layer.
const LAYERS: [(FeatureLayer, &str); 6] = [
    (FeatureLayer::D64, "64"),
    (FeatureLayer::D192, "192"),
    (FeatureLayer::D768, "768"),
    (FeatureLayer::D2048, "2048"),
    (FeatureLayer::LogitsUnbiased, "logits_unbiased"),
    (FeatureLayer::Logits, "logits"),
];

/// The names of the image sets, and the tensors.
fn images() -> (Vec<String>, HashMap<String, Tensor>) {
    let tensors = tensors("fid/inception.safetensors");
    let sets = tensors.keys().filter(|name| !name.contains('.')).cloned().collect();
    (sets, tensors)
}

/// The images of a set as Inception takes them.
fn input(images: &Tensor, how: Resize) -> Tensor {
    let (_, c, h, w) = images.dims4().unwrap();
    let pixels: Vec<u8> = images.flatten_all().unwrap().to_vec1().unwrap();
    how.input(&pixels, [c, h, w], &Device::Cpu).unwrap()
}

/// Names and shapes as the reference lists them.
fn listed() -> Vec<(String, Vec<usize>)> {
    let list: Vec<(String, Vec<usize>, String)> =
        serde_json::from_value(json("fid/torch_fidelity.state_dict.json")).unwrap();
    list.into_iter().map(|(name, shape, _)| (name, shape)).collect()
}

fn weights() -> Vec<(String, Tensor)> {
    let facts = json("fid/fid.json");
    let (gain, salt) = (facts["weight_gain"].as_f64().unwrap(), facts["salt"].as_u64().unwrap());
    formula_state_dict(listed(), gain, salt)
}

#[test]
fn images_come_to_299_pixels_as_in_each_package() {
    const STEP: usize = 13;
    let (sets, tensors) = images();
    let mut run = 0;
    for set in &sets {
        for (how, name, _) in WAYS {
            let x = input(&tensors[set], how);
            let every: Vec<u32> = (0..SIDE as u32).step_by(STEP).collect();
            let every = Tensor::new(every, &Device::Cpu).unwrap();
            let x = x.index_select(&every, 1).unwrap().index_select(&every, 2).unwrap();
            let x = x.permute((0, 3, 1, 2)).unwrap();
            // Back to pixels in [0, 255].
            let (found, expected) = if how == Resize::PytorchFid {
                (
                    ((x + 1.0).unwrap() * 127.5).unwrap(),
                    (&tensors[&format!("{set}.{name}")] * 255.0).unwrap(),
                )
            } else {
                (((x + 1.0).unwrap() * 128.0).unwrap(), tensors[&format!("{set}.{name}")].clone())
            };
            let off = max_difference(&found, &expected);
            println!("{set}, {how}: off by {off:.1e} of 255");
            assert!(off < 1e-3, "{set}, {how}: {off}");
            run += 1;
        }
    }
    ran("resized image sets", run, 12, 6);
}

#[test]
fn the_net_asks_for_the_parameters_of_the_weight_files() {
    let mut shapes = ShapeRecorder::default();
    Inception::new(&mut shapes, &Device::Cpu).unwrap();
    let counters = |(name, _): &(String, Vec<usize>)| !name.ends_with("num_batches_tracked");
    assert_eq!(shapes.list, listed().into_iter().filter(counters).collect::<Vec<_>>());
}

#[test]
fn features_are_those_of_each_package() {
    let (sets, tensors) = images();
    let net = Inception::load(weights(), &Device::Cpu).unwrap();
    let mut run = 0;
    for set in &sets {
        for (how, _, package) in WAYS {
            let x = input(&tensors[set], how);
            for (layer, name) in LAYERS {
                let Some(expected) = tensors.get(&format!("{set}.{package}.{name}")) else {
                    continue;
                };
                let found = net.features(&x, layer).unwrap();
                assert_eq!(found.dims()[1], layer.dim());
                let most = numbers(expected).iter().fold(0f64, |most, y| most.max(y.abs()));
                let off = max_difference(&found, expected) / most;
                println!("{set}, {package}, {name}: off by {off:.1e} of the greatest");
                assert!(off < 1e-4, "{set}, {package}, {name}: {off}");
                run += 1;
            }
        }
    }
    ran("features of image sets", run, 56, 28);
}

#[test]
fn weight_files_open_with_and_without_counters() {
    let (sets, tensors) = images();
    let set = sets.iter().find(|set| *set == "img28").unwrap();
    let pixels = &tensors[set];
    let pixels =
        Images::new([3, 28, 28], pixels.flatten_all().unwrap().to_vec1().unwrap(), vec![0; 4]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("inception.safetensors");
    for counters in [true, false] {
        let kept = weights().into_iter().filter(|(name, _)| counters || !name.contains("batches"));
        let kept: HashMap<_, _> = kept.collect();
        candle_core::safetensors::save(&kept, &path).unwrap();
        let features: Features = "inception-192".parse().unwrap();
        let net = features.open(&path, Resize::Tf1, &Device::Cpu).unwrap();
        let found = net.rows(pixels.as_ref().unwrap()).unwrap();
        let found = Tensor::from_vec(found, (4, 192), &Device::Cpu).unwrap();
        assert!(max_difference(&found, &tensors["img28.tf.192"]) < 1e-4 * 3.7);
    }
    // Files of other nets are refused, by what is wrong with them.
    let complaint = |change: &dyn Fn(&mut HashMap<String, Tensor>)| {
        let mut changed: HashMap<_, _> = weights().into_iter().collect();
        change(&mut changed);
        Inception::load(changed, &Device::Cpu).err().unwrap().to_string()
    };
    let part = |w: &mut HashMap<_, Tensor>| {
        let fc = w["fc.weight"].i(..1000).unwrap();
        w.insert("fc.weight".into(), fc);
    };
    assert!(complaint(&part).contains("`fc.weight`: has shape [1000, 2048]"));
    let negative = |w: &mut HashMap<_, Tensor>| {
        let var = w["Mixed_5b.branch1x1.bn.running_var"].neg().unwrap();
        w.insert("Mixed_5b.branch1x1.bn.running_var".into(), var);
    };
    assert!(complaint(&negative).contains("`Mixed_5b.branch1x1.bn.running_var`: holds a variance"));
    assert!(complaint(&|w| drop(w.remove("fc.bias"))).contains("`fc.bias`: missing"));
    let more = |w: &mut HashMap<_, Tensor>| {
        let extra = w["fc.bias"].clone();
        w.insert("AuxLogits.fc.bias".into(), extra);
    };
    assert!(complaint(&more).contains("`AuxLogits.fc.bias`"));
}

/// The statistics of one side of a case: `max(0, shift + gain/4 z_ij + (1/8 + 1/(2 (1 + j))) c_i)`.
fn side(case: &Value, side: usize, salt: u64) -> Statistics {
    let d = case["dim"].as_u64().unwrap();
    let n = case["n"][side].as_u64().unwrap();
    let stream = case["streams"][side].as_u64().unwrap();
    let [shift, gain] = ["shift", "gain"].map(|key| case[key][side].as_f64().unwrap());
    let mut values = Vec::new();
    for i in 0..n {
        let common = formula(stream + 3, i, salt);
        let value = |j: u64| {
            let z: f64 = (0..3).map(|k| formula(stream + k, i * d + j, salt)).sum();
            let loading = 0.125 + 0.5 / (1 + j) as f64;
            ((shift + 0.25 * gain * z) + loading * common).max(0.0) as f32
        };
        values.extend((0..d).map(value));
    }
    Statistics::of_rows(&values, d as usize).unwrap()
}

/// With fewer images than features the packages differ from one another from the 7th digit on, by
/// rounding of eigenvalues that should be 0.
#[test]
fn distances_are_those_of_torchmetrics_and_pytorch_fid() {
    let facts = json("fid/fid.json");
    let salt = facts["salt"].as_u64().unwrap();
    let cases = facts["frechet"].as_object().unwrap();
    for (name, case) in cases {
        let distance = fid(&side(case, 0, salt), &side(case, 1, salt)).unwrap();
        let few = case["n"].as_array().unwrap().iter().any(|n| n.as_u64() <= case["dim"].as_u64());
        let tolerance = if few { 1e-6 } else { 1e-8 };
        for package in ["torchmetrics_f64", "pytorch_fid"] {
            let expected = case[package].as_f64().unwrap();
            let off = (distance / expected - 1.0).abs();
            println!("{name}, {package}: {distance} for {expected}, off by {off:.1e}");
            assert!(off < tolerance, "{name}, {package}: {distance} for {expected}");
        }
    }
    ran("distances", cases.len(), 5, 5);
}

/// The features and logits that the packages' other measures were taken on.
struct Made {
    tensors: HashMap<String, Tensor>,
}

impl Made {
    fn new() -> Self {
        Self { tensors: tensors("fid/features.safetensors") }
    }

    /// A table of numbers, and how many there are in a row.
    fn rows(&self, name: &str) -> (Vec<f32>, usize) {
        fm_candle::fid::rows(&self.tensors[name]).unwrap()
    }

    /// Rows of indices.
    fn indices(&self, name: &str) -> Vec<Vec<usize>> {
        let tensor = &self.tensors[name];
        let width = *tensor.dims().last().unwrap();
        let all: Vec<i64> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        all.chunks(width)
            .map(|row| row.iter().map(|&i| usize::try_from(i).unwrap()).collect())
            .collect()
    }
}

#[test]
fn kernel_distances_are_those_of_torch_fidelity() {
    let facts = &json("fid/fid.json")["kid"];
    let made = Made::new();
    let ((x, d), (y, _)) = (made.rows("x"), made.rows("y"));
    let pick = |rows: &[f32], numbers: &[usize]| -> Vec<f32> {
        numbers.iter().flat_map(|i| &rows[i * d..][..d]).copied().collect()
    };
    let subsets = made.indices("kid_idx_x").into_iter().zip(made.indices("kid_idx_y"));
    let found: Vec<f64> =
        subsets.map(|(of_x, of_y)| mmd2(&pick(&x, &of_x), &pick(&y, &of_y), d).unwrap()).collect();
    let expected: Vec<f64> = serde_json::from_value(facts["per_subset"].clone()).unwrap();
    assert_eq!(found.len(), expected.len());
    let MeanStd { mean, std } = MeanStd::of(&found);
    let n = facts["mmd_all_first_n"]["n"].as_u64().unwrap() as usize;
    let all = mmd2(&x[..n * d], &y[..n * d], d).unwrap();
    let facts = ["mean", "std_population"].map(|key| facts[key].as_f64().unwrap());
    let whole = json("fid/fid.json")["kid"]["mmd_all_first_n"]["value"].as_f64().unwrap();
    let pairs = found.into_iter().zip(expected);
    let pairs: Vec<_> = pairs.chain([(mean, facts[0]), (std, facts[1]), (all, whole)]).collect();
    let off = pairs.iter().fold(0f64, |most, (a, b)| most.max((a - b).abs()));
    println!("kernel distances: off by {off:.1e}");
    assert!(off < 1e-10, "{pairs:?}");
    ran("kernel distances", pairs.len(), 11, 11);
}

#[test]
fn inception_scores_are_those_of_torch_fidelity() {
    let facts = &json("fid/fid.json")["isc"];
    let made = Made::new();
    let (logits, classes) = made.rows("logits");
    let orders = [(0..logits.len() / classes).collect(), made.indices("isc_permutation").remove(0)];
    let facts = facts.as_object().unwrap();
    for (case, expected) in facts {
        let (splits, shuffled) = case.split_once('.').unwrap();
        let splits = splits.strip_prefix("splits").unwrap().parse().unwrap();
        let order = &orders[usize::from(shuffled == "shuffle1")];
        let MeanStd { mean, std } = inception_score(&logits, classes, order, splits).unwrap();
        for (key, found) in [("mean", mean), ("std", std)] {
            let expected = expected[format!("inception_score_{key}")].as_f64().unwrap();
            let off = (found - expected).abs() / mean;
            println!("{case}, {key}: {found} for {expected}, off by {off:.1e}");
            assert!(off < 1e-9, "{case}, {key}: {found} for {expected}");
        }
    }
    ran("inception scores", facts.len(), 8, 8);
}

/// The package's fractions passed through f32.
#[test]
fn precision_and_recall_are_those_of_torch_fidelity() {
    let facts = &json("fid/fid.json")["prc"]["values"];
    let made = Made::new();
    let ((x, d), (y, _)) = (made.rows("x"), made.rows("y"));
    let facts = facts.as_object().unwrap();
    for (case, expected) in facts {
        let (k, shift) = case.split_once(".shifted_by_").unwrap_or((case, "0"));
        let (k, shift) =
            (k.strip_prefix('k').unwrap().parse().unwrap(), shift.parse::<f32>().unwrap());
        let y: Vec<f32> = y.iter().map(|y| y + shift).collect();
        let found = prdc(&x, &y, d, k).unwrap();
        for (key, found) in [("precision", found.precision), ("recall", found.recall)] {
            let expected = expected[key].as_f64().unwrap();
            println!("{case}, {key}: {found} for {expected}");
            assert!((found - expected).abs() < 1e-7, "{case}, {key}: {found} for {expected}");
        }
    }
    ran("precisions and recalls", facts.len(), 4, 4);
}
