//! The features by which image sets are compared: `--features`, `--weights`, `--resize`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use fm_candle::data::catalog::INCEPTION;
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
    /// Weights of the features' net: torch-fidelity's or pytorch-fid's file for inception, one of `fmq
    /// train-lenet` for lenet [default: inception's those that `fmq data fetch inception` has put into
    /// --data-path; lenet's are built in]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
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

    /// The weights: those given, else Inception's where they have been fetched into the folder `data`.
    pub(crate) fn weights(&self, data: Option<&Path>) -> Option<PathBuf> {
        let fetched = || inception_in(data?).filter(|_| self.kind() != Features::LeNet);
        self.weights.clone().or_else(fetched)
    }

    /// Returns true if the features are those of the built-in net.
    pub(crate) fn are_built_in(&self) -> bool {
        self.kind() == Features::LeNet && self.weights.is_none()
    }
}

/// Inception's weights where `fmq data fetch inception` puts them in the folder `data`, if they are there.
pub(crate) fn inception_in(data: &Path) -> Option<PathBuf> {
    Some(data.join(INCEPTION)).filter(|path| path.is_file())
}
