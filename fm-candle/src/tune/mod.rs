//! Tuning of a quantized net against itself in full precision: no data is needed.
//!
//! The full-precision net draws trajectories from noise of its own; every evaluation along them is a
//! point with the velocity that the quantized net should have there. The error's gradient by the
//! quantized weights goes on to what they are made of:
//!
//! ```text
//! w[r][i] = s[r] · level[code[r][i]],    code = that of the level nearest to latent[r][i] / s[r]
//!
//! dL/d latent = dL/dw                     straight through the rounding
//! dL/d level  = sum of dL/dw · s          over the weights of the code
//! dL/d s      = sum of dL/dw · level      over the row
//! ```
//!
//! Levels and scales take part as they are stored, so the packed file is the net that was tuned.
//! Straight-through estimator: Bengio et al., arXiv 1308.3432.
//!
//! | module | idea |
//! |---|---|
//! | `points` | the calibration set: evaluations along trajectories |
//! | `matrix` | a quantized weight and the gradients of its parts |
//! | `tuner` | the loop's state: net, parts, optimizers, the packed result |
//! | `state` | that state in a file, to go on from |

mod matrix;
mod points;
mod state;
mod tuner;

pub use points::CalibrationPoints;
pub use tuner::{TuneConfig, Tuner};
