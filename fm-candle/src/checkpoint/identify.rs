//! Identification of the net of a state dict, when its file does not say.

use std::collections::{HashMap, HashSet};

use super::TensorInfo;
use crate::error::{Error, Result};
use crate::model::{UNet, UNetConfig};

/// The preset whose parameters have the names and shapes of `tensors`, in any order.
///
/// # Errors
/// No preset fits: the message names the closest and the first few differences.
pub fn identify(tensors: &[TensorInfo]) -> Result<UNetConfig> {
    let found: HashMap<&str, &[usize]> = by_name(tensors);
    let mut closest: Option<(&str, Vec<String>)> = None;
    for name in UNetConfig::PRESETS {
        let config = UNetConfig::preset(name)?;
        let differences = differences(&UNet::shapes(&config)?, &found);
        if differences.is_empty() {
            return Ok(config);
        }
        if closest.as_ref().is_none_or(|(_, fewest)| differences.len() < fewest.len()) {
            closest = Some((name, differences));
        }
    }
    let (name, differences) = closest.unwrap_or_default();
    let first: Vec<_> = differences.iter().take(3).map(String::as_str).collect();
    Err(Error::Config(format!(
        "the file does not say which net it holds, and no preset fits (give --arch); the closest, \
         {name}, differs in {} tensors: {}",
        differences.len(),
        first.join("; ")
    )))
}

/// The index of each parameter of the net among `tensors`, in state-dict order.
///
/// # Errors
/// Parameters that are missing or have another shape, and tensors that the net has no place for.
pub fn order(config: &UNetConfig, tensors: &[TensorInfo]) -> Result<Vec<usize>> {
    let needed = UNet::shapes(config)?;
    let differences = differences(&needed, &by_name(tensors));
    if !differences.is_empty() {
        let first: Vec<_> = differences.iter().take(3).map(String::as_str).collect();
        return Err(Error::Config(format!(
            "the tensors are not the net's parameters, {} differ: {}",
            differences.len(),
            first.join("; ")
        )));
    }
    let places: HashMap<&str, usize> =
        tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.as_str(), i)).collect();
    Ok(needed.iter().filter_map(|(name, _)| places.get(name.as_str()).copied()).collect())
}

fn by_name(tensors: &[TensorInfo]) -> HashMap<&str, &[usize]> {
    tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect()
}

/// Differences between a net's parameters and a file's tensors.
fn differences(needed: &[(String, Vec<usize>)], found: &HashMap<&str, &[usize]>) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, shape) in needed {
        match found.get(name.as_str()) {
            None => differences.push(format!("`{name}` is missing")),
            Some(&other) if other != shape.as_slice() => {
                differences.push(format!("`{name}` is {other:?}, not {shape:?}"));
            }
            Some(_) => {}
        }
    }
    let needed: HashSet<&str> = needed.iter().map(|(name, _)| name.as_str()).collect();
    let mut unknown: Vec<_> = found.keys().filter(|name| !needed.contains(*name)).collect();
    unknown.sort();
    differences.extend(unknown.into_iter().map(|name| format!("`{name}` is unknown")));
    differences
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    fn tensors(config: &UNetConfig) -> Vec<TensorInfo> {
        let info = |(name, shape)| TensorInfo { name, shape, dtype: DType::F32 };
        UNet::shapes(config).unwrap().into_iter().map(info).collect()
    }

    #[test]
    fn a_preset_is_found_by_its_shapes_and_a_stranger_is_described() {
        let config = UNetConfig::preset("mnist-small").unwrap();
        let mut tensors = tensors(&config);
        assert_eq!(identify(&tensors).unwrap(), config);
        tensors.remove(0);
        let error = identify(&tensors).unwrap_err().to_string();
        assert!(
            error.contains("mnist-small") && error.contains("`time_embed.0.weight` is missing")
        );
    }

    #[test]
    fn parameters_are_put_in_order() {
        let config = UNetConfig::preset("mnist-small").unwrap();
        let mut tensors = tensors(&config);
        let n = tensors.len();
        tensors.reverse();
        assert!(order(&config, &tensors).unwrap().into_iter().eq((0..n).rev()));
        tensors[3].shape.push(1);
        assert!(order(&config, &tensors).unwrap_err().to_string().contains("1 differ"));
    }
}
