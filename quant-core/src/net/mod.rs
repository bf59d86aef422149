//! The U-Net, without a heap: its configuration, the walk through its blocks, its parameters.
//!
//! The fields of the configuration are those of upstream's `UNetModel` (`facebookresearch/flow_matching`,
//! `examples/image/models/unet.py`). [`UNetConfig::blocks`] is the one list of the net's layers: the
//! engine, the list of parameters and the net of other libraries follow it.
//!
//! | file | idea |
//! |---|---|
//! | `config` | fields, defaults, bounds |
//! | `presets` | configurations by name |
//! | `blocks` | blocks and layers in order |
//! | `parameters` | shapes in state-dict order |
//! | `record` | the configuration in the packed file |
//! | `json` | the same as JSON (feature `serde`) |

mod blocks;
mod config;
#[cfg(feature = "serde")]
mod json;
mod parameters;
mod presets;
pub(crate) mod record;

pub use blocks::{Block, Layer, Part, Resample};
pub use config::{Dims, GROUPS, Ignored, UNetConfig};
pub use presets::UnknownNet;
pub use record::RECORD_LEN;

/// The most entries of a list: the most resolutions of a net.
pub const MAX_LEVELS: usize = 8;
