//! Size and error of each quantized tensor and of the whole.

use quant_core::quantize::Distortion;
use serde::Serialize;

/// Size and error of one tensor.
#[derive(Clone, Debug, Serialize)]
pub struct TensorReport {
    /// Name in the state dict.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// The scheme, or `f16`, `f32`, `i64` where it was kept.
    pub scheme: String,
    /// Nominal bits per weight.
    pub bits: u8,
    /// Mean squared error; 0 where it was kept as it is.
    pub mse: f64,
    /// `10 log10(sum w^2 / sum (w - q)^2)`; `None` for an exact copy.
    pub sqnr_db: Option<f64>,
    /// Bits per weight of an ideal entropy code of the codes; `None` where it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropy_bits: Option<f64>,
    /// Bits per weight of all that the file holds of this tensor: its record, its name, its
    /// codebooks, the padding after it.
    pub bits_per_weight: f64,
}

/// Size and error of the whole; errors are over all quantized weights.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Weights in all floating tensors of the file, or of the original net after
    /// [`relative_to`](Self::relative_to).
    pub parameters: u64,
    /// Weights that were quantized.
    pub quantized_parameters: u64,
    /// Mean squared error.
    pub mse: f64,
    /// `10 log10(sum w^2 / sum (w - q)^2)`; `None` for an exact copy.
    pub sqnr_db: Option<f64>,
    /// `-10 log10 mse`; `None` for an exact copy.
    pub psnr_db: Option<f64>,
    /// 2-Wasserstein distance between weights and their values, `sqrt(mse)`.
    pub w2: f64,
    /// Bits per quantized weight of an ideal entropy code of the codes, without codebooks; `None`
    /// where nothing was quantized.
    pub entropy_bits: Option<f64>,
    /// Eight times the packed file's bytes over the parameters: everything included.
    pub bits_per_weight: f64,
    /// Bytes of the packed file.
    pub packed_bytes: u64,
    /// Four bytes per parameter.
    pub dense_bytes: u64,
    /// `dense_bytes / packed_bytes`.
    pub ratio: f64,
    /// Each tensor, in the order of the file.
    pub tensors: Vec<TensorReport>,
}

/// Facts of a tensor before the file is complete.
pub(super) struct PendingReport {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) scheme: &'static str,
    pub(super) bits: u8,
    /// Of a quantized tensor.
    pub(super) coded: Option<Distortion>,
    /// Of a tensor that was kept, but rounded.
    pub(super) kept: Option<Distortion>,
}

impl Report {
    /// The report on tensors that take so many bytes each in a file of `file_bytes`.
    pub(super) fn new(
        entries: Vec<PendingReport>,
        record_bytes: &[usize],
        file_bytes: usize,
    ) -> Self {
        let mut sums = Distortion::default();
        entries.iter().filter_map(|entry| entry.coded).for_each(|coded| sums.add(coded));
        let count = |entry: &PendingReport| entry.shape.iter().product::<usize>();
        let floating = entries.iter().filter(|entry| entry.scheme != "i64");
        let parameters = floating.map(|entry| count(entry) as u64).sum::<u64>();
        let tensors = entries.into_iter().zip(record_bytes).map(|(entry, &bytes)| {
            let distortion = entry.coded.or(entry.kept).unwrap_or_default();
            TensorReport {
                mse: distortion.mse(),
                sqnr_db: distortion.sqnr_db(),
                entropy_bits: entry.coded.map(|coded| coded.entropy_bits()),
                bits_per_weight: 8.0 * bytes as f64 / count(&entry).max(1) as f64,
                scheme: entry.scheme.to_string(),
                bits: entry.bits,
                name: entry.name,
                shape: entry.shape,
            }
        });
        Self {
            parameters: 0,
            quantized_parameters: sums.count as u64,
            mse: sums.mse(),
            sqnr_db: sums.sqnr_db(),
            psnr_db: (sums.noise > 0.0).then(|| -10.0 * sums.mse().log10()),
            w2: sums.mse().sqrt(),
            entropy_bits: (sums.count > 0).then(|| sums.entropy_bits()),
            bits_per_weight: 0.0,
            packed_bytes: file_bytes as u64,
            dense_bytes: 0,
            ratio: 0.0,
            tensors: tensors.collect(),
        }
        .relative_to(parameters)
    }

    /// Counts sizes over the `parameters` of the original net, of which a file with a projection of the
    /// embedding holds fewer: `bits_per_weight = 8 packed_bytes / parameters`,
    /// `dense_bytes = 4 parameters`, `ratio = dense_bytes / packed_bytes`.
    #[must_use]
    pub fn relative_to(self, parameters: u64) -> Self {
        let dense_bytes = 4 * parameters;
        Self {
            parameters,
            bits_per_weight: 8.0 * self.packed_bytes as f64 / parameters.max(1) as f64,
            dense_bytes,
            ratio: dense_bytes as f64 / self.packed_bytes as f64,
            ..self
        }
    }
}
