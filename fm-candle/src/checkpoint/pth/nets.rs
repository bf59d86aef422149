//! The search for the state dicts of nets in a torch file: in the dictionary that was saved, or in
//! dictionaries within it, beside optimizers, counters and arguments.

use super::super::keys;
use crate::pickle::{Pickle, Value};

/// Deepest dictionary that is looked into.
const MAX_DEPTH: usize = 8;
/// Most pairs that are looked at.
const MAX_VISITS: usize = 1 << 16;

/// The state dicts in a file, each with the keys that lead to it, joined by dots.
///
/// A dictionary with dotted names of tensors is one; so is what lies under a key such as `model` or
/// `ema_state_dict`. Where there is none, the whole file counts as one. Optimizers never do.
pub(super) fn nets(pickle: &Pickle) -> Vec<(String, Value)> {
    let mut search = NetSearch { pickle, visits: 0 };
    let found = search.below("", pickle.root(), 0);
    if found.is_empty() { vec![(String::new(), pickle.root())] } else { found }
}

/// Returns true if a value under this key is the state of an optimizer, of a schedule or of a
/// gradient scaler.
pub(super) fn is_optimizer(pickle: &Pickle, key: &str, value: Value) -> bool {
    let holds = |key| pickle.get(value, key).is_some();
    is_container(pickle, value)
        && (keys::is_optimizer(key) || (holds("state") && holds("param_groups")))
}

fn is_container(pickle: &Pickle, value: Value) -> bool {
    pickle.dict(value).is_some() || pickle.items(value).is_some()
}

struct NetSearch<'a> {
    pickle: &'a Pickle,
    visits: usize,
}

impl NetSearch<'_> {
    /// The state dicts in and below the dictionary `value`; none where it holds no tensors of
    /// weights.
    fn below(&mut self, path: &str, value: Value, depth: usize) -> Vec<(String, Value)> {
        let pickle = self.pickle;
        let pairs = pickle.dict(value).unwrap_or_default();
        self.visits += pairs.len();
        if depth > MAX_DEPTH || self.visits > MAX_VISITS {
            return Vec::new();
        }
        let tensors = || {
            let tensor =
                |&(key, value): &(Value, Value)| Some((pickle.text(key)?, pickle.elements(value)?));
            pairs.iter().filter_map(tensor)
        };
        let whole = || vec![(path.to_string(), value)];
        if tensors().any(|(key, _)| key.contains('.')) {
            return whole();
        }
        let (mut named, mut others) = (Vec::new(), Vec::new());
        for &(key, value) in pairs {
            let Some(key) = pickle.key(key) else { continue };
            if !is_container(pickle, value) || is_optimizer(pickle, &key, value) {
                continue;
            }
            let dot = if path.is_empty() { "" } else { "." };
            let path = format!("{path}{dot}{key}");
            let found = self.below(&path, value, depth + 1);
            if !keys::is_net(&key) {
                others.extend(found);
            } else if !found.is_empty() {
                named.extend(found);
            } else if pickle.tensors(value, |_, _| false).is_ok_and(|found| !found.is_empty()) {
                named.push((path, value));
            }
        }
        match (named.is_empty(), tensors().any(|(_, elements)| elements != 1)) {
            (true, true) => whole(),
            _ => named.into_iter().chain(others).collect(),
        }
    }
}
