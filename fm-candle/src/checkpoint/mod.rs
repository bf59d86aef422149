//! Checkpoints: one door for every kind of file that holds a state dict.
//!
//! [`Source`] looks at the contents, never at the extension, and gives the weights one by one under
//! the net's own names, in the order of its state dict; [`load`] gives all of them. A file is
//! opened by reading its table of contents alone; tensors that are not asked for, such as the
//! optimizer's state or the raw weights of an EMA, are never read.
//!
//! A folder as model hubs lay it out is a checkpoint too: its `model.safetensors`, with the net of its
//! `config.json` where that says none.
//!
//! Dtypes stay as they are in the file, except for the two that candle lacks: bool becomes u8
//! and i8 becomes i16, which hold the same values.

pub use catalogue::{Catalogue, MeasuredFid};
pub use choice::{Choice, Fits, NetInfo};
pub use contents::{Checkpoint, load};
pub use elements::Elements;
pub use entry::{LeftOut, TensorInfo};
pub use file_weights::FileWeights;
pub use identify::{identify, order};
pub(crate) use metadata::METADATA_KEY;
pub use metadata::NET_KEY;
pub use packed::tensor_names;
pub use source::Source;
pub use store::FileKind;

mod catalogue;
mod choice;
mod contents;
mod elements;
mod entry;
mod file_weights;
pub mod folder;
mod identify;
mod keys;
mod metadata;
mod packed;
mod pth;
pub mod safetensors;
mod select;
mod source;
mod store;
pub mod torch;
