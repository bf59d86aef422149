//! The file of a quantized net, by its name.

use std::path::Path;

use anyhow::{Result, bail};
use fm_candle::checkpoint::{self, NET_KEY};
use fm_candle::model::{UNetConfig, config};
use fm_candle::quantize::{QuantizedNet, Report};

/// The format of the output, by its extension.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    Packed,
    Torch,
    Safetensors,
}

impl OutputKind {
    pub(crate) fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("fmq") => Ok(Self::Packed),
            Some("pth" | "pt") => Ok(Self::Torch),
            Some("safetensors") => Ok(Self::Safetensors),
            _ => bail!(
                "`{}`: the output must end in .fmq (packed), .safetensors or .pth (dequantized)",
                path.display()
            ),
        }
    }

    /// Writes a net to `path`, with a self-test vector in a packed file where asked for; the report is
    /// that of the packed file.
    pub(crate) fn write(
        self,
        path: &Path,
        net: &QuantizedNet,
        config: &UNetConfig,
        self_test: bool,
    ) -> Result<Report> {
        match self {
            Self::Packed => return Ok(net.write(path, self_test)?),
            Self::Torch => checkpoint::torch::save_tensors(path, &net.weights()?)?,
            Self::Safetensors => {
                let json = config::to_json(config);
                let metadata = [(NET_KEY, json.as_str())];
                checkpoint::safetensors::save(path, &net.weights()?, &metadata)?;
            }
        }
        Ok(net.report()?)
    }
}
