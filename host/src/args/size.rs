//! The bits of the tensors: one number for all, or what a size of the file allows.

use anyhow::Result;
use clap::Args;
use fm_candle::Tensor;
use fm_candle::quantize::Budget;
use quant_core::rate::Rate;

/// Bits of the tensors, or the size of the file.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SizeArgs {
    /// Bits per weight, 1 to 8, or 1.58: three levels, in codes of 2 bits
    #[arg(long)]
    pub(crate) bits: Option<Rate>,
    /// Bits of the whole packed file per weight of the net, at most; each tensor gets those that the
    /// velocity needs (1 to 8, or 16)
    #[arg(long, value_name = "X", value_parser = above_0)]
    bits_per_weight: Option<f64>,
    /// Size of the whole packed file, at most; likewise
    #[arg(long, value_name = "BYTES")]
    budget: Option<u64>,
}

impl SizeArgs {
    /// The size that a packed file of a net of these tensors may have; `None` where the bits are given.
    pub(crate) fn budget(&self, tensors: &[(String, Tensor)]) -> Option<Budget> {
        let of_bits = |bits| bytes_at(bits, count(tensors));
        self.budget.or(self.bits_per_weight.map(of_bits)).map(Budget::Bytes)
    }

    /// Bits per weight of the codes or of the whole file.
    pub(crate) fn bits_per_weight(&self, tensors: &[(String, Tensor)]) -> f64 {
        let bytes = self.budget.map(|bytes| 8.0 * bytes as f64 / count(tensors) as f64);
        let rate = self.bits.map(|rate| f64::from(rate.code_bits().get()));
        self.bits_per_weight.or(bytes).or(rate).unwrap_or(0.0)
    }

    /// Returns true where the file's size decides.
    pub(crate) fn is_size(&self) -> bool {
        self.bits.is_none()
    }

    /// The option of the size, as it was given.
    pub(crate) fn option(&self) -> String {
        match (self.bits_per_weight, self.budget) {
            (Some(bits), _) => format!("--bits-per-weight {bits}"),
            (_, budget) => format!("--budget {}", budget.unwrap_or(0)),
        }
    }

    /// The bits or the size, in words.
    pub(crate) fn describe(&self) -> String {
        match (self.bits, self.bits_per_weight, self.budget) {
            (Some(bits), ..) => format!("{bits} bits"),
            (_, Some(bits), _) => format!("{bits} bits per weight"),
            (.., budget) => format!("{} bytes", budget.unwrap_or(0)),
        }
    }
}

/// The bytes of a file of so many weights.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a file's size")]
pub(crate) fn bytes_at(bits_per_weight: f64, weights: usize) -> u64 {
    (bits_per_weight * weights as f64 / 8.0).floor() as u64
}

/// The number of weights.
pub(crate) fn count(tensors: &[(String, Tensor)]) -> usize {
    tensors.iter().map(|(_, tensor)| tensor.elem_count()).sum()
}

fn above_0(text: &str) -> Result<f64, String> {
    let bits = text.parse().ok().filter(|bits: &f64| *bits > 0.0 && *bits <= 64.0);
    bits.ok_or_else(|| "expected a number of bits above 0".into())
}
