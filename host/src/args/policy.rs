//! The policy for each tensor: the options that `quantize`, `tune` and `sweep` share.

use core::fmt;
use core::str::FromStr;

use anyhow::{Result, bail};
use fm_candle::quantize::{TensorPolicy, is_sensitive, widths};
use globset::{Glob, GlobMatcher};
use quant_core::bits::Bits;
use quant_core::quantize::{CodebookDtype, Granularity, QuantizeOptions};
use quant_core::rate::Rate;
use quant_core::scheme::Scheme;

use super::numbers::at_least_0;

/// Options of the policy for tensors.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PolicyArgs {
    /// Precision of the codebooks' entries
    #[arg(
        long,
        value_name = "f32|f16|i16|i8",
        default_value = "f32",
        value_parser = codebook_dtype
    )]
    codebook_dtype: CodebookDtype,
    /// Which weights share a codebook: channel, group:N (channels), tensor, or auto (for each
    /// tensor whatever has the best error for its true size)
    #[arg(long, default_value = "channel", value_parser = granularity)]
    granularity: Granularity,
    /// Tensors to keep at other bits, GLOB=BITS with BITS 1 to 8, 1.58, 16 or 32; or `recommended`: first
    /// and last convolution, time and label embedding, norms and biases at 16 bits. May be
    /// repeated; the first that matches counts
    #[arg(long, value_name = "recommended|GLOB=BITS", num_args = 1..)]
    keep: Vec<Keep>,
    /// Price of a bit of entropy under ecq, in units of a channel's variance [default: the slope of
    /// Shannon's bound at BITS, 2 ln 2 / 4^BITS]
    #[arg(long, value_parser = at_least_0)]
    lambda: Option<f64>,
}

/// One `--keep`.
#[derive(Clone, Debug)]
enum Keep {
    /// The usual sensitive tensors, at 16 bits.
    Recommended,
    /// The tensors whose names match.
    Named { glob: GlobMatcher, width: Width },
}

/// Width of the weights of a kept tensor.
#[derive(Clone, Copy, Debug)]
enum Width {
    Codes(Rate),
    F16,
    F32,
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Codes(rate) => rate.fmt(f),
            Self::F16 => f.write_str("16"),
            Self::F32 => f.write_str("32"),
        }
    }
}

impl Default for PolicyArgs {
    /// The paper's way: an f32 codebook per channel for every tensor.
    fn default() -> Self {
        let (codebook_dtype, granularity) = (CodebookDtype::F32, Granularity::Channel);
        Self { codebook_dtype, granularity, keep: Vec::new(), lambda: None }
    }
}

impl PolicyArgs {
    /// The policy for the tensor of a name and shape.
    pub(crate) fn of(
        &self,
        scheme: Scheme,
        rate: Rate,
        name: &str,
        shape: &[usize],
    ) -> TensorPolicy {
        let options = |rate| QuantizeOptions {
            scheme,
            rate,
            granularity: self.granularity,
            codebook_dtype: self.codebook_dtype,
            lambda: self.lambda,
        };
        match self.keep.iter().find_map(|keep| keep.width(name, shape)) {
            Some(Width::F32) => TensorPolicy::F32,
            Some(Width::F16) => TensorPolicy::F16,
            Some(Width::Codes(kept)) => TensorPolicy::Quantize(options(kept)),
            None => TensorPolicy::Quantize(options(rate)),
        }
    }

    /// The policies that a tensor may have in a file of a given size: that of `--keep`, 8 or 16 bits
    /// for other vectors, else widths from `least` on.
    pub(crate) fn choices(
        &self,
        scheme: Scheme,
        least: Rate,
        name: &str,
        shape: &[usize],
    ) -> Vec<TensorPolicy> {
        if self.keep.iter().any(|keep| keep.width(name, shape).is_some()) {
            return vec![self.of(scheme, least, name, shape)];
        }
        match shape {
            [] | [_] => vec![TensorPolicy::uniform(Bits::MAX), TensorPolicy::F16],
            _ => widths(least, |rate| self.of(scheme, rate, name, shape)),
        }
    }

    /// `true` if there is a `--keep`.
    pub(crate) fn keeps_any(&self) -> bool {
        !self.keep.is_empty()
    }

    /// These options as tuning has them where nothing is said: granularity auto.
    pub(crate) fn for_tuning(&self) -> Self {
        let granularity = match self.granularity {
            Granularity::Channel => Granularity::Auto,
            other => other,
        };
        Self { granularity, ..self.clone() }
    }

    /// `true` if `--keep` names the tensor.
    pub(crate) fn keeps(&self, name: &str, shape: &[usize]) -> bool {
        self.keep.iter().any(|keep| keep.width(name, shape).is_some())
    }

    /// The options that differ from the paper's way, for people; none if none does.
    pub(crate) fn differences(&self) -> Option<String> {
        let mut flags = Vec::new();
        if self.granularity != Granularity::Channel {
            flags.push(format!("granularity {:?}", self.granularity).to_lowercase());
        }
        if self.codebook_dtype != CodebookDtype::F32 && self.granularity != Granularity::Auto {
            flags.push(format!("codebook entries {:?}", self.codebook_dtype).to_lowercase());
        }
        flags.extend(self.keep.iter().map(|keep| match keep {
            Keep::Recommended => "sensitive tensors kept at 16 bits".to_string(),
            Keep::Named { glob, width } => format!("{} kept at {width} bits", glob.glob()),
        }));
        flags.extend(self.lambda.map(|lambda| format!("lambda {lambda}")));
        (!flags.is_empty()).then(|| flags.join(", "))
    }

    /// Refuses a `--keep` that keeps nothing: it is misspelt, or for other nets. A line for people
    /// where `--keep recommended` knows none of the layers by name.
    pub(crate) fn check(&self, tensors: &[(&str, &[usize])]) -> Result<Option<&'static str>> {
        let mut note = None;
        // The name alone counts where the tensor is no vector.
        let is_known = |&(name, _): &(&str, &[usize])| is_sensitive(name, &[1, 1]);
        for keep in &self.keep {
            match keep {
                Keep::Named { glob, .. } => {
                    check_glob("--keep", glob, tensors.iter().map(|(name, _)| *name))?;
                }
                Keep::Recommended if tensors.iter().any(is_known) => {}
                Keep::Recommended => {
                    if tensors.iter().all(|(_, shape)| shape.len() > 1) {
                        bail!("--keep recommended: no tensor is a vector or named as upstream's");
                    }
                    note = Some(
                        "--keep recommended: no tensor has the name of a first or last \
                         convolution or of an embedding of upstream's nets; it keeps vectors alone \
                         (norms, biases)",
                    );
                }
            }
        }
        Ok(note)
    }
}

/// Refuses a glob that no tensor's name matches.
pub(crate) fn check_glob<'a>(
    flag: &str,
    glob: &GlobMatcher,
    mut names: impl Iterator<Item = &'a str>,
) -> Result<()> {
    if !names.any(|name| glob.is_match(name)) {
        bail!("{flag} {}: no tensor has such a name", glob.glob());
    }
    Ok(())
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "recommended" {
            return Ok(Self::Recommended);
        }
        let (pattern, bits) = text.rsplit_once('=').ok_or("expected recommended or GLOB=BITS")?;
        let width = match bits {
            "16" => Width::F16,
            "32" => Width::F32,
            _ => Width::Codes(bits.parse().map_err(|_| "BITS must be 1 to 8, 1.58, 16 or 32")?),
        };
        Ok(Self::Named { glob: glob(pattern)?, width })
    }
}

impl Keep {
    /// The width that a tensor is kept at, if it is.
    fn width(&self, name: &str, shape: &[usize]) -> Option<Width> {
        match self {
            Self::Recommended => is_sensitive(name, shape).then_some(Width::F16),
            Self::Named { glob, width } => glob.is_match(name).then_some(*width),
        }
    }
}

/// A pattern of tensor names.
pub(crate) fn glob(pattern: &str) -> Result<GlobMatcher, String> {
    Ok(Glob::new(pattern).map_err(|e| e.to_string())?.compile_matcher())
}

fn codebook_dtype(text: &str) -> Result<CodebookDtype, String> {
    match text {
        "f32" => Ok(CodebookDtype::F32),
        "f16" => Ok(CodebookDtype::F16),
        "i16" => Ok(CodebookDtype::I16),
        "i8" => Ok(CodebookDtype::I8),
        _ => Err("expected f32, f16, i16 or i8".into()),
    }
}

fn granularity(text: &str) -> Result<Granularity, String> {
    match text {
        "channel" => Ok(Granularity::Channel),
        "tensor" => Ok(Granularity::Tensor),
        "auto" => Ok(Granularity::Auto),
        _ => match text.strip_prefix("group:").and_then(|n| n.parse().ok()) {
            Some(n) if n > 0 => Ok(Granularity::Group(n)),
            _ => Err("expected channel, group:N with N at least 1, tensor or auto".into()),
        },
    }
}
