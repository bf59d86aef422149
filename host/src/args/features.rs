//! The features by which image sets are compared: `--features`, `--weights`, `--resize`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use fm_candle::fid::Features;
use fm_candle::fid::inception::FeatureLayer;
use fm_candle::fid::resize::Resize;

/// The features of a Fréchet distance.
#[derive(clap::Args)]
pub(crate) struct FeaturesArgs {
    /// What is compared: inception (2048 features; inception-768, -192 and -64 are earlier ones), or
    /// lenet, a small classifier of digits [default: inception with --weights, else lenet]
    #[arg(long, value_name = "NAME")]
    features: Option<Features>,
    /// Weights of the features' net: torch-fidelity's or pytorch-fid's file for inception (`fmq data
    /// fetch inception` brings it), one of `fmq train-lenet` for lenet [default: lenet's are built in]
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// How images are resized for inception: torchmetrics (today's), tf1 (torch-fidelity's) or
    /// pytorch-fid [default: torchmetrics]
    #[arg(long, value_name = "HOW")]
    resize: Option<Resize>,
}

impl FeaturesArgs {
    /// The features that are asked for.
    pub(crate) fn kind(&self) -> Features {
        let given = self.weights.is_some().then_some(Features::Inception(FeatureLayer::D2048));
        self.features.or(given).unwrap_or(Features::LeNet)
    }

    /// The filter that brings images to the net's size; `None` for lenet, which takes them as they are.
    ///
    /// # Errors
    ///
    /// A filter that is given for lenet.
    pub(crate) fn resize(&self) -> Result<Option<Resize>> {
        match (self.kind(), self.resize) {
            (Features::LeNet, None) => Ok(None),
            (Features::LeNet, Some(how)) => bail!(
                "--resize {how} is about inception's features; lenet takes 28 x 28 as they are"
            ),
            (Features::Inception(_), how) => Ok(Some(how.unwrap_or_default())),
        }
    }

    /// Returns true if the features are those of the built-in net.
    pub(crate) fn are_built_in(&self) -> bool {
        self.kind() == Features::LeNet && self.weights.is_none()
    }
}
