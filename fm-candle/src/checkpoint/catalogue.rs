//! The facts by which a catalogue of models lists a net, in the metadata of its checkpoint.
//!
//! | key | value |
//! |---|---|
//! | `fmq.dataset` | name of the training data set |
//! | `fmq.epochs` | finished epochs of training |
//! | `fmq.loss` | mean loss of the last of them |
//! | `fmq.fid` | JSON of [`MeasuredFid`] |
//! | `fmq.license` | identifier of the licence |

use core::fmt;

use serde::{Deserialize, Serialize};

const DATASET: &str = "fmq.dataset";
const EPOCHS: &str = "fmq.epochs";
const LOSS: &str = "fmq.loss";
const FID: &str = "fmq.fid";
const LICENSE: &str = "fmq.license";

/// The facts about a trained net that model catalogues list: data set, training, measured FID, licence. A
/// fact that is not known is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Catalogue {
    /// Name of the training data set.
    pub dataset: Option<String>,
    /// Finished epochs of training.
    pub epochs: Option<u64>,
    /// Mean loss of the last of them.
    pub loss: Option<f64>,
    /// The distance of its samples to real images.
    pub fid: Option<MeasuredFid>,
    /// Identifier of the licence, such as `mit`.
    pub license: Option<String>,
}

/// A Fréchet distance, and how it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasuredFid {
    /// Its name with the kind of features, such as `FID (LeNet features)`.
    pub name: String,
    /// The distance.
    pub value: f64,
    /// Half of its 95 % confidence interval.
    pub error: Option<f64>,
    /// The net that gives images their features.
    pub features: String,
    /// Number of samples.
    pub samples: Option<u64>,
    /// The real images.
    pub reference: String,
    /// The solver that drew the samples, with its steps.
    pub sampler: String,
}

impl Catalogue {
    /// The facts in a checkpoint's metadata. A value that cannot be read is not known.
    pub fn of(metadata: &[(String, String)]) -> Self {
        let value = |key: &str| {
            let entry = metadata.iter().find(|(found, _)| found == key);
            entry.map(|(_, value)| value.as_str())
        };
        Self {
            dataset: value(DATASET).map(Into::into),
            epochs: value(EPOCHS).and_then(|text| text.parse().ok()),
            loss: value(LOSS).and_then(|text| text.parse().ok()),
            fid: value(FID).and_then(|json| serde_json::from_str(json).ok()),
            license: value(LICENSE).map(Into::into),
        }
    }

    /// The metadata that say these facts.
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        let entries = [
            (DATASET, self.dataset.clone()),
            (EPOCHS, self.epochs.map(|epochs| epochs.to_string())),
            (LOSS, self.loss.map(|loss| loss.to_string())),
            (FID, self.fid.as_ref().and_then(|fid| serde_json::to_string(fid).ok())),
            (LICENSE, self.license.clone()),
        ];
        entries.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

impl fmt::Display for MeasuredFid {
    /// The distance, then how it was measured, in parentheses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, features, reference, sampler, .. } = self;
        write!(f, "{name} {value:.3}")?;
        if let Some(error) = self.error {
            write!(f, " ± {error:.3}")?;
        }
        let samples = self.samples.map_or_else(String::new, |n| format!("{n} "));
        write!(f, " ({samples}samples by {sampler}; against {reference}; features: {features})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_survive_the_metadata() {
        let all = Catalogue {
            dataset: Some("mnist".into()),
            epochs: Some(12),
            loss: Some(0.1 + 0.2),
            fid: Some(MeasuredFid {
                name: "FID (LeNet features)".into(),
                value: 6.02,
                error: None,
                features: "lenet, built in".into(),
                samples: Some(1000),
                reference: "the \"training\" images".into(),
                sampler: "midpoint, 20 steps".into(),
            }),
            license: Some("mit".into()),
        };
        for facts in [all, Catalogue::default()] {
            let metadata = facts.metadata().into_iter();
            let metadata: Vec<_> = metadata.map(|(key, value)| (key.to_string(), value)).collect();
            assert_eq!(Catalogue::of(&metadata), facts);
        }
    }

    #[test]
    fn a_distance_says_how_it_was_measured() {
        let fid = MeasuredFid {
            name: "FID".into(),
            value: 6.0204,
            error: Some(0.25),
            features: "inception".into(),
            samples: Some(1000),
            reference: "cifar10 train".into(),
            sampler: "midpoint, 20 steps".into(),
        };
        let how = "samples by midpoint, 20 steps; against cifar10 train; features: inception)";
        assert_eq!(fid.to_string(), format!("FID 6.020 ± 0.250 (1000 {how}"));
        let less = MeasuredFid { error: None, samples: None, ..fid };
        assert_eq!(less.to_string(), format!("FID 6.020 ({how}"));
    }

    #[test]
    fn what_cannot_be_read_is_not_known() {
        let metadata = [("fmq.epochs", "many"), ("fmq.fid", "6.02"), ("fmq.loss", "")];
        let metadata = metadata.map(|(key, value)| (key.to_string(), value.to_string()));
        assert_eq!(Catalogue::of(&metadata), Catalogue::default());
    }
}
