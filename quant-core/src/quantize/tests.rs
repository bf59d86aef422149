//! Forms, sizes, and what is stored: exactly what the fit says.

use super::*;
use crate::bits::tests::width;
use crate::codebook::CodebookFormat;
use crate::error::Error;
use crate::fit::{Group, fit};
use crate::matrix::{QuantLayout, RowScale};
use crate::noise::Stream;
use crate::num::f64_of;
use crate::rate::Rate;
use crate::scheme::Scheme;
use alloc::vec;
use half::f16;
use proptest::prelude::*;

fn quantize(weights: &[f32], shape: &[usize], scheme: Scheme, bits: u8) -> QuantizedTensor {
    quantize_tensor(weights, shape, &QuantizeOptions::new(scheme, width(bits))).unwrap()
}

fn layout(tensor: &QuantizedTensor) -> Option<QuantLayout> {
    match tensor.storage() {
        Storage::Quantized { layout, .. } => Some(*layout),
        Storage::Dense(_) | Storage::Half(_) => None,
    }
}

fn ramp(n: usize) -> Vec<f32> {
    (0..n).map(|i| crate::num::f32_of(f64_of(i * i % 977) / 977.0 - 0.3)).collect()
}

#[test]
fn uniform_is_affine_and_keeps_constant_channels() {
    let mut weights = ramp(64);
    weights[16..32].fill(-0.0);
    weights[32..48].fill(0.7);
    let tensor = quantize(&weights, &[4, 16], Scheme::Uniform, 4);
    assert_eq!(layout(&tensor).map(|l| l.codebook), Some(CodebookFormat::Affine));
    assert_eq!(tensor.data_bytes(), 4 * 8 + 32);
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&tensor.dequantized()[16..48]), bits(&weights[16..48]));
}

#[test]
fn tables_are_trimmed_to_the_levels_used() {
    // Three distinct values: two bits are enough, whatever was asked for.
    let weights: Vec<f32> = (0..300).map(|i| [0.1, -0.2, 0.3][i % 3]).collect();
    let tensor = quantize(&weights, &[300], Scheme::LloydMax, 8);
    let layout = layout(&tensor).unwrap();
    assert_eq!((layout.bits.get(), layout.codebook), (2, CodebookFormat::F32));
    assert_eq!(tensor.dequantized(), weights);
}

#[test]
fn values_that_f16_holds_are_stored_as_f16() {
    let tensor = quantize(&[0.0; 128], &[128], Scheme::EqualMass, 8);
    let layout = layout(&tensor).unwrap();
    assert_eq!((layout.bits.get(), layout.codebook), (1, CodebookFormat::F16));
    assert_eq!(tensor.data_bytes(), 4 + 16);
}

#[test]
fn dense_where_codebooks_would_cost_more() {
    let tensor = quantize(&ramp(300), &[3, 100], Scheme::EqualMass, 8);
    assert_eq!(tensor.storage(), &Storage::Dense(ramp(300)));
    assert_eq!(tensor.bits_per_weight(), 32.0);
}

#[test]
fn f16_levels_are_rounded_and_may_not_overflow() {
    let options = QuantizeOptions {
        codebook_dtype: CodebookDtype::F16,
        ..QuantizeOptions::new(Scheme::EqualMass, width(1))
    };
    let tensor = quantize_tensor(&[0.1, 0.1, 0.7, 0.7], &[4], &options).unwrap();
    let low = f16::from_f32(0.1).to_f32();
    assert_eq!(tensor.dequantized()[..2], [low; 2]);
    let refused = quantize_tensor(&[1.0, 1.0, 7e4, 7e4], &[4], &options);
    assert_eq!(refused, Err(Error::F16Overflow { index: 2 }));
}

#[test]
fn rows_share_codebooks() {
    let weights = ramp(5 * 64);
    for (granularity, count) in [
        (Granularity::Channel, 5),
        (Granularity::Group(2), 3),
        (Granularity::Tensor, 1),
        (Granularity::Group(99), 1),
    ] {
        let options =
            QuantizeOptions { granularity, ..QuantizeOptions::new(Scheme::LloydMax, width(2)) };
        let tensor = quantize_tensor(&weights, &[5, 8, 8], &options).unwrap();
        assert_eq!(tensor.data_bytes(), count * 16 + 5 * 16, "{granularity:?}");
    }
    let none = QuantizeOptions {
        granularity: Granularity::Group(0),
        ..QuantizeOptions::new(Scheme::Uniform, width(2))
    };
    assert!(matches!(quantize_tensor(&weights, &[5, 64], &none), Err(Error::Range { .. })));
}

#[test]
fn three_levels_take_codes_of_two_bits() {
    let weights: Vec<f32> = (0..640_u16).map(|i| libm::sinf(f32::from(i) * 1.7)).collect();
    let granularities = [Granularity::Channel, Granularity::Tensor, Granularity::Auto];
    for (scheme, granularity) in
        Scheme::ALL.into_iter().flat_map(|scheme| granularities.map(|g| (scheme, g)))
    {
        let at = |rate: Rate| {
            let options = QuantizeOptions { granularity, ..QuantizeOptions::new(scheme, rate) };
            quantize_tensor(&weights, &[5, 128], &options).unwrap()
        };
        let [one, three, two] = [width(1).into(), Rate::THREE_LEVELS, width(2).into()].map(at);
        let levels =
            |tensor: &QuantizedTensor, row: usize| tensor.row_values(row).unwrap().values().len();
        for row in 0..5 {
            assert!(levels(&three, row) <= 3, "{scheme} {granularity:?}");
            let of_two = if scheme == Scheme::Ecq { 2..=4 } else { 4..=4 };
            assert!(of_two.contains(&levels(&two, row)), "{scheme} {granularity:?}");
        }
        let Storage::Quantized { layout, .. } = three.storage() else { panic!("{scheme}") };
        // `log` has a level for each sign.
        let bits = if scheme == Scheme::Logarithmic { 1 } else { 2 };
        assert_eq!(layout.bits, width(bits), "{scheme} {granularity:?}");
        if scheme == Scheme::LloydMax {
            let noise = [&one, &three, &two].map(|tensor| tensor.distortion().noise);
            assert!(noise.is_sorted_by(|a, b| *a > 1.5 * b), "{granularity:?}: {noise:?}");
            let tables = Tables::of(&three).unwrap();
            assert_eq!(tables.rate, Rate::THREE_LEVELS);
            let again = tables.quantize(&three.dequantized(), &weights, &[5, 128]).unwrap();
            assert_eq!(again.dequantized(), three.dequantized());
        }
    }
}

#[test]
fn wrong_input_is_refused_by_name() {
    let options = QuantizeOptions::new(Scheme::Uniform, width(4));
    let mut weights = ramp(32);
    weights[17] = f32::NAN;
    let refused = quantize_tensor(&weights, &[4, 8], &options);
    assert_eq!(refused, Err(Error::NonFinite { what: "weight", index: 17 }));
    let refused = quantize_tensor(&weights, &[4, 9], &options);
    assert_eq!(refused, Err(Error::Length { what: "weights", expected: 36, found: 32 }));
    assert!(quantize_tensor(&[], &[usize::MAX, 2, 2], &options).is_err());
}

#[test]
fn tensors_without_elements_and_scalars_are_defined() {
    for shape in [&[0][..], &[0, 3], &[3, 0]] {
        let tensor = quantize(&[], shape, Scheme::EqualMass, 4);
        assert_eq!((tensor.storage(), tensor.bits_per_weight()), (&Storage::Dense(vec![]), 0.0));
    }
    assert_eq!(quantize(&[2.5], &[], Scheme::Logarithmic, 4).dequantized(), [2.5]);
}

proptest! {
    #[test]
    fn stores_exactly_what_the_fit_says(
        scheme in prop::sample::select(&Scheme::ALL[..]),
        bits in 1_u8..=8,
        rows in 1_usize..5,
        raw in proptest::collection::vec(-2.0_f32..2.0, 64),
        row_len in 1_usize..16,
        coarse in any::<bool>(),
    ) {
        let grid = if coarse { 4.0 } else { 1e7 };
        let weights: Vec<f32> =
            raw[..rows * row_len].iter().map(|w| (w * grid).round() / grid).collect();
        let tensor = quantize(&weights, &[rows, row_len], scheme, bits);
        let mut expected = Vec::new();
        for row in weights.chunks(row_len) {
            let group = Group { numel: weights.len(), ..Group::new(row, width(bits)) };
            expected.extend(fit(scheme, &group).unwrap().dequantized(row));
        }
        let as_bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        prop_assert_eq!(as_bits(tensor.dequantized()), as_bits(expected));
        prop_assert!(tensor.data_bytes() <= 4 * weights.len());
    }
}

/// Normal weights, each row of its own size as in a trained net.
fn gaussian(rows: usize, row_len: usize, spread: f32) -> Vec<f32> {
    let mut weights = vec![0.0; rows * row_len];
    Stream::new(7, 1000).fill_normal(0, 0, &mut weights);
    let mut sizes = vec![0.0; rows];
    Stream::new(8, 1000).fill_normal(0, 0, &mut sizes);
    for (row, size) in weights.chunks_mut(row_len).zip(sizes) {
        for w in row {
            *w *= 1.0 + spread * size.abs();
        }
    }
    weights
}

fn score(tensor: &QuantizedTensor, bits: u8) -> f64 {
    // An exact copy counts as f32's precision.
    let sqnr = tensor.distortion().sqnr_db().unwrap_or(144.0);
    sqnr - 6.02 * (tensor.bits_per_weight() - f64::from(bits))
}

#[test]
fn auto_is_never_below_a_plain_choice() {
    // The rows of the published comparison, for equal and for unequal channels.
    for (row_len, spread) in [(72, 0.0), (144, 1.0), (576, 0.0), (2304, 1.0)] {
        let weights = gaussian(64, row_len, spread);
        for bits in [2, 4, 6, 8] {
            let with = |granularity, codebook_dtype| {
                let options = QuantizeOptions::new(Scheme::LloydMax, width(bits));
                let options = QuantizeOptions { granularity, codebook_dtype, ..options };
                score(&quantize_tensor(&weights, &[64, row_len], &options).unwrap(), bits)
            };
            let auto = with(Granularity::Auto, CodebookDtype::F32);
            for plain in [
                with(Granularity::Channel, CodebookDtype::F16),
                with(Granularity::Channel, CodebookDtype::F32),
                with(Granularity::Tensor, CodebookDtype::F16),
            ] {
                assert!(auto >= plain - 1e-9, "{row_len} at {bits}: {auto} below {plain}");
            }
        }
    }
}

#[test]
fn auto_reaches_the_published_size_and_error() {
    // 4 bits nominal: bits per weight and dB of a shared table with an f16 scale per channel.
    for (row_len, bits, sqnr) in
        [(72, 4.22, 20.5), (144, 4.11, 20.4), (576, 4.03, 20.25), (2304, 4.007, 20.22)]
    {
        let published = sqnr - 6.02 * (bits - 4.0);
        let rows = (1 << 18) / row_len;
        for (spread, scaled) in [(0.0, false), (1.0, true)] {
            let options = QuantizeOptions::new(Scheme::LloydMax, width(4));
            let options = QuantizeOptions { granularity: Granularity::Auto, ..options };
            let weights = gaussian(rows, row_len, spread);
            let tensor = quantize_tensor(&weights, &[rows, row_len], &options).unwrap();
            assert_eq!(layout(&tensor).unwrap().row_scale != RowScale::None, scaled);
            let found = score(&tensor, 4);
            assert!(found >= published - 0.05, "{row_len}, {spread}: {found} below {published}");
        }
    }
}

#[test]
fn auto_leaves_scales_where_a_row_is_beyond_f16() {
    // Found by fuzzing: the shared table of such rows had infinite levels.
    let mut weights = vec![-0.25; 66];
    weights[0] = -2.4e38;
    for scheme in Scheme::ALL {
        let options = QuantizeOptions {
            granularity: Granularity::Auto,
            ..QuantizeOptions::new(scheme, width(7))
        };
        let tensor = quantize_tensor(&weights, &[6, 11], &options).unwrap();
        assert!(tensor.dequantized().iter().all(|value| value.is_finite()), "{scheme}");
    }
}

#[test]
fn auto_spends_little_on_codebooks_at_eight_bits() {
    for scheme in Scheme::ALL {
        let options = QuantizeOptions {
            granularity: Granularity::Auto,
            ..QuantizeOptions::new(scheme, width(8))
        };
        let tensor = quantize_tensor(&gaussian(128, 1152, 0.5), &[128, 1152], &options).unwrap();
        assert!(tensor.bits_per_weight() < 8.5, "{scheme}: {}", tensor.bits_per_weight());
    }
}

#[test]
fn integer_levels_are_multiples_of_their_scale() {
    let weights = gaussian(4, 512, 0.0);
    for (codebook_dtype, codebook, least_db) in [
        (CodebookDtype::I8, CodebookFormat::I8, 20.0),
        (CodebookDtype::I16, CodebookFormat::I16, 20.2),
    ] {
        let options =
            QuantizeOptions { codebook_dtype, ..QuantizeOptions::new(Scheme::LloydMax, width(4)) };
        let tensor = quantize_tensor(&weights, &[4, 512], &options).unwrap();
        assert_eq!(layout(&tensor).unwrap().codebook, codebook);
        assert!(tensor.distortion().sqnr_db().unwrap() > least_db);
    }
}

#[test]
fn reported_error_is_that_of_the_values() {
    let weights = gaussian(24, 96, 1.0);
    for scheme in Scheme::ALL {
        for granularity in [Granularity::Channel, Granularity::Group(5), Granularity::Auto] {
            let options = QuantizeOptions { granularity, ..QuantizeOptions::new(scheme, width(3)) };
            let tensor = quantize_tensor(&weights, &[24, 96], &options).unwrap();
            let pairs = weights.iter().zip(tensor.dequantized());
            let noise: f64 = pairs.map(|(&w, q)| (f64::from(w) - f64::from(q)).powi(2)).sum();
            let reported = tensor.distortion().noise;
            assert!((noise - reported).abs() <= 1e-9 * noise, "{scheme}: {noise} {reported}");
            let entropy = tensor.distortion().entropy_bits();
            assert!(entropy > 1.0 && entropy <= 16.0, "{scheme}: {entropy}");
        }
    }
}

/// Pieces in reverse order.
struct Backwards;

impl ParallelMap for Backwards {
    fn map<T: Send>(&self, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let mut results: Vec<T> = (0..count).rev().map(work).collect();
        results.reverse();
        results
    }
}

#[test]
fn the_order_of_work_does_not_matter() {
    let weights = gaussian(16, 100, 1.0);
    for scheme in Scheme::ALL {
        let options = QuantizeOptions {
            granularity: Granularity::Auto,
            ..QuantizeOptions::new(scheme, width(4))
        };
        let there = quantize_tensor(&weights, &[16, 100], &options);
        assert_eq!(quantize_on(&Backwards, &weights[..], &[16, 100], &options), there);
    }
}
