//! The Fréchet distance between two sets of images, and the features it is measured on.

pub mod frechet;
pub mod moments;
