//! From measured numbers to what people look at: tables, plots, image grids and one HTML page.
//!
//! Everything here is a pure function of its arguments; no file is written, no net is run.

use anyhow::Result;
use fm_candle::eval::bounds::{Bounds, Lipschitz};
use fm_candle::eval::inversion::Inversion;
use fm_candle::eval::latent::Latent;
use fm_candle::eval::null_is_infinite;
use quant_core::bits::Bits;
use quant_core::rate::Rate;
use serde::{Deserialize, Serialize};

use crate::args::method::QuantizeMethod;

mod axis;
mod chart;
mod column;
pub(crate) mod events;
pub(crate) mod grid;
pub(crate) mod html;
mod level_histograms;
mod pen;
pub(crate) mod picture;
pub(crate) mod plots;
/// The values, each once, in order of first appearance.
pub(crate) fn distinct<T: PartialEq>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for value in values {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}

/// The numbers of bits, ascending, each once.
fn bit_counts(bits: impl Iterator<Item = Rate>) -> Vec<Rate> {
    let mut bits: Vec<Rate> = bits.collect();
    bits.sort_unstable();
    bits.dedup();
    bits
}

/// `3 bits`.
fn bits_name(bits: Rate) -> String {
    format!("{bits} {}", if bits == Bits::MIN { "bit" } else { "bits" })
}

#[cfg(test)]
mod sample;
mod svg;
pub(crate) mod tables;
mod themes;

/// The results of one scheme at one number of bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Name of the scheme, as on the command line.
    pub(crate) scheme: String,
    /// Rate of the codebooks.
    #[serde(with = "crate::rate")]
    pub(crate) bits: Rate,
    /// Steps of tuning, where the row was tuned in the study.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tune_steps: Option<u64>,
    /// Signal to quantization noise of the weights, `10 log₁₀(Σw² / Σ(w − q)²)`, in dB.
    #[serde(deserialize_with = "null_is_infinite")]
    pub(crate) sqnr_db: f64,
    /// Mean squared error of the weights.
    pub(crate) mse: f64,
    /// Bits per weight, codebooks and kept tensors included.
    pub(crate) bits_per_weight: f64,
    /// Size of the packed file, in bytes.
    pub(crate) packed_bytes: u64,
    /// Dense size over packed size.
    pub(crate) ratio: f64,
    /// PSNR of samples against those of the full-precision net from the same noise, in dB.
    #[serde(deserialize_with = "null_is_infinite")]
    pub(crate) psnr_db: f64,
    /// Half of its 95 % confidence interval, in dB.
    pub(crate) psnr_error: Option<f64>,
    /// Mean over the pairs of each pair's PSNR, in dB; none where pairs are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mean_psnr_db: Option<f64>,
    /// SSIM of the same pairs, at most 1.
    pub(crate) ssim: Option<f64>,
    /// Distance of the same pairs in unit-length features: mean of `|a/|a| - b/|b||²`, 0 to 4.
    pub(crate) feature_distance: Option<f64>,
    /// Fréchet distance to the reference set, on the features that the summary names.
    pub(crate) fid: f64,
    /// Half of its 95 % confidence interval.
    pub(crate) fid_error: Option<f64>,
    /// The paper's comparison: PSNR of one velocity at t = 0 of real images, peak 1, in dB.
    pub(crate) velocity_psnr_db: Option<f64>,
    /// SSIM of the same velocities.
    pub(crate) velocity_ssim: Option<f64>,
    /// The bottleneck's latents of real images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) latent: Option<Latent>,
    /// The noise of real images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) inversion: Option<Inversion>,
    /// Root mean square distance to the trajectories of full precision, from the same noise, at
    /// the summary's times.
    pub(crate) divergence: Vec<f64>,
    /// The error of samples and its bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bounds: Option<Bounds>,
    /// Wall-clock time to quantize, sample and score, in seconds.
    pub(crate) seconds: f64,
}

/// The settings and reference values that all rows share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Version of this schema, [`SCHEMA`].
    pub(crate) schema: u32,
    /// Version of fmq.
    pub(crate) version: String,
    /// The command line, to do the same again.
    pub(crate) command: Vec<String>,
    /// Name of the model.
    pub(crate) model: String,
    /// Number of weights.
    pub(crate) parameters: u64,
    /// Size of the weights in `f32`, in bytes.
    pub(crate) dense_bytes: u64,
    /// Images sampled for each row.
    pub(crate) n: usize,
    /// Solver and steps, for people to read.
    pub(crate) sampler: String,
    /// Seed of the noise; that of the first set of samples where there are more.
    pub(crate) seed: u64,
    /// Sets of samples for each row, each from its own seed.
    pub(crate) seeds: usize,
    /// Name of the Fréchet distance, e.g. `FID (LeNet features)`.
    pub(crate) fid_label: String,
    /// Name of the set that it is measured against, e.g. `MNIST train`.
    pub(crate) fid_reference: String,
    /// Its value for the full-precision net.
    pub(crate) fid_full: f64,
    /// Half of the 95 % confidence interval of that.
    pub(crate) fid_full_error: Option<f64>,
    /// Real images that are not in the reference; at most `n`.
    pub(crate) n_real: usize,
    /// The distance of these: what a perfect model would get at their number.
    pub(crate) fid_real: f64,
    /// The latents of full precision.
    pub(crate) latent: Option<Latent>,
    /// The noise that full precision finds.
    pub(crate) inversion: Option<Inversion>,
    /// Times of the rows' `divergence`.
    pub(crate) times: Vec<f64>,
    /// Lipschitz constants of full precision.
    pub(crate) lipschitz: Option<Lipschitz>,
    /// Further remarks, a sentence each.
    pub(crate) notes: Vec<String>,
}

impl Row {
    /// The scheme and what came after it.
    pub(crate) fn method(&self) -> Result<QuantizeMethod> {
        self.scheme.parse().map_err(anyhow::Error::msg)
    }
}

/// The weights of one channel of one tensor, and the levels that schemes have for them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Levels {
    /// Name of the tensor.
    pub(crate) tensor: String,
    /// Output channel that the weights belong to.
    pub(crate) channel: usize,
    /// Its weights in full precision.
    pub(crate) weights: Vec<f32>,
    /// Scheme, bits and the distinct levels, ascending, that the channel's codes stand for.
    pub(crate) rows: Vec<(String, Rate, Vec<f32>)>,
}

/// Version of what `results.json` holds.
pub(crate) const SCHEMA: u32 = 2;

/// `text` with the characters that XML gives a meaning written as entities, and control characters,
/// which XML has no way to write, as U+FFFD.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && !c.is_whitespace() => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinite_decibels_survive_json() {
        let mut row = sample::rows().remove(0);
        row.sqnr_db = f64::INFINITY;
        row.ssim = None;
        let json = serde_json::to_string(&row).unwrap();
        assert_eq!(serde_json::from_str::<Row>(&json).unwrap(), row);
        let missing = json.replace("sqnr_db", "sqnr");
        assert!(serde_json::from_str::<Row>(&missing).unwrap_err().to_string().contains("sqnr_db"));
    }

    #[test]
    fn markup_in_text_is_disarmed() {
        assert_eq!(escape("<a b='1' c=\"&\">"), "&lt;a b=&#39;1&#39; c=&quot;&amp;&quot;&gt;");
        assert_eq!(escape("é\u{0}\n"), "é\u{fffd}\n");
    }

    #[test]
    fn summary_survives_json() {
        let json = serde_json::to_string(&sample::summary()).unwrap();
        assert_eq!(serde_json::from_str::<Summary>(&json).unwrap(), sample::summary());
    }
}
