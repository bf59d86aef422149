//! Crops, and Pillow's box filter, bit for bit.
//!
//! That of Pillow up to version 12; version 13 goes down the columns of tall images first, which
//! changes some values by 1. A pixel of the result is the mean of the pixels whose centres lie in its box, first along rows,
//! then along columns. Pillow weighs each of the `n` pixels by `k = round(2^22 / n)` and rounds after
//! either pass: `(k Σ + 2^21) >> 22`.
//!
//! Source: Pillow, `src/libImaging/Resample.c`: `precompute_coeffs`, `box_filter`,
//! `normalize_coeffs_8bpc`, `ImagingResampleHorizontal_8bpc`.

use core::ops::Range;

use super::picture::DecodedImage;

/// Fraction bits of Pillow's weights.
const PRECISION: u32 = 32 - 8 - 2;

/// A rectangle of pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
}

impl Region {
    pub(super) fn whole(picture: &DecodedImage) -> Self {
        Self { rows: 0..picture.height, columns: 0..picture.width }
    }

    /// The square in the middle whose side is the shorter one, where torchvision's `CenterCrop`
    /// takes it: half pixels go to the even side.
    pub(super) fn square(picture: &DecodedImage) -> Self {
        let side = picture.height.min(picture.width);
        let middle = |len: usize| {
            let spare = len - side;
            let start = spare / 2 + usize::from(spare % 4 == 3);
            start..start + side
        };
        Self { rows: middle(picture.height), columns: middle(picture.width) }
    }

    pub(super) fn height(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn width(&self) -> usize {
        self.columns.len()
    }
}

/// Writes the region's pixels as planes, `[3, rows, columns]`.
pub(super) fn copy(picture: &DecodedImage, region: &Region, planes: &mut [u8]) {
    let area = region.height() * region.width();
    for (y, row) in rows(picture, region).enumerate() {
        spread(row, &mut planes[y * region.width()..], area);
    }
}

/// Writes the region, resized to `size` by `size` pixels, as planes, `[3, size, size]`.
pub(super) fn resize(picture: &DecodedImage, region: &Region, size: usize, planes: &mut [u8]) {
    let across = Window::all(region.width(), size);
    let mut narrow = Vec::with_capacity(region.height() * size);
    for row in rows(picture, region) {
        narrow.extend(across.iter().map(|window| {
            let mut sums = [0_u32; 3];
            for pixel in &row[window.pixels.clone()] {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += u32::from(value);
                }
            }
            sums.map(|sum| window.mean(sum))
        }));
    }
    let narrow = narrow.as_flattened();
    let (mut sums, mut row) = (vec![0_u32; size * 3], vec![[0; 3]; size]);
    for (y, window) in Window::all(region.height(), size).iter().enumerate() {
        sums.fill(0);
        let span = window.pixels.start * size * 3..window.pixels.end * size * 3;
        for pixels in narrow[span].chunks_exact(size * 3) {
            for (sum, &value) in sums.iter_mut().zip(pixels) {
                *sum += u32::from(value);
            }
        }
        for (value, &sum) in row.as_flattened_mut().iter_mut().zip(&sums) {
            *value = window.mean(sum);
        }
        spread(&row, &mut planes[y * size..], size * size);
    }
}

/// The region's rows of pixels.
fn rows<'a>(picture: &'a DecodedImage, region: &Region) -> impl Iterator<Item = &'a [[u8; 3]]> {
    let columns = region.columns.clone();
    let rows = picture.rgb[region.rows.start * picture.width..region.rows.end * picture.width]
        .chunks_exact(picture.width);
    rows.map(move |row| &row[columns.clone()])
}

/// A row of pixels into the same row of three planes of `area` pixels, which begins `planes`.
fn spread(row: &[[u8; 3]], planes: &mut [u8], area: usize) {
    for channel in 0..3 {
        let plane = &mut planes[channel * area..][..row.len()];
        for (value, pixel) in plane.iter_mut().zip(row) {
            *value = pixel[channel];
        }
    }
}

/// The pixels of a row or column whose mean is one pixel of the result.
struct Window {
    pixels: Range<usize>,
    /// One over their number, with [`PRECISION`] fraction bits.
    weight: u32,
}

impl Window {
    /// The windows of `to` pixels made of `from`.
    fn all(from: usize, to: usize) -> Vec<Self> {
        let scale = from as f64 / to as f64;
        // A box is never narrower than a pixel: enlarging repeats the nearest.
        let width = scale.max(1.0);
        let window = |x: usize| {
            let centre = (x as f64 + 0.5) * scale;
            let within = |i: &usize| {
                let offset = (*i as f64 - centre + 0.5) * (1.0 / width);
                offset > -0.5 && offset <= 0.5
            };
            let first = floor(centre - width * 0.5 + 0.5);
            let end = floor(centre + width * 0.5 + 0.5).min(from);
            let start = (first..end).find(within).unwrap_or(first);
            let len = (start..end).take_while(within).count();
            let weight = floor(0.5 + 1.0 / len as f64 * f64::from(1 << PRECISION));
            Self { pixels: start..start + len, weight: u32::try_from(weight).unwrap_or(0) }
        };
        (0..to).map(window).collect()
    }

    /// The mean of pixels with this sum.
    fn mean(&self, sum: u32) -> u8 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "below 256 for windows of up to 2^14 pixels, the longest side of a picture"
        )]
        let mean = ((sum * self.weight + (1 << (PRECISION - 1))) >> PRECISION) as u8;
        mean
    }
}

/// The integer at or below `x`, or 0 where that is negative.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a picture, or at most 2^22"
)]
fn floor(x: f64) -> usize {
    x as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn picture(width: usize, height: usize, pixel: impl Fn(usize) -> [u8; 3]) -> DecodedImage {
        DecodedImage { width, height, rgb: (0..width * height).map(pixel).collect() }
    }

    fn resized(picture: &DecodedImage, region: &Region, size: usize) -> Vec<u8> {
        let mut planes = vec![0; 3 * size * size];
        resize(picture, region, size, &mut planes);
        planes
    }

    /// A picture of noise that the golden values' script makes too.
    fn noise(width: usize, height: usize) -> DecodedImage {
        let value = |i: usize| (((i as u32).wrapping_mul(2_654_435_761) >> 13) & 0xff) as u8;
        picture(width, height, |i| [value(3 * i), value(3 * i + 1), value(3 * i + 2)])
    }

    #[test]
    fn equals_pillow() {
        // i = np.arange(w * h * 3, dtype=np.uint32)
        // im = Image.fromarray(((i * 2654435761 >> 13) & 255).astype(np.uint8).reshape(h, w, 3))
        // np.array(im.resize((s, s), Image.BOX)).transpose(2, 0, 1).ravel()
        let resized = |width, height, size| {
            let picture = noise(width, height);
            resized(&picture, &Region::whole(&picture), size)
        };
        assert_eq!(resized(7, 5, 2), [95, 104, 120, 108, 134, 150, 148, 126, 129, 110, 112, 143]);
        let enlarged = [0, 51, 51, 102, 154, 154, 205, 1, 1, 187, 239, 239, 34, 86];
        assert_eq!(resized(2, 3, 3)[..14], enlarged);
        for (width, height, size, hash) in [
            (500, 375, 64, 0x93ed_25cb_e3a8_039e),
            (178, 178, 64, 0xf791_771b_efed_1a4e),
            (333, 500, 64, 0x73df_b7e7_5b17_b02c),
            (64, 64, 64, 0x123a_c917_5d0e_edfb),
            (65, 127, 64, 0x2faa_30ec_33e0_fcdd),
            (100, 30, 64, 0x6ec2_8554_c726_17f7),
            (1, 1, 5, 0x23cb_55af_22ab_12f1),
            (1023, 769, 32, 0x17c9_1cf9_734f_e11b),
            (4000, 61, 64, 0xfa35_050f_0b4c_be74),
        ] {
            let planes = resized(width, height, size);
            let fnv = planes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &value| {
                (hash ^ u64::from(value)).wrapping_mul(0x0100_0000_01b3)
            });
            assert_eq!(fnv, hash, "{width} x {height} to {size}");
        }
    }

    #[test]
    fn squares_lie_in_the_middle_as_torchvision_puts_them() {
        for (spare, start) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (7, 4)] {
            let tall = Region::square(&picture(2, 2 + spare, |_| [0; 3]));
            assert_eq!(tall, Region { rows: start..start + 2, columns: 0..2 });
            let wide = Region::square(&picture(2 + spare, 2, |_| [0; 3]));
            assert_eq!(wide, Region { rows: 0..2, columns: start..start + 2 });
        }
    }

    #[test]
    fn a_region_is_resized_like_a_picture_of_its_own() {
        let whole = noise(9, 7);
        let region = Region { rows: 1..6, columns: 3..8 };
        let inner = picture(5, 5, |i| whole.rgb[(1 + i / 5) * 9 + 3 + i % 5]);
        let mut planes = vec![0; 75];
        copy(&whole, &region, &mut planes);
        assert_eq!(planes[..2], [inner.rgb[0][0], inner.rgb[1][0]]);
        assert_eq!(planes[25], inner.rgb[0][1]);
        assert_eq!(resized(&whole, &region, 5), planes);
        assert_eq!(resized(&whole, &region, 2), resized(&inner, &Region::whole(&inner), 2));
    }

    proptest! {
        #[test]
        fn a_constant_stays_constant(
            width in 1_usize..300, height in 1_usize..300, size in 1_usize..100, pixel: [u8; 3],
        ) {
            let picture = picture(width, height, |_| pixel);
            let planes = resized(&picture, &Region::whole(&picture), size);
            for (plane, value) in planes.chunks_exact(size * size).zip(pixel) {
                prop_assert!(plane.iter().all(|&v| v == value));
            }
        }

        #[test]
        fn windows_follow_each_other_up_to_a_tie(from in 1_usize..20_000, to in 1_usize..600) {
            let windows = Window::all(from, to);
            prop_assert!(windows.iter().all(|w| !w.pixels.is_empty() && w.pixels.end <= from));
            if from >= to {
                prop_assert_eq!(windows[0].pixels.start, 0);
                prop_assert_eq!(windows[to - 1].pixels.end, from);
                // A pixel just between two boxes may go, by rounding, to both or to none.
                let apart = |w: &[Window]| w[0].pixels.end.abs_diff(w[1].pixels.start);
                prop_assert!(windows.windows(2).all(|w| apart(w) <= 1));
            }
        }
    }
}
