//! Image sets, in memory or decoded when they are read, and the data sets they come from.
//!
//! | module | idea |
//! |---|---|
//! | `images` | images of one size: [`Images`] in memory, any other [`ImageSet`] |
//! | `dataset` `split` | [`Dataset`], a set by its name, and its halves, [`Split`] |
//! | [`mnist`] | the IDX files of MNIST and FashionMNIST |
//! | [`cifar`] | the batches of CIFAR-10 |
//! | [`folder`] | folders of images: ImageNet, CelebA |
//! | [`regular`] `gzip` | regular files alone are opened; what is gzipped is inflated |
//! | [`catalog`] [`fetch`] [`checksum`] [`verify`] | where the sets come from, and that they are whole |

pub mod catalog;
pub mod checksum;
pub mod cifar;
mod dataset;
pub mod fetch;
pub mod folder;
mod gzip;
mod images;
pub mod mnist;
pub mod regular;
mod split;
pub mod verify;

pub use self::dataset::Dataset;
pub use self::images::{ImageSet, Images};
pub use self::split::Split;
