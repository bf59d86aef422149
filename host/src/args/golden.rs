//! What a packed file holds for a device to test itself by: `--golden`.

use std::path::Path;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use fm_candle::quantize::SelfTestForm;

use crate::output::net::OutputKind;

/// The self-test of a packed file.
#[derive(Args)]
pub(crate) struct GoldenArgs {
    /// Store what the net answers to one input, so that a device can test itself (.fmq only): the checksum
    /// of the answer, for this crate's engine, or all of it, 4 bytes per value of an image, for any engine.
    /// It takes one evaluation by the device's slow engine
    #[arg(
        long,
        value_name = "FORM",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "checksum"
    )]
    golden: Option<Golden>,
}

/// The values of `--golden`.
#[derive(Clone, Copy, ValueEnum)]
enum Golden {
    Checksum,
    Vector,
}

impl GoldenArgs {
    /// Refuses a self-test in a file that is not packed.
    pub(crate) fn check(&self, kind: OutputKind, output: &Path) -> Result<()> {
        if self.golden.is_some() && kind != OutputKind::Packed {
            bail!("--golden: `{}` is no packed .fmq file", output.display());
        }
        Ok(())
    }

    /// The form that is asked for.
    pub(crate) fn form(&self) -> Option<SelfTestForm> {
        self.golden.map(|golden| match golden {
            Golden::Checksum => SelfTestForm::Checksum,
            Golden::Vector => SelfTestForm::Vector,
        })
    }
}
