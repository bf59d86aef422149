//! 8-bit images brought to the size that Inception takes, as three packages do it.
//!
//! | name | filter | source |
//! |---|---|---|
//! | `torchmetrics` | bilinear with antialiasing: torch's `interpolate(antialias=True)` | torchmetrics `image/fid.py` since 1.2 |
//! | `tf1` | bilinear of TensorFlow 1: the grids' corners coincide, not their centres | torch-fidelity `interpolate_compat_tensorflow.py` |
//! | `pytorch-fid` | bilinear without antialiasing: torch's `interpolate` | pytorch-fid `inception.py` |
//!
//! A distance between sets resized one way compares with no distance between sets resized another
//! way. The first and the last agree where images grow.
//!
//! All are separable: each line of the result is a weighted sum of a few lines of the image, each
//! column of a few columns. With `scale = from / to`, result `i` lies at
//!
//! ```text
//! tf1                       x = scale i              weights 1 - d, d at floor x and the next, d = x - floor x
//! pytorch-fid               x = scale (i + 1/2) - 1/2, at least 0; weights alike
//! torchmetrics              x = scale (i + 1/2) - 1/2; weights max(0, 1 - |x - j| / max(scale, 1)),
//!                           j inside of the image, divided by their sum
//! ```

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use strum::{Display, EnumString, IntoStaticStr, VariantNames};

use crate::error::{Error, Result};

/// Rows and columns of an image as Inception takes it.
pub const SIDE: usize = 299;
/// Channels of an image as Inception takes it.
const RGB: usize = 3;

/// The filter that resizes images to Inception's input; see the module.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Display, EnumString, IntoStaticStr, VariantNames,
)]
#[strum(serialize_all = "kebab-case", parse_err_ty = Error, parse_err_fn = unknown)]
pub enum Resize {
    /// The filter of torchmetrics, and so of upstream's training.
    #[default]
    Torchmetrics,
    /// The filter of TensorFlow 1, and so of torch-fidelity and the numbers of older papers.
    Tf1,
    /// The filter of pytorch-fid.
    PytorchFid,
}

impl Resize {
    /// Name on the command line and in results.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The images as Inception takes them, their channels last: `(x - 128) / 128`, or
    /// `2 x / 255 - 1` in pytorch-fid's way; of grey ones the channel three times.
    ///
    /// # Shapes
    /// `pixels: [n, channels, height, width]` of `shape = [channels, height, width]`, result
    /// `[n, SIDE, SIDE, 3]`
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a shape that is not of grey or RGB images, or that does not divide
    /// `pixels`.
    pub fn input(self, pixels: &[u8], shape: [usize; 3], device: &Device) -> Result<Tensor> {
        let [channels, height, width] = shape;
        let len = channels * height * width;
        if !matches!(channels, 1 | RGB) || len == 0 || !pixels.len().is_multiple_of(len) {
            return Err(Error::Config(format!(
                "Inception takes grey or RGB images, not {channels} channels of {height} x {width} \
                 in {} bytes",
                pixels.len()
            )));
        }
        let taps = [self.taps(height), self.taps(width)];
        let n = pixels.len() / len;
        let mut values = vec![0.0; n * SIDE * SIDE * RGB];
        let images = values.par_chunks_mut(SIDE * SIDE * RGB).zip(pixels.par_chunks(len));
        images.for_each(|(out, image)| self.image(image, shape, &taps, out));
        Ok(Tensor::from_vec(values, (n, SIDE, SIDE, RGB), device)?)
    }

    /// Resizes one image, stored plane by plane, to `out: [SIDE, SIDE, 3]`.
    fn image(
        self,
        image: &[u8],
        [channels, height, width]: [usize; 3],
        [lines, columns]: &[Vec<Taps>; 2],
        out: &mut [f32],
    ) {
        let (factor, offset) = match self {
            Self::PytorchFid => (2.0 / 255.0, -1.0),
            Self::Torchmetrics | Self::Tf1 => (1.0 / 128.0, -1.0),
        };
        let mut narrow = vec![0.0; height * SIDE];
        let mut line = [0.0; SIDE];
        for (channel, plane) in image.chunks_exact(height * width).enumerate() {
            for (narrow, row) in narrow.chunks_exact_mut(SIDE).zip(plane.chunks_exact(width)) {
                for (value, taps) in narrow.iter_mut().zip(columns) {
                    let pixels = row[taps.first..].iter().zip(&taps.weights);
                    *value = pixels.map(|(&pixel, weight)| f32::from(pixel) * weight).sum();
                }
            }
            for (out, taps) in out.chunks_exact_mut(SIDE * RGB).zip(lines) {
                line.fill(0.0);
                let rows = narrow[taps.first * SIDE..].chunks_exact(SIDE);
                for (row, weight) in rows.zip(&taps.weights) {
                    line.iter_mut().zip(row).for_each(|(sum, value)| *sum += value * weight);
                }
                for (pixel, value) in out.chunks_exact_mut(RGB).zip(line) {
                    pixel[channel] = value * factor + offset;
                }
            }
        }
        if channels == 1 {
            for pixel in out.chunks_exact_mut(RGB) {
                pixel.fill(pixel[0]);
            }
        }
    }

    /// The pixels and weights of each of [`SIDE`] results along a side of `from` pixels.
    #[expect(clippy::cast_possible_truncation, reason = "weights are found in f64, used in f32")]
    fn taps(self, from: usize) -> Vec<Taps> {
        // The packages round these products to f32, which moves pixels by up to 5e-3 of 255.
        let scale = from as f32 / SIDE as f32;
        let corner = |i: usize| f64::from(scale * i as f32);
        let centre = |i: usize| f64::from(scale * (i as f32 + 0.5)) - 0.5;
        let between = |x: f64| {
            let first = floor(x).min(from - 1);
            let right = x - first as f64;
            let weights = [1.0 - right, right].map(|weight| weight as f32);
            // The last pixel has no next one.
            let weights = if first + 1 < from { weights.into() } else { vec![1.0] };
            Taps { first, weights }
        };
        let at = |i: usize| match self {
            Self::Tf1 => between(corner(i)),
            Self::PytorchFid => between(centre(i).max(0.0)),
            Self::Torchmetrics => {
                let (x, reach) = (centre(i), f64::from(scale).max(1.0));
                let first = floor((x - reach).max(-1.0) + 1.0);
                let last = floor(x + reach).min(from - 1);
                let weight = |j: usize| (1.0 - (x - j as f64).abs() / reach).max(0.0);
                let sum: f64 = (first..=last).map(weight).sum();
                let weights = (first..=last).map(|j| (weight(j) / sum) as f32).collect();
                Taps { first, weights }
            }
        };
        (0..SIDE).map(at).collect()
    }
}

fn unknown(name: &str) -> Error {
    let known = Resize::VARIANTS.join(", ");
    Error::Config(format!("unknown way to resize `{name}`; known are {known}"))
}

/// The pixels along a side that one result is made of.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in an image: at least 0 and far below 2^53"
)]
fn floor(x: f64) -> usize {
    x.floor() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The net's input for a grey line of pixels, as pixels again.
    fn line(how: Resize, pixels: &[u8]) -> Vec<f32> {
        let x = how.input(pixels, [1, 1, pixels.len()], &Device::Cpu).unwrap();
        assert_eq!(x.dims(), [1, SIDE, SIDE, 3]);
        let rows = x.squeeze(0).unwrap().to_vec3::<f32>().unwrap();
        assert!(rows.iter().all(|row| *row == rows[0]), "one line becomes many alike");
        let grey = |pixel: &Vec<f32>| {
            assert!(pixel.iter().all(|value| *value == pixel[0]));
            if how == Resize::PytorchFid {
                (pixel[0] + 1.0) * 127.5
            } else {
                (pixel[0] + 1.0) * 128.0
            }
        };
        rows[0].iter().map(grey).collect()
    }

    fn assert_close(found: f32, expected: f32) {
        assert!((found - expected).abs() < 1e-3, "{found}, not {expected}");
    }

    #[test]
    fn images_of_the_size_stay_as_they_are() {
        let pixels: Vec<u8> = (0..SIDE).map(|i| (i * 7 % 256) as u8).collect();
        for how in [Resize::Torchmetrics, Resize::Tf1, Resize::PytorchFid] {
            for (found, &pixel) in line(how, &pixels).iter().zip(&pixels) {
                assert_close(*found, f32::from(pixel));
            }
        }
    }

    #[test]
    fn corners_or_centres_coincide() {
        // Two pixels become 299: TensorFlow puts the second at 149.5, the others at 3/4 of the way.
        let tf1 = line(Resize::Tf1, &[0, 200]);
        assert_close(tf1[0], 0.0);
        assert_close(tf1[100], 200.0 * 100.0 / 149.5);
        assert_close(tf1[150], 200.0);
        for how in [Resize::Torchmetrics, Resize::PytorchFid] {
            let found = line(how, &[0, 200]);
            assert_close(found[74], 0.0);
            assert_close(found[149], 100.0);
            assert_close(found[100], 200.0 * (2.0 * 100.5 / 299.0 - 0.5));
            assert_close(found[298], 200.0);
        }
    }

    #[test]
    fn antialiasing_averages_where_images_shrink() {
        // Stripes of one pixel, ten times too many: only the wide filter sees both colours.
        let pixels: Vec<u8> = (0..SIDE * 10).map(|i| if i % 2 == 0 { 0 } else { 200 }).collect();
        for found in &line(Resize::Torchmetrics, &pixels)[1..298] {
            assert_close(*found, 100.0);
        }
        assert_close(line(Resize::Tf1, &pixels)[7], 0.0);
        assert_close(line(Resize::PytorchFid, &pixels)[7], 100.0);
    }

    #[test]
    fn one_pixel_and_colours() {
        for how in [Resize::Torchmetrics, Resize::Tf1, Resize::PytorchFid] {
            assert!(line(how, &[77]).iter().all(|value| (value - 77.0).abs() < 1e-3));
            let x = how.input(&[0, 255, 102], [3, 1, 1], &Device::Cpu).unwrap();
            let pixel =
                x.get(0).unwrap().get(9).unwrap().get(280).unwrap().to_vec1::<f32>().unwrap();
            let (black, white) =
                if how == Resize::PytorchFid { (-1.0, 1.0) } else { (-1.0, 127.0 / 128.0) };
            assert_close(pixel[0], black);
            assert_close(pixel[1], white);
        }
    }

    #[test]
    fn refuses_what_is_no_image() {
        let how = Resize::default();
        for (pixels, shape) in [(4, [2, 1, 2]), (4, [3, 1, 1]), (0, [1, 0, 3])] {
            let error = how.input(&vec![0; pixels], shape, &Device::Cpu).unwrap_err().to_string();
            assert!(error.contains("grey or RGB"), "{error}");
        }
    }
}
