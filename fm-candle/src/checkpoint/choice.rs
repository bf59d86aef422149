//! The nets in a file, and the choice of one.

use super::elements::dtype_of;
use super::entry::{TensorEntry, TensorInfo};
use super::pth::TorchArchive;
use super::select::{self, NetCandidate, Picks, Wanted};
use super::store::Store;

/// The choice of a net in a file.
#[derive(Clone, Copy, Default)]
pub struct Choice<'a> {
    /// Not an average.
    pub raw_weights: bool,
    /// The one that lies under these keys, joined by dots, such as `ema_model`.
    pub key: Option<&'a str>,
    /// A test for tensors whose names and shapes make a known net.
    pub fits: Option<&'a Fits<'a>>,
}

/// Tells whether tensors of these names and shapes are those of a net that is known.
pub type Fits<'a> = dyn Fn(&[TensorInfo]) -> bool + 'a;

/// A net in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetInfo {
    /// Its keys and the prefix of its names, joined by dots; empty for the whole file.
    pub key: String,
    /// True if its weights are averaged over the steps of training.
    pub average: bool,
    /// The number of its tensors; `None` where they cannot be used.
    pub tensors: Option<usize>,
    /// True for the net that was opened.
    pub taken: bool,
}

/// The nets in a file.
pub(super) fn nets(store: &Store) -> Result<Vec<NetCandidate>, String> {
    if store.entries().is_empty() && store.left_out().is_empty() {
        let foreign = store.torch().map(TorchArchive::foreign).unwrap_or_default();
        return Err(match foreign {
            [] => "holds no tensors of a net".into(),
            [name, ..] => format!(
                "holds no tensors of a net, but objects of Python such as `{name}`, which are not \
                 opened: load it with the program that made it and save the net's state_dict()"
            ),
        });
    }
    select::nets(store.entries())
}

/// The choice, of a file's entries.
pub(super) fn wanted<'a>(store: &'a Store, choice: &Choice<'a>) -> Wanted<'a> {
    let &Choice { raw_weights, key, fits } = choice;
    let fits = move |picks: &Picks| {
        let info = |(name, index): &(String, usize)| {
            let TensorEntry { dtype, shape, .. } = &store.entries()[*index];
            Some(TensorInfo {
                name: name.clone(),
                dtype: dtype_of(*dtype).ok()?,
                shape: shape.clone(),
            })
        };
        fits.is_some_and(|fits| fits(&picks.iter().filter_map(info).collect::<Vec<_>>()))
    };
    Wanted { raw_weights, key, fits: Box::new(fits) }
}
