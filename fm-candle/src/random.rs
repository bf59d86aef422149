//! The domains of `quant_core::noise`, one for each use of random numbers.
//!
//! The start noise of samples has domain 0, `quant_core::noise::NOISE_DOMAIN`.

use quant_core::noise::Stream;

/// A use of random numbers, independent of all the others under the same seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Domain {
    /// Initial parameters; index: the parameter's place in the state dict.
    Init = 1,
    /// Order of the training images; index: the epoch.
    Shuffle = 2,
    /// Horizontal flips, and shifts in LeNet's training; index: the epoch, element: the image.
    Flip = 3,
    /// Noise `x0` in training; index: the example's number since the start of the run.
    TrainNoise = 4,
    /// Times in training; index: as for the noise.
    Time = 5,
    /// Dropped class labels; index: the batch's number since the start of the run.
    ClassDrop = 6,
    /// Dropout masks; index: batch and layer.
    Dropout = 7,
    /// Labels of samples; index: the image.
    SampleLabel = 8,
    /// Probes of the divergence; index: the row.
    Probe = 9,
    /// Directions in which iterations of the analyses start; index: the use.
    Analysis = 12,
    /// Resamples of feature rows; index: the resample, element: the draw.
    Bootstrap = 20,
    /// Subsets of the kernel distance; index: twice the subset, and 1 more for the other set.
    KidSubset = 21,
    /// Order of the images before the inception score splits them; index: 0.
    ScoreOrder = 22,
    /// Noise of the images that a packed file is calibrated by; index: the image.
    Calibration = 23,
    /// Noise of the trajectories that a net is tuned along; index: the trajectory.
    TuneNoise = 24,
    /// Points of a step of tuning; index: the step, element: the point.
    TuneBatch = 25,
    /// Patches of a layer's input in error-feedback rounding; index: tensor and batch, element: the draw.
    FeedbackPatch = 26,
    /// Times of points on paths to real images that a net is tuned at; index: the point.
    TuneTime = 27,
}

impl Domain {
    /// The random numbers of this use under `seed`.
    pub fn stream(self, seed: u64) -> Stream {
        Stream::new(seed, self as u32)
    }
}
