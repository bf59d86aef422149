//! The nets, statistics and images built into the binary, so that it works on a machine with
//! nothing else.
//!
//! `assets/README.md` says what each file is and which command made it.

use std::collections::HashMap;

use anyhow::{Context, Result};
use fm_candle::data::{Dataset, Images, catalog, mnist};
use fm_candle::device::Device;
use fm_candle::fid::lenet::LeNet;
use fm_candle::fid::{Statistics, npz};
use fm_candle::model::{UNet, UNetConfig};
use fm_candle::{Tensor, checkpoint};
use quant_core::rate::Rate;
use quant_core::scheme::Scheme;

use crate::args::method::{QuantizeMethod, Refinement};

/// The trained nets that draw digits of a wanted class; each is of the preset of its name.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum EmbeddedNet {
    /// 813 601 weights
    MnistSmall,
    /// 289 316 weights, for microcontrollers
    MnistMicro,
}

impl EmbeddedNet {
    /// The name of its preset.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::MnistSmall => "mnist-small",
            Self::MnistMicro => "mnist-micro",
        }
    }
}

/// The configuration and the state dict of an embedded net.
pub(crate) fn net(net: EmbeddedNet) -> Result<(UNetConfig, Vec<(String, Tensor)>)> {
    let bytes: &[u8] = match net {
        EmbeddedNet::MnistSmall => include_bytes!("../assets/mnist-small.safetensors"),
        EmbeddedNet::MnistMicro => include_bytes!("../assets/mnist-micro.safetensors"),
    };
    let config = UNetConfig::preset(net.name())?;
    let mut tensors: HashMap<String, Tensor> =
        checkpoint::safetensors::decode(bytes).context("the embedded net")?;
    let ordered = UNet::shapes(&config)?.into_iter().map(|(name, _)| {
        let tensor =
            tensors.remove(&name).with_context(|| format!("the embedded net: `{name}`"))?;
        Ok((name, tensor))
    });
    Ok((config, ordered.collect::<Result<_>>()?))
}

/// The packed file of mnist-small tuned, of the widths that are built in.
pub(crate) fn tuned_small(method: QuantizeMethod, rate: Rate) -> Option<&'static [u8]> {
    match (is_tuned(method), rate.to_string().as_str()) {
        (true, "2") => Some(include_bytes!("../assets/mnist-small-tuned-2.fmq")),
        (true, "3") => Some(include_bytes!("../assets/mnist-small-tuned-3.fmq")),
        _ => None,
    }
}

/// The packed file of mnist-micro tuned, of the widths that are built in.
pub(crate) fn tuned_micro(method: QuantizeMethod, rate: Rate) -> Option<&'static [u8]> {
    match (is_tuned(method), rate.to_string().as_str()) {
        (true, "2") => Some(include_bytes!("../assets/mnist-micro-tuned-2.fmq")),
        (true, "3") => Some(include_bytes!("../assets/mnist-micro-tuned-3.fmq")),
        _ => None,
    }
}

fn is_tuned(QuantizeMethod { scheme, refinement }: QuantizeMethod) -> bool {
    scheme == Scheme::LloydMax && refinement == Some(Refinement::Tune)
}

/// Name of [`lenet`], where others are told by their weights.
pub(crate) const LENET: &str = "lenet, built in";

/// The classifier whose features compare sets of digits.
pub(crate) fn lenet() -> Result<LeNet> {
    LeNet::decode(include_bytes!("../assets/lenet.safetensors"), &Device::Cpu)
        .context("the embedded LeNet")
}

/// Statistics of [`lenet`]'s features over the 60 000 training images of MNIST.
pub(crate) fn lenet_mnist_train() -> Result<Statistics> {
    let bytes = include_bytes!("../assets/lenet-mnist-train.npz");
    Ok(npz::decode_statistics("embedded lenet-mnist-train.npz", bytes)?)
}

/// Returns true if these are the images of [`lenet_mnist_train`], told by the published checksum:
/// other sets come in files of the same names, KMNIST and QMNIST among them.
pub(crate) fn is_mnist_train(images: &Images) -> Result<bool> {
    let set = catalog::set(Dataset::Mnist.name())?;
    let found = mnist::md5(images)?;
    Ok(set.items.iter().any(|item| item.published.inflated.as_ref() == Some(&found)))
}

/// The first 512 of MNIST's test images, with their labels.
pub(crate) fn mnist_test_images() -> Result<Images> {
    let images = include_bytes!("../assets/mnist-test-images.gz");
    let labels = include_bytes!("../assets/mnist-test-labels.gz");
    mnist::decode(images, labels, Dataset::Mnist.classes()).context("the embedded test images")
}

#[cfg(test)]
mod tests {
    use fm_candle::fid::fid;

    use super::*;

    #[test]
    fn nets_have_as_many_weights_as_they_say() {
        for (name, weights) in
            [(EmbeddedNet::MnistSmall, 813_601), (EmbeddedNet::MnistMicro, 289_316)]
        {
            let (_, tensors) = net(name).unwrap();
            let count: usize = tensors.iter().map(|(_, tensor)| tensor.elem_count()).sum();
            assert_eq!(count, weights, "{}", name.name());
        }
    }

    #[test]
    fn assets_are_what_they_claim_to_be() {
        let images = mnist_test_images().unwrap();
        assert_eq!((images.n, images.channels, images.height, images.width), (512, 1, 28, 28));
        // The first labels of the test set, as every introduction to MNIST shows them.
        assert_eq!(images.labels[..10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
        assert_eq!(lenet_mnist_train().unwrap().n, Some(60_000));
    }

    #[test]
    fn other_digits_are_not_taken_for_mnist() {
        let images = mnist_test_images().unwrap();
        assert!(!is_mnist_train(&images).unwrap());
        let set = catalog::set("mnist").unwrap();
        let sums = set.items.iter().filter_map(|item| item.published.inflated.as_ref());
        // Of the raw training images.
        let train = "md5:6bbc9ace898e44ae57da46a324031adb";
        assert!(sums.map(ToString::to_string).any(|sum| sum == train));
    }

    #[test]
    fn lenet_reads_the_digits_and_finds_them_near_the_training_images() {
        let (net, mut images) = (lenet().unwrap(), mnist_test_images().unwrap());
        assert!(net.accuracy(&images).unwrap() > 0.985);
        let train = lenet_mnist_train().unwrap();
        let distance = |images: &Images| fid(&net.statistics(images).unwrap(), &train).unwrap();
        let near = distance(&images);
        images.pixels.iter_mut().for_each(|pixel| *pixel = 255 - *pixel);
        let far = distance(&images);
        assert!(far > 20.0 * near, "{near} {far}");
    }
}
