//! The columns of each table, by what it is about.

use fm_candle::eval::bounds::Bounds;
use fm_candle::eval::inversion::Inversion;
use fm_candle::eval::latent::Latent;

use super::column::Better::{Higher, Lower};
use super::column::Column;
use super::column::Digits::{Fixed, Significant};
use super::{Row, Summary};

/// The columns of the main table: the sizes of a row, then its quality.
pub(super) fn results(summary: &Summary) -> Vec<Column<'_, Row>> {
    vec![
        Column::new(
            "bits/weight",
            "Size of the packed file in bits per weight, codebooks included",
            Fixed(3),
            |row: &Row| Some(row.bits_per_weight),
        )
        .better(Lower),
        Column::new(
            "packed kB",
            "Size of the packed file, 1 kB = 1000 bytes",
            Fixed(1),
            |row: &Row| Some(row.packed_bytes as f64 / 1000.0),
        ),
        Column::new(
            "ratio",
            "Size of the f32 weights over that of the packed file",
            Fixed(2),
            |row: &Row| Some(row.ratio),
        ),
        Column::new(
            "SQNR dB",
            "Signal to quantization noise of the weights",
            Fixed(2),
            |row: &Row| Some(row.sqnr_db),
        )
        .better(Higher),
        Column::new(
            "PSNR dB",
            "Samples against those of full precision from the same noise",
            Fixed(2),
            |row: &Row| Some(row.psnr_db),
        )
        .better(Higher)
        .error(|row| row.psnr_error),
        Column::new(
            "SSIM",
            "Structural similarity of the same pairs of samples",
            Fixed(4),
            |row: &Row| row.ssim,
        )
        .better(Higher),
        Column::new(
            &summary.fid_label,
            "Fréchet distance to the reference set",
            Fixed(2),
            |row: &Row| Some(row.fid),
        )
        .better(Lower)
        .error(|row| row.fid_error),
        Column::new(
            "seconds",
            "Wall-clock time to quantize, sample and score",
            Fixed(1),
            |row: &Row| Some(row.seconds),
        ),
    ]
}

/// Further comparisons with full precision.
pub(super) fn pairs<'a>() -> Vec<Column<'a, Row>> {
    vec![
        Column::new(
            "weight MSE",
            "Mean squared error of the weights",
            Significant(3),
            |row: &Row| Some(row.mse),
        )
        .better(Lower),
        Column::new(
            "mean PSNR dB",
            "Mean over the samples of each one's PSNR against that of full precision",
            Fixed(2),
            |row: &Row| row.mean_psnr_db,
        )
        .better(Higher),
        Column::new(
            "feature distance",
            "Mean squared distance of paired samples in unit-length features, 0 to 4",
            Significant(3),
            |row: &Row| row.feature_distance,
        )
        .better(Lower),
        Column::new(
            "velocity PSNR dB",
            "The paper's comparison: one velocity at t = 0 of real images, peak 1",
            Fixed(2),
            |row: &Row| row.velocity_psnr_db,
        )
        .better(Higher),
        Column::new(
            "velocity SSIM",
            "Structural similarity of the same velocities",
            Fixed(4),
            |row: &Row| row.velocity_ssim,
        )
        .better(Higher),
    ]
}

/// The columns on the variances of the bottleneck's latents.
pub(super) fn latent<'a>() -> Vec<Column<'a, Latent>> {
    vec![
        Column::new(
            "own mean",
            "Mean of the variances along the net's own principal components, as the paper has it",
            Significant(4),
            |latent: &Latent| Some(latent.own.mean),
        ),
        Column::new(
            "own std",
            "Standard deviation of these variances",
            Significant(4),
            |latent: &Latent| Some(latent.own.std),
        ),
        Column::new(
            "own collapsed",
            "How many of them are below 1e-4",
            Fixed(0),
            |latent: &Latent| Some(latent.own.collapsed as f64),
        ),
        Column::new(
            "common mean",
            "Mean of the variances along the components of full precision: comparable between nets",
            Significant(4),
            |latent: &Latent| Some(latent.common.mean),
        ),
        Column::new(
            "common std",
            "Standard deviation of these variances",
            Significant(4),
            |latent: &Latent| Some(latent.common.std),
        ),
        Column::new(
            "common collapsed",
            "How many of them are below 1e-4",
            Fixed(0),
            |latent: &Latent| Some(latent.common.collapsed as f64),
        ),
        Column::new(
            "dead units",
            "Units of mean magnitude below 1e-3",
            Fixed(0),
            |latent: &Latent| Some(latent.dead as f64),
        ),
        Column::new(
            "constant units",
            "Units with fewer than three distinct values",
            Fixed(0),
            |latent: &Latent| Some(latent.constant as f64),
        ),
    ]
}

/// The columns on the noise that the backward ODE finds for real images.
pub(super) fn inversion<'a>() -> Vec<Column<'a, Inversion>> {
    vec![
        Column::new(
            "mean",
            "Mean of all elements; 0 of normal noise",
            Fixed(4),
            |it: &Inversion| Some(it.mean),
        ),
        Column::new(
            "variance",
            "Variance of all elements; 1 of normal noise",
            Fixed(4),
            |it: &Inversion| Some(it.variance),
        ),
        Column::new(
            "excess kurtosis",
            "Excess kurtosis of all elements; 0 of normal noise",
            Fixed(3),
            |it: &Inversion| Some(it.kurtosis),
        ),
        Column::new(
            "KS",
            "Kolmogorov-Smirnov distance to the standard normal, 0 to 1",
            Fixed(4),
            |it: &Inversion| Some(it.ks),
        ),
        Column::new(
            "rejected %",
            "Coordinates that the Jarque-Bera test over the images rejects as normal at 5 %; \
             about 5 of normal noise",
            Fixed(1),
            |it: &Inversion| Some(100.0 * it.rejected),
        ),
        Column::new(
            "round trip dB",
            "PSNR of the images that the noise leads back to, peak 2",
            Fixed(2),
            |it: &Inversion| Some(it.round_trip_psnr_db),
        ),
        Column::new(
            "drift",
            "Root mean square difference to the noise that full precision finds",
            Fixed(4),
            |it: &Inversion| Some(it.drift),
        )
        .better(Lower),
    ]
}

/// The error of samples beside its bounds.
pub(super) fn bounds<'a>() -> Vec<Column<'a, Bounds>> {
    vec![
        Column::new(
            "|Δθ|",
            "Norm of the change of all weights",
            Significant(3),
            |it: &Bounds| Some(it.weights),
        )
        .better(Lower),
        Column::new(
            "error",
            "Root mean square error of the samples, in the norm of an image",
            Significant(3),
            |it: &Bounds| Some(it.error),
        )
        .better(Lower),
        Column::new(
            "from velocity",
            "Grönwall's bound from the measured error of the velocity",
            Significant(3),
            |it: &Bounds| Some(it.from_velocity),
        ),
        Column::new(
            "times error",
            "That bound over the measured error: 1 would be tight",
            Significant(2),
            |it: &Bounds| Some(it.from_velocity / it.error),
        ),
        Column::new(
            "from weights",
            "Grönwall's bound from the change of the weights",
            Significant(3),
            |it: &Bounds| Some(it.from_weights),
        ),
        Column::new(
            "times error",
            "That bound over the measured error: 1 would be tight",
            Significant(2),
            |it: &Bounds| Some(it.from_weights / it.error),
        ),
    ]
}
