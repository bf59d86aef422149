//! Ways to quantize a net by its own velocity, on points of its own trajectories.
//!
//! | module | idea |
//! |---|---|
//! | [`own_points`] | the points |
//! | [`allocation`] | the bits of each tensor, within a size of the file |
//! | [`projection`] | the rank of what the blocks read of the embedding |
//! | [`feedback`] | error-feedback rounding, and where tuning starts |

pub(crate) mod allocation;
pub(crate) mod feedback;
mod own_points;
pub(crate) mod projection;
