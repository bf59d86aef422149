//! The subcommands: a file each, with its arguments and its run.

pub(crate) mod calibrate;
pub(crate) mod data;
pub(crate) mod demo;
pub(crate) mod encode;
pub(crate) mod export;
pub(crate) mod fid;
pub(crate) mod folder;
pub(crate) mod images;
pub(crate) mod inspect;
pub(crate) mod label;
pub(crate) mod latent;
pub(crate) mod launcher;
pub(crate) mod net;
pub(crate) mod ode;
pub(crate) mod output;
pub(crate) mod policy;
pub(crate) mod quantize;
pub(crate) mod sample;
pub(crate) mod shell;
pub(crate) mod sweep;
pub(crate) mod train;
pub(crate) mod train_lenet;
pub(crate) mod unpack;
pub(crate) mod velocity;
pub(crate) mod weights;
