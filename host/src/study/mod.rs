//! The study that `sweep` and `demo` run: schemes times bits, each packed, sampled and scored.
//!
//! Every row is sampled from the packed file it wrote, from the same noise and labels. Results
//! are saved after each row, and a study that was cut goes on where it stopped.
//!
//! | module | idea |
//! |---|---|
//! | [`analyses`] | what nets are compared on beside their samples |
//! | [`folder`] | what earlier runs left, and the files that are written |
//! | [`channel_levels`] | the levels of a channel of weights, for histograms |
//! | [`pack`] | the packed file of a row: by its scheme, with feedback, tuned |
//! | [`mod@reference`] | what samples are compared with |
//! | [`run`] | from a study to its rows |
//! | [`settings`] | what a study was made with |

mod analyses;
mod channel_levels;
mod folder;
mod pack;
mod reference;
mod run;
mod settings;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use fm_candle::Tensor;
use fm_candle::data::Images;
use fm_candle::device::Device;
use fm_candle::fid::FeatureNet;
use fm_candle::model::UNetConfig;
use fm_candle::sample::BatchSampler;
use quant_core::rate::Rate;

pub(crate) use self::folder::{Results, packed_path};
pub(crate) use self::reference::Reference;
use crate::args::method::QuantizeMethod;
use crate::args::net::NetPrecision;
use crate::args::policy::PolicyArgs;
use crate::args::size::count;

/// Images in a sample grid of the report, and its columns.
const SHOWN: (usize, usize) = (16, 4);

/// The net, the schemes and the settings of a study.
pub(crate) struct Study {
    /// Name of the model, for people.
    pub(crate) model: String,
    /// Its configuration.
    pub(crate) config: UNetConfig,
    /// Its weights in full precision.
    pub(crate) tensors: Vec<(String, Tensor)>,
    /// Schemes with their refinements, in the report's order.
    pub(crate) methods: Vec<QuantizeMethod>,
    /// Steps of tuning, where a row is tuned here.
    pub(crate) tune_steps: u64,
    /// Packed files of tuned rows that need not be made here.
    pub(crate) shipped: fn(QuantizeMethod, Rate) -> Option<&'static [u8]>,
    /// Rate of the codes.
    pub(crate) bits: Vec<Rate>,
    /// The options that give the policy of each tensor.
    pub(crate) policy: PolicyArgs,
    /// Images sampled per row, from each seed.
    pub(crate) n: usize,
    /// Sets of samples per row, from as many seeds.
    pub(crate) seeds: usize,
    /// The sampler of the images.
    pub(crate) sampler: BatchSampler,
    /// Seed of the noise of the first set.
    pub(crate) seed: u64,
    /// The features of the Fréchet distance.
    pub(crate) features: Box<dyn FeatureNet>,
    /// Name of their net, with the fingerprint of its weights.
    pub(crate) features_name: String,
    /// Name of the distance.
    pub(crate) fid_label: String,
    /// The statistics that samples are compared with.
    pub(crate) reference: Reference,
    /// Real images that are not in the reference.
    pub(crate) real: Images,
    /// The images that were found, in words: said when the study begins.
    pub(crate) found: Vec<String>,
    /// Run the analyses for each row too.
    pub(crate) analyses: bool,
    /// Take latents and velocities of images in `[0, 1]`, as in the paper's code, which gives them
    /// so to nets of `[-1, 1]`.
    pub(crate) unit_range: bool,
    /// The command line.
    pub(crate) command: Vec<String>,
    /// Folder for everything written.
    pub(crate) dir: PathBuf,
    /// Replace a study with other settings in the folder; else it is an error.
    pub(crate) replace: bool,
    /// The device to compute on.
    pub(crate) device: Device,
    /// The type that the nets compute in.
    pub(crate) dtype: NetPrecision,
}

impl Study {
    /// Weights of the net, which the size of every row is counted over.
    fn parameters(&self) -> u64 {
        count(&self.tensors) as u64
    }
}

/// The indices of at most `n` images whose classes come in turn, as those of the samples do: with
/// another mix of classes the distances could not be compared. Without classes the first images.
fn classes_in_turn(images: &Images, n: usize) -> Vec<usize> {
    if images.labels.is_empty() {
        return (0..n.min(images.n)).collect();
    }
    let mut by_class: BTreeMap<u32, VecDeque<usize>> = BTreeMap::new();
    for (i, &label) in images.labels.iter().enumerate() {
        by_class.entry(label).or_default().push_back(i);
    }
    let mut indices = Vec::new();
    // The rarest class ends the turns.
    while by_class.values().all(|class| !class.is_empty()) && indices.len() < n {
        indices.extend(by_class.values_mut().filter_map(VecDeque::pop_front));
    }
    indices.truncate(n);
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_images_have_the_samples_mix_of_classes() {
        let images = |labels: &[u32]| {
            Images::new([1, 1, 1], vec![0; labels.len()], labels.to_vec()).unwrap()
        };
        let digits = images(&[1, 1, 0, 2, 0, 1, 2, 2, 2, 0]);
        assert_eq!(classes_in_turn(&digits, 7), [2, 0, 3, 4, 1, 6, 9]);
        assert_eq!(classes_in_turn(&digits, 100), [2, 0, 3, 4, 1, 6, 9, 5, 7]);
        let unlabelled = Images { labels: Vec::new(), ..digits };
        assert_eq!(classes_in_turn(&unlabelled, 3), [0, 1, 2]);
    }
}
