//! The subcommands: a file each, with its arguments and its run.

pub(crate) mod calibrate;
pub(crate) mod data;
pub(crate) mod demo;
pub(crate) mod encode;
pub(crate) mod export;
pub(crate) mod fid;
pub(crate) mod inspect;
pub(crate) mod latent;
pub(crate) mod quantize;
pub(crate) mod sample;
pub(crate) mod shell;
pub(crate) mod sweep;
pub(crate) mod train;
pub(crate) mod train_lenet;
pub(crate) mod tune;
pub(crate) mod unpack;
pub(crate) mod velocity;
