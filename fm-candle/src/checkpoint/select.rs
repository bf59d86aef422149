//! Which of a file's tensors are the net's, and under which names: upstream's training layout.
//!
//! With EMA a state dict holds `num_updates`, the raw weights as `model.NAME` and the averaged
//! ones as `shadow_params.N`, numbered in the order of the parameters. Buffers have no shadow.
//!
//! Source: `examples/image/training/load_and_save.py` and `examples/image/models/ema.py` of
//! `facebookresearch/flow_matching`.

use std::collections::HashSet;

use ::safetensors::Dtype;

use super::Entry;

/// The tensors to evaluate, as the net's name and the index into `entries`, and whether
/// shadows of an EMA are among them.
pub(super) fn select(
    entries: &[Entry],
    raw_weights: bool,
) -> Result<(Vec<(String, usize)>, bool), String> {
    let shadows = shadows(entries)?;
    let prefix = if shadows.is_empty() { "" } else { "model." };
    let own = |(index, entry): (usize, &Entry)| {
        entry.name.strip_prefix(prefix).map(|name| (name.to_string(), index))
    };
    let mut picks: Vec<_> = entries.iter().enumerate().filter_map(own).collect();
    if picks.is_empty() {
        return Err("holds no tensors of a net".into());
    }
    let mut seen = HashSet::new();
    if let Some((twice, _)) = picks.iter().find(|(name, _)| !seen.insert(name)) {
        return Err(format!("tensor `{twice}` appears twice"));
    }
    let ema = !shadows.is_empty() && !raw_weights;
    if ema {
        average(entries, &mut picks, &shadows)?;
    }
    Ok((picks, ema))
}

/// The indices of the EMA shadows, in the order of their numbers, which must run from 0.
fn shadows(entries: &[Entry]) -> Result<Vec<usize>, String> {
    let mut shadows = Vec::new();
    for (index, Entry { name, .. }) in entries.iter().enumerate() {
        if let Some(number) = name.strip_prefix("shadow_params.") {
            let number: usize = number.parse().map_err(|_| format!("`{name}` has no number"))?;
            shadows.push((number, index));
        }
    }
    shadows.sort_unstable();
    match shadows.iter().enumerate().find(|&(expected, &(number, _))| number != expected) {
        Some((missing, _)) => Err(format!("`shadow_params.{missing}` is missing")),
        None => Ok(shadows.into_iter().map(|(_, index)| index).collect()),
    }
}

/// Puts the `shadows` in the place of the parameters, which are the floating tensors.
fn average(
    entries: &[Entry],
    picks: &mut [(String, usize)],
    shadows: &[usize],
) -> Result<(), String> {
    let is_float = |(_, index): &&mut (String, usize)| {
        matches!(entries[*index].dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
    };
    let parameters: Vec<_> = picks.iter_mut().filter(is_float).collect();
    if parameters.len() != shadows.len() {
        let (n, m) = (shadows.len(), parameters.len());
        return Err(format!(
            "{n} EMA shadows for {m} parameters: only its raw weights can be used"
        ));
    }
    for ((name, index), &shadow) in parameters.into_iter().zip(shadows) {
        let (Entry { name: from, shape: have, .. }, need) =
            (&entries[shadow], &entries[*index].shape);
        if have != need {
            return Err(format!(
                "`{from}` has shape {have:?}, but its parameter `{name}` {need:?}"
            ));
        }
        *index = shadow;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, dtype: Dtype, shape: &[usize]) -> Entry {
        Entry { name: name.into(), dtype, shape: shape.into() }
    }

    /// A net of two parameters around a counter, and its shadows in a shuffled order.
    fn averaged() -> Vec<Entry> {
        vec![
            entry("num_updates", Dtype::I64, &[]),
            entry("model.a", Dtype::F32, &[2]),
            entry("model.steps", Dtype::I64, &[]),
            entry("model.b", Dtype::F32, &[3]),
            entry("shadow_params.1", Dtype::F32, &[3]),
            entry("shadow_params.0", Dtype::F32, &[2]),
        ]
    }

    fn picks(entries: &[Entry], raw_weights: bool) -> Vec<(String, usize)> {
        select(entries, raw_weights).unwrap().0
    }

    #[test]
    fn shadows_map_to_parameters_by_number_and_leave_buffers() {
        let expected = [("a".into(), 5), ("steps".into(), 2), ("b".into(), 4)];
        assert_eq!(picks(&averaged(), false), expected);
        assert!(select(&averaged(), false).unwrap().1);
    }

    #[test]
    fn raw_weights_ignore_the_shadows() {
        let expected = [("a".into(), 1), ("steps".into(), 2), ("b".into(), 3)];
        assert_eq!(picks(&averaged(), true), expected);
        assert!(!select(&averaged(), true).unwrap().1);
    }

    #[test]
    fn bare_names_stay() {
        let bare = [entry("model.a", Dtype::F32, &[2]), entry("b", Dtype::U8, &[])];
        assert_eq!(picks(&bare, false), [("model.a".into(), 0), ("b".into(), 1)]);
    }

    #[test]
    fn rejects_shadows_that_do_not_fit() {
        for (at, changed, reason) in [
            (4, entry("shadow_params.1", Dtype::F32, &[4]), "shape [4], but its parameter `b` [3]"),
            (4, entry("shadow_params.7", Dtype::F32, &[3]), "`shadow_params.1` is missing"),
            (4, entry("shadow_params.x", Dtype::F32, &[3]), "`shadow_params.x` has no number"),
            (4, entry("other", Dtype::F32, &[3]), "1 EMA shadows for 2 parameters"),
            (3, entry("model.a", Dtype::F32, &[3]), "`a` appears twice"),
        ] {
            let mut entries = averaged();
            entries[at] = changed;
            let error = select(&entries, false).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn rejects_a_file_without_tensors() {
        assert!(select(&[], false).is_err());
    }
}
