//! The selection of a net among the tensors of a file.
//!
//! Training programs keep several nets in a file: raw weights and their average, under keys such as
//! `model` and `ema_model`, or as prefixes of the names. [`nets`] finds them all; [`select`] takes
//! one.
//!
//! Upstream's layout has both in one state dict: `num_updates`, the raw weights as `model.NAME`, and
//! the averaged ones as `shadow_params.N`, numbered in the order of the parameters. Buffers have no
//! shadow. Others keep the shadows as a list beside the state dict.
//!
//! Source: `examples/image/training/load_and_save.py` and `examples/image/models/ema.py` of
//! `facebookresearch/flow_matching`.

use std::collections::{HashMap, HashSet};

use ::safetensors::Dtype;

use super::entry::{TensorEntry, join};
use super::keys;

/// The name of each tensor that is taken, and its index in the file's entries.
pub(super) type Picks = Vec<(String, usize)>;

/// Prefixes that wrappers of a whole net put before all its names.
const WRAPPERS: [&str; 3] = ["_orig_mod", "model", "module"];
/// Fewest tensors under a prefix that is tried as a net's because some net may fit.
const MIN_TENSORS: usize = 8;

/// A net in a file.
#[derive(Debug)]
pub(super) struct NetCandidate {
    /// Its keys and prefix, joined by dots; empty for the whole file.
    pub(super) key: String,
    /// The part of the key that was a prefix of the tensors' names.
    pub(super) prefix: String,
    /// True if its weights are averaged over the steps of training.
    pub(super) average: bool,
    /// Its tensors; or why they cannot be used.
    pub(super) picks: Result<Picks, String>,
}

/// The choice of a net.
pub(super) struct Wanted<'a> {
    /// Not an average.
    pub(super) raw_weights: bool,
    /// The one that lies there.
    pub(super) key: Option<&'a str>,
    /// Returns true for tensors that make a known net.
    pub(super) fits: Box<dyn Fn(&Picks) -> bool + 'a>,
}

/// The net taken.
#[derive(Debug)]
pub(super) struct Selected {
    pub(super) picks: Picks,
    /// True if the weights are averaged.
    pub(super) average: bool,
    /// Its key, and the prefix of its tensors' names; `None` where all nets are taken, which have
    /// nothing in common.
    pub(super) net: Option<(String, String)>,
}

/// Takes one of the `nets` in a file: the one with the wanted key; else the first that fits a known
/// net, averages first; else, where all have the same tensors, the first of these. Nets that have
/// nothing in common are taken together, under their full names.
///
/// # Errors
///
/// That there is none, or none such.
pub(super) fn select(
    entries: &[TensorEntry],
    nets: &[NetCandidate],
    wanted: &Wanted<'_>,
) -> Result<Selected, String> {
    let parts = || parts(nets);
    if let Some(key) = wanted.key {
        let parts = parts();
        let found = nets.iter().chain(&parts).find(|net| net.key == key);
        let net = found.ok_or_else(|| format!("holds no net under `{key}`, but {}", list(nets)))?;
        return net.selected();
    }
    let by_preference = || {
        let averages = nets.iter().filter(|net| net.average && !wanted.raw_weights);
        averages.chain(nets.iter().filter(|net| !net.average))
    };
    let Some(first) = by_preference().next() else {
        return Err(match nets {
            [] => "holds no tensors of a net".into(),
            _ => format!("holds no raw weights, only averages: {}", list(nets)),
        });
    };
    let fits = |net: &&NetCandidate| net.picks.as_ref().is_ok_and(|picks| (wanted.fits)(picks));
    if let Some(net) = by_preference().find(fits) {
        return net.selected();
    }
    let may_fit = |net: &NetCandidate| !(net.average && wanted.raw_weights);
    if let Some(net) = parts().iter().filter(|net| may_fit(net)).find(fits) {
        return net.selected();
    }
    let alike = |net: &NetCandidate| net.picks.is_err() || net.names() == first.names();
    if first.picks.is_err() || by_preference().all(alike) {
        return first.selected();
    }
    let all = nets.iter().filter_map(|net| net.picks.as_ref().ok()).flatten();
    let mut seen = HashSet::new();
    let all = all.filter(|(_, index)| seen.insert(*index));
    let picks = all.map(|&(_, index)| (entries[index].path(), index)).collect();
    Ok(Selected { picks, average: false, net: None })
}

/// All nets in a file, in its order.
///
/// # Errors
///
/// Shadows that are not numbered from 0 on; a name that appears twice.
pub(super) fn nets(entries: &[TensorEntry]) -> Result<Vec<NetCandidate>, String> {
    let mut groups: Vec<(&str, Vec<usize>)> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        match groups.iter_mut().find(|(group, _)| *group == entry.group) {
            Some((_, indices)) => indices.push(index),
            None => groups.push((&entry.group, vec![index])),
        }
    }
    let (mut nets, mut lists) = (Vec::new(), Vec::new());
    for (group, indices) in groups {
        let name = |&index: &usize| entries[index].name.as_str();
        if keys::is_average(group) && indices.iter().map(name).all(|name| name.starts_with('[')) {
            lists.push((group, indices));
        } else if indices.iter().map(name).any(|name| name.starts_with(SHADOW)) {
            nets.extend(upstream(entries, group, &indices)?);
        } else {
            nets.extend(by_prefix(entries, group, &indices));
        }
    }
    for (group, shadows) in lists {
        let raw = nets.iter().filter(|net| !net.average).filter_map(|net| net.picks.as_ref().ok());
        let averaged = raw.map(|picks| averaged(entries, picks, &shadows));
        let picks = averaged.reduce(|first, other| if first.is_ok() { first } else { other });
        let picks = picks.unwrap_or_else(|| Err("has no names for the list of averages".into()));
        nets.push(NetCandidate { key: group.into(), prefix: String::new(), average: true, picks });
    }
    for picks in nets.iter().filter_map(|net| net.picks.as_ref().ok()) {
        let mut seen = HashSet::new();
        if let Some((twice, _)) = picks.iter().find(|(name, _)| !seen.insert(name)) {
            return Err(format!("tensor `{twice}` appears twice"));
        }
    }
    Ok(nets)
}

impl NetCandidate {
    /// The names of its tensors.
    fn names(&self) -> HashSet<&str> {
        self.picks.iter().flatten().map(|(name, _)| name.as_str()).collect()
    }

    fn selected(&self) -> Result<Selected, String> {
        let net = Some((self.key.clone(), self.prefix.clone()));
        Ok(Selected { picks: self.picks.clone()?, average: self.average, net })
    }
}

/// The keys of the nets, for people.
pub(super) fn list(nets: &[NetCandidate]) -> String {
    let name = |net: &NetCandidate| match net.key.as_str() {
        "" => "the whole file".to_string(),
        key => format!("`{key}`"),
    };
    nets.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Start of the name of an averaged weight in upstream's layout; its number follows.
const SHADOW: &str = "shadow_params.";

/// The raw and the averaged weights of a state dict in upstream's layout.
fn upstream(
    entries: &[TensorEntry],
    group: &str,
    indices: &[usize],
) -> Result<[NetCandidate; 2], String> {
    let (mut shadows, mut raw) = (Vec::new(), Vec::new());
    for &index in indices {
        let name = &entries[index].name;
        if let Some(number) = name.strip_prefix(SHADOW) {
            let number: usize = number.parse().map_err(|_| format!("`{name}` has no number"))?;
            shadows.push((number, index));
        } else if let Some(name) = name.strip_prefix("model.") {
            raw.push((name.to_string(), index));
        }
    }
    shadows.sort_unstable();
    if let Some((missing, _)) = shadows.iter().enumerate().find(|(i, (number, _))| i != number) {
        return Err(format!("`{SHADOW}{missing}` is missing"));
    }
    let shadows: Vec<usize> = shadows.into_iter().map(|(_, index)| index).collect();
    let averaged = averaged(entries, &raw, &shadows);
    let net = |name: &str, average, picks| NetCandidate {
        key: join(group, name),
        prefix: String::new(),
        average,
        picks,
    };
    let raw = if raw.is_empty() { Err("holds no tensors of a net".into()) } else { Ok(raw) };
    Ok([net("model", false, raw), net("shadow_params", true, averaged)])
}

/// The `raw` weights with the `shadows` in the place of the parameters, which are the floating
/// tensors.
fn averaged(entries: &[TensorEntry], raw: &Picks, shadows: &[usize]) -> Result<Picks, String> {
    let is_float = |(_, index): &&mut (String, usize)| {
        matches!(entries[*index].dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
    };
    let mut picks = raw.clone();
    let parameters: Vec<_> = picks.iter_mut().filter(is_float).collect();
    if parameters.len() != shadows.len() {
        let (n, m) = (shadows.len(), parameters.len());
        return Err(format!(
            "{n} EMA shadows for {m} parameters: only its raw weights can be used"
        ));
    }
    for ((name, index), &shadow) in parameters.into_iter().zip(shadows) {
        let (from, have, need) =
            (&entries[shadow].name, &entries[shadow].shape, &entries[*index].shape);
        if have != need {
            return Err(format!(
                "`{from}` has shape {have:?}, but its parameter `{name}` {need:?}"
            ));
        }
        *index = shadow;
    }
    Ok(picks)
}

/// The nets of a state dict: one, or one for each prefix that its names begin with. Single numbers
/// beside prefixes, such as counters, belong to none.
fn by_prefix(entries: &[TensorEntry], group: &str, indices: &[usize]) -> Vec<NetCandidate> {
    let names: Vec<(&str, usize)> =
        indices.iter().map(|&i| (entries[i].name.as_str(), i)).collect();
    let names: Vec<_> = names.into_iter().filter(|(name, _)| !is_moment(name)).collect();
    let is_large = |&&(_, index): &&(&str, usize)| entries[index].shape.iter().any(|&n| n != 1);
    let mut prefixes: Vec<&str> = Vec::new();
    for &(name, _) in names.iter().filter(is_large) {
        let prefix = keys::prefix(name);
        if !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    // A prefix below another is a part of that one's net.
    let all = prefixes.clone();
    prefixes.retain(|prefix| !all.iter().any(|outer| below(prefix, outer).is_some()));
    let one = |prefix: &&str| prefix.split('.').all(|part| WRAPPERS.contains(&part));
    if prefixes.is_empty() || (prefixes.len() == 1 && !prefixes.iter().all(one)) {
        prefixes = vec![""];
    }
    let net = |prefix: &str| {
        let own = |&(name, index): &(&str, usize)| {
            let name = if prefix.is_empty() { name } else { below(name, prefix)? };
            Some((name.to_string(), index))
        };
        let picks: Picks = names.iter().filter_map(own).collect();
        let key = join(group, prefix);
        NetCandidate {
            average: keys::is_average(&key),
            key,
            prefix: prefix.into(),
            picks: Ok(picks),
        }
    };
    let nets = prefixes.into_iter().map(net);
    nets.filter(|net| net.picks.as_ref().is_ok_and(|picks| !picks.is_empty())).collect()
}

/// Returns true if a name among those of a net is that of an optimizer's tensor.
pub(super) fn is_moment(name: &str) -> bool {
    keys::is_optimizer(name.split('.').next().unwrap_or_default()) && keys::is_moment(name)
}

/// The part of a dotted name below `prefix`, if it lies there; all of it below the empty prefix,
/// which is not below itself.
fn below<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    if prefix.is_empty() {
        return (!name.is_empty()).then_some(name);
    }
    name.strip_prefix(prefix)?.strip_prefix('.')
}

/// The tensors below each prefix of one or two parts in the `nets`, the averages first: one of them
/// may be a net, whatever its prefix is called.
fn parts(nets: &[NetCandidate]) -> Vec<NetCandidate> {
    let mut parts: HashMap<(usize, String), Picks> = HashMap::new();
    for (number, net) in nets.iter().enumerate() {
        for &(ref name, index) in net.picks.iter().flatten() {
            let dots: Vec<usize> = name.match_indices('.').map(|(dot, _)| dot).take(2).collect();
            for dot in dots {
                let part = parts.entry((number, name[..dot].to_string())).or_default();
                part.push((name[dot + 1..].to_string(), index));
            }
        }
    }
    let mut parts: Vec<_> =
        parts.into_iter().filter(|(_, picks)| picks.len() >= MIN_TENSORS).collect();
    parts.sort_by_key(|(_, picks)| picks.iter().map(|&(_, index)| index).min());
    let part = |((number, prefix), picks): ((usize, String), Picks)| {
        let key = join(&nets[number].key, &prefix);
        NetCandidate { average: keys::is_average(&key), key, prefix, picks: Ok(picks) }
    };
    let mut parts: Vec<NetCandidate> = parts.into_iter().map(part).collect();
    parts.sort_by_key(|net| !net.average);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, dtype: Dtype, shape: &[usize]) -> TensorEntry {
        TensorEntry { group: String::new(), name: name.into(), dtype, shape: shape.into() }
    }

    /// Tensors of two weights each under these names; a group stands before a colon.
    fn weights(names: &[&str]) -> Vec<TensorEntry> {
        let entry = |name: &&str| {
            let (group, name) = name.split_once(':').unwrap_or(("", name));
            TensorEntry { group: group.into(), ..entry(name, Dtype::F32, &[2]) }
        };
        names.iter().map(entry).collect()
    }

    /// A net of two parameters around a counter, and its shadows in a shuffled order.
    fn averaged() -> Vec<TensorEntry> {
        vec![
            entry("num_updates", Dtype::I64, &[]),
            entry("model.a", Dtype::F32, &[2]),
            entry("model.steps", Dtype::I64, &[]),
            entry("model.b", Dtype::F32, &[3]),
            entry("shadow_params.1", Dtype::F32, &[3]),
            entry("shadow_params.0", Dtype::F32, &[2]),
        ]
    }

    fn take(entries: &[TensorEntry], raw_weights: bool, known: &str) -> Result<Selected, String> {
        let fits = Box::new(|picks: &Picks| picks.iter().any(|(name, _)| name == known));
        select(entries, &nets(entries)?, &Wanted { raw_weights, key: None, fits })
    }

    /// The names taken, and where the net lies.
    fn taken(names: &[&str], raw_weights: bool, known: &str) -> (String, Option<String>) {
        let selected = take(&weights(names), raw_weights, known).unwrap();
        let names: Vec<_> = selected.picks.into_iter().map(|(name, _)| name).collect();
        (names.join(" "), selected.net.map(|(key, _)| key))
    }

    #[test]
    fn shadows_map_to_parameters_by_number_and_leave_buffers() {
        let selected = take(&averaged(), false, "").unwrap();
        assert_eq!(selected.picks, [("a".into(), 5), ("steps".into(), 2), ("b".into(), 4)]);
        assert!(selected.average);
        let selected = take(&averaged(), true, "").unwrap();
        assert_eq!(selected.picks, [("a".into(), 1), ("steps".into(), 2), ("b".into(), 3)]);
        assert!(!selected.average);
    }

    #[test]
    fn a_list_of_shadows_belongs_to_the_state_dict_beside_it() {
        let entries =
            weights(&["model:a.w", "model:b.w", "ema.shadow_params:[0]", "ema.shadow_params:[1]"]);
        let selected = take(&entries, false, "").unwrap();
        assert_eq!(selected.picks, [("a.w".into(), 2), ("b.w".into(), 3)]);
        assert!(take(&entries[..3], false, "").unwrap_err().contains("1 EMA shadows for 2"));
        assert_eq!(take(&entries[..3], true, "").unwrap().picks.len(), 2);
    }

    #[test]
    fn bare_names_stay_and_wrappers_prefixes_go() {
        let own = |names: &[&str]| taken(names, false, "").0;
        assert_eq!(own(&["model.a.w", "b"]), "model.a.w b");
        assert_eq!(own(&["module.a.w", "module.b"]), "a.w b");
        assert_eq!(own(&["module._orig_mod.a", "module._orig_mod.b"]), "a b");
        assert_eq!(own(&["net.a.w", "net.b.w"]), "net.a.w net.b.w");
        // A counter beside the wrapped names.
        let mut counted = weights(&["module.a", "module.b"]);
        counted.push(entry("n_averaged", Dtype::I64, &[]));
        assert_eq!(take(&counted, false, "").unwrap().picks.len(), 2);
    }

    #[test]
    fn averages_come_first_unless_raw_weights_are_wanted() {
        for names in [
            ["net_model:a.w", "net_model:b", "ema_model:a.w", "ema_model:b"],
            ["ema:online_model.a.w", "ema:online_model.b", "ema:ema_model.a.w", "ema:ema_model.b"],
            ["model.a.w", "model.b", "ema.a.w", "ema.b"],
        ] {
            let (own, key) = taken(&names, false, "");
            assert!(own == "a.w b" && key.unwrap().contains("ema"), "{names:?}");
            let selected = take(&weights(&names), true, "").unwrap();
            assert_eq!(selected.picks, [("a.w".into(), 0), ("b".into(), 1)], "{names:?}");
            assert!(!selected.average);
        }
    }

    #[test]
    fn the_net_that_is_known_is_taken() {
        let names = ["G:a.w", "D:c.w", "ema_misc:d.w"];
        assert_eq!(taken(&names, false, "c.w"), ("c.w".into(), Some("D".into())));
        // Nothing in common, and none known: all, under their full names.
        assert_eq!(taken(&names, false, ""), ("G.a.w D.c.w ema_misc.d.w".into(), None));
        let mut names: Vec<String> = (0..9).map(|i| format!("vf.l{i}.w")).collect();
        names.push("loss.weight".into());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(taken(&names, false, "l3.w").1, Some("vf".into()));
        assert_eq!(taken(&names, false, "").1, Some(String::new()));
    }

    #[test]
    fn a_net_is_taken_by_its_key() {
        let entries = weights(&["net_model:a.w", "ema_model:a.w"]);
        let by_key = |key| {
            let fits = Box::new(|_: &Picks| false);
            let wanted = Wanted { raw_weights: false, key: Some(key), fits };
            select(&entries, &nets(&entries).unwrap(), &wanted)
        };
        assert_eq!(by_key("net_model").unwrap().picks, [("a.w".into(), 0)]);
        let error = by_key("other").unwrap_err();
        assert_eq!(error, "holds no net under `other`, but `net_model`, `ema_model`");
    }

    #[test]
    fn moments_are_no_weights() {
        let names = ["a.w", "optimizer.state.0.exp_avg", "optimizer.state.0.exp_avg_sq"];
        assert_eq!(taken(&names, false, "").0, "a.w");
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
            let error = take(&entries, false, "").unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn rejects_a_file_without_tensors() {
        assert!(take(&[], false, "").is_err());
    }
}
