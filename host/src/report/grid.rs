//! Many small images as one PNG.

use anyhow::{Context, Result, ensure};

use super::picture::Picture;

/// Pixels between neighbouring images.
const GAP: usize = 2;

/// Grey of the gaps, and of the places that a last row leaves empty.
const BACKGROUND: u8 = 0xff;

/// The PNG of what [`draw`] draws.
///
/// # Errors
///
/// Those of [`draw`].
pub(crate) fn png(
    pixels: &[u8],
    shape: [usize; 4],
    columns: usize,
    scale: usize,
) -> Result<Vec<u8>> {
    draw(pixels, shape, columns, scale)?.png()
}

/// Draws images in rows of `columns`, each pixel as `scale × scale`.
///
/// The picture is `columns (w·scale + 2) − 2` wide, grey for one channel and RGB for three.
///
/// # Shapes
///
/// `pixels`: `[n, h, w, c]` of `shape`, with `c` 1 or 3.
///
/// # Errors
///
/// When `pixels` does not have that shape, a side, `columns` or `scale` is 0, `c` is neither 1 nor
/// 3, or the picture would be too large for a PNG.
pub(crate) fn draw(
    pixels: &[u8],
    shape: [usize; 4],
    columns: usize,
    scale: usize,
) -> Result<Picture> {
    let [n, h, w, c] = shape;
    let color = match c {
        1 => png::ColorType::Grayscale,
        3 => png::ColorType::Rgb,
        _ => anyhow::bail!("an image grid shows 1 or 3 channels, not {c}"),
    };
    ensure!(!shape.contains(&0), "an image grid needs images, not {n} of {h} x {w}");
    ensure!(columns > 0 && scale > 0, "an image grid needs columns and scale of at least 1");
    let expected = [h, w, c].iter().try_fold(n, |size, &side| size.checked_mul(side));
    ensure!(
        expected == Some(pixels.len()),
        "{} pixels are not {n} images of {h} x {w} x {c}",
        pixels.len()
    );

    let columns = columns.min(n);
    let (width, height) = extent(w, columns, scale)
        .zip(extent(h, n.div_ceil(columns), scale))
        .with_context(|| format!("{n} images of {h} x {w} at scale {scale} exceed a PNG"))?;
    let size = (width as usize)
        .checked_mul(height as usize)
        .and_then(|area| area.checked_mul(c))
        .with_context(|| format!("a picture of {width} x {height} exceeds memory"))?;

    let mut canvas = vec![BACKGROUND; size];
    let stride = width as usize * c;
    for (i, image) in pixels.chunks_exact(h * w * c).enumerate() {
        let (top, left) = (i / columns * (h * scale + GAP), i % columns * (w * scale + GAP));
        for y in 0..h * scale {
            let source = &image[y / scale * w * c..][..w * c];
            let target = &mut canvas[(top + y) * stride + left * c..][..w * scale * c];
            for (block, pixel) in target.chunks_exact_mut(scale * c).zip(source.chunks_exact(c)) {
                block.chunks_exact_mut(c).for_each(|to| to.copy_from_slice(pixel));
            }
        }
    }
    Ok(Picture { width, height, color, pixels: canvas })
}

/// Length of `count` images of `side` pixels with gaps between, if it fits a PNG's 31 bits.
fn extent(side: usize, count: usize, scale: usize) -> Option<u32> {
    let pitch = side.checked_mul(scale)?.checked_add(GAP)?;
    let length = pitch.checked_mul(count)? - GAP;
    i32::try_from(length).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Width, height, channels and pixels of a PNG.
    fn decode(bytes: &[u8]) -> (u32, u32, usize, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        pixels.truncate(info.buffer_size());
        (info.width, info.height, info.color_type.samples(), pixels)
    }

    #[test]
    fn grey_images_lie_row_by_row_with_gaps() {
        let bytes = png(&[1, 2, 3, 4, 5, 6], [3, 1, 2, 1], 2, 1).unwrap();
        let (width, height, channels, pixels) = decode(&bytes);
        assert_eq!((width, height, channels), (6, 4, 1));
        let blank = [255; 6];
        assert_eq!(pixels[..6], [1, 2, 255, 255, 3, 4]);
        assert_eq!(pixels[6..12], blank);
        assert_eq!(pixels[12..18], blank);
        assert_eq!(pixels[18..], [5, 6, 255, 255, 255, 255]);
    }

    #[test]
    fn scale_repeats_pixels_and_keeps_colour() {
        let red_blue = [255, 0, 0, 0, 0, 255];
        let (width, height, channels, pixels) =
            decode(&png(&red_blue, [1, 1, 2, 3], 8, 2).unwrap());
        assert_eq!((width, height, channels), (4, 2, 3));
        let row = [255, 0, 0, 255, 0, 0, 0, 0, 255, 0, 0, 255];
        assert_eq!(pixels, [row, row].concat());
    }

    #[test]
    fn refuses_what_it_cannot_draw() {
        let message = |pixels, shape, columns, scale| {
            png(&vec![0; pixels], shape, columns, scale).unwrap_err().to_string()
        };
        assert!(message(5, [1, 2, 3, 1], 1, 1).contains("5 pixels"));
        assert!(message(0, [0, 2, 3, 1], 1, 1).contains("0 of 2 x 3"));
        assert!(message(12, [1, 2, 3, 2], 1, 1).contains("not 2"));
        assert!(message(6, [1, 2, 3, 1], 0, 1).contains("at least 1"));
        assert!(message(6, [1, 2, 3, 1], 1, 0).contains("at least 1"));
        assert!(message(6, [1, 2, 3, 1], 1, 1 << 30).contains("exceed"));
        assert!(message(0, [1, usize::MAX, 2, 3], 1, 1).contains("pixels are not"));
    }
}
