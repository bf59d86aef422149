//! Classes of images: what `--label` asks for, and what a file holds.

use core::fmt;
use core::str::FromStr;

use anyhow::{Context, Result, bail};
use fm_candle::DType;
use fm_candle::checkpoint::Checkpoint;
use fm_candle::model::UNetConfig;
use fm_candle::sample::random_labels;

/// The value of `--label`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    /// A class for each image, drawn from the seed.
    Random,
    /// The classes 0, 1, 2, ... in turn.
    All,
    /// No class: the net's row for that.
    None,
    /// One class for every image.
    Class(u32),
}

impl FromStr for Label {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match (text, text.parse()) {
            ("random", _) => Ok(Self::Random),
            ("all", _) => Ok(Self::All),
            ("none", _) => Ok(Self::None),
            (_, Ok(class)) => Ok(Self::Class(class)),
            _ => Err("expected a class's number, all, random or none"),
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random => f.write_str("random"),
            Self::All => f.write_str("all"),
            Self::None => f.write_str("none"),
            Self::Class(class) => write!(f, "{class}"),
        }
    }
}

/// The labels of `n` images, random ones where nothing is wanted; none for a net without classes.
///
/// "No class" is the number after the last class.
pub(crate) fn labels(
    wanted: Option<Label>,
    n: usize,
    seed: u64,
    config: &UNetConfig,
) -> Result<Option<Vec<u32>>> {
    let Some(classes) = config.num_classes else {
        return match wanted {
            None | Some(Label::None) => Ok(None),
            Some(label) => bail!("--label {label}: the net has no classes"),
        };
    };
    let classes = u32::try_from(classes)?;
    Ok(Some(match wanted.unwrap_or(Label::Random) {
        Label::Random => random_labels(seed, 0, n, classes),
        Label::All => return class_cycle(config, n),
        Label::None => vec![classes; n],
        Label::Class(class) if class < classes => vec![class; n],
        Label::Class(class) => {
            bail!("--label {class}: the net has the classes 0 to {}", classes - 1)
        }
    }))
}

/// The classes 0, 1, 2, ... in turn for `n` images; none for a net without classes.
pub(crate) fn class_cycle(config: &UNetConfig, n: usize) -> Result<Option<Vec<u32>>> {
    let Some(classes) = config.num_classes else { return Ok(None) };
    Ok(Some((0..u32::try_from(classes)?).cycle().take(n).collect()))
}

/// The tensor `label` of a file with `n` images, for a net; none where the file has none.
pub(crate) fn in_file(
    file: &Checkpoint,
    n: usize,
    config: &UNetConfig,
) -> Result<Option<Vec<u32>>> {
    let Some(labels) = file.tensor("label") else { return Ok(None) };
    let classes = config.num_classes.context("label was given, but the net has no classes")?;
    let classes = u32::try_from(classes)?;
    if labels.dtype() != DType::I64 || labels.dims() != [n] {
        bail!("label is {:?} {:?}, expected I64 [{n}]", labels.dtype(), labels.dims());
    }
    let number = |label| {
        let number = u32::try_from(label).ok().filter(|&label| label <= classes);
        number.with_context(|| {
            format!("label {label} is no class; use 0 to {classes}, the last for none")
        })
    };
    labels.to_vec1::<i64>()?.into_iter().map(number).collect::<Result<_>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_as_they_are_shown() {
        for label in [Label::Random, Label::All, Label::None, Label::Class(3)] {
            assert_eq!(label.to_string().parse(), Ok(label));
        }
        for wrong in ["", "-1", "seven"] {
            assert!(wrong.parse::<Label>().is_err());
        }
    }

    #[test]
    fn labels_fit_the_net() {
        let net = UNetConfig { num_classes: Some(3), ..UNetConfig::default() };
        let of = |label| labels(Some(label), 4, 0, &net).unwrap().unwrap();
        assert_eq!(of(Label::All), [0, 1, 2, 0]);
        assert_eq!(of(Label::None), [3; 4]);
        assert_eq!(of(Label::Class(2)), [2; 4]);
        assert!(labels(Some(Label::Class(3)), 4, 0, &net).is_err());
        let free = UNetConfig { num_classes: None, ..UNetConfig::default() };
        assert_eq!(labels(None, 4, 0, &free).unwrap(), None);
        assert_eq!(labels(Some(Label::None), 4, 0, &free).unwrap(), None);
        assert!(labels(Some(Label::All), 4, 0, &free).is_err());
    }
}
