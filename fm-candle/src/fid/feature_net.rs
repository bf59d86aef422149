//! The net of the features that image sets are compared by.

use crate::data::Images;
use crate::error::Result;

/// A net that turns images into features.
pub trait FeatureNet: Send + Sync {
    /// Number of features of an image.
    fn dim(&self) -> usize;

    /// The features of images, `[n, dim]`, row-major. Those of an image depend on no other image.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for images that the net cannot take.
    fn rows(&self, images: &Images) -> Result<Vec<f32>>;

    /// The logits that the inception score of images is taken on, and the number of classes, from
    /// the images' features.
    ///
    /// # Shapes: `rows: [n, dim]`, result `[n, classes]`
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) where these features do not lead to logits.
    fn logits(&self, rows: &[f32]) -> Result<(Vec<f32>, usize)>;
}
