//! The file of a quantized net, by its name.

use std::path::Path;

use anyhow::{Result, bail};
use fm_candle::Tensor;
use fm_candle::checkpoint::{self, NET_KEY};
use fm_candle::model::{UNetConfig, config, expand_embedding};
use fm_candle::quantize::{QuantizedNet, Report, SelfTestForm};

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

    /// Writes a net to `path`, with a self-test in a packed file where asked for; the report is
    /// that of the packed file.
    pub(crate) fn write(
        self,
        path: &Path,
        net: &QuantizedNet,
        config: &UNetConfig,
        self_test: Option<SelfTestForm>,
    ) -> Result<Report> {
        if self == Self::Packed {
            return Ok(net.write(path, self_test)?);
        }
        self.write_upstream(path, config, net.weights()?)?;
        Ok(net.report()?)
    }

    /// Writes a net's weights to the dequantized file at `path`, in the layout that upstream reads.
    pub(crate) fn write_upstream(
        self,
        path: &Path,
        config: &UNetConfig,
        weights: Vec<(String, Tensor)>,
    ) -> Result<()> {
        let (config, weights) = expand_embedding(config, weights)?;
        if self == Self::Torch {
            return Ok(checkpoint::torch::save_tensors(path, &weights)?);
        }
        let json = config::to_json(&config);
        Ok(checkpoint::safetensors::save(path, &weights, &[(NET_KEY, json.as_str())])?)
    }
}
