//! JPEG, PNG, WebP, BMP, PNM and TIFF files as RGB pixels of 8 bits.
//!
//! Colours follow Pillow's `convert("RGB")`: grey is repeated, a palette looked up, CMYK multiplied
//! out, alpha dropped and not blended, 16 bits cut to their upper 8 (where Pillow lets grey ones
//! saturate, which leaves a white image). Of several frames the first is taken; EXIF's orientation
//! is not obeyed.

use std::io::Cursor;

use image_webp::WebPDecoder;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use self::pixels::{MAX_MEMORY, limited};

mod bmp;
mod pixels;
mod pnm;
mod tiff;

pub(super) use self::pixels::{DecodedImage, MAX_SIDE};

impl DecodedImage {
    /// Decodes a file, whatever it is called.
    ///
    /// # Errors
    ///
    /// The reason why it cannot be decoded.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let decode = decoder(bytes).ok_or("is neither JPEG, PNG, WebP, BMP, PNM nor TIFF")?;
        decode(bytes)
    }
}

/// Returns true if `head`, the first 18 bytes of a file, is that of a picture.
pub(super) fn is_picture(head: &[u8]) -> bool {
    decoder(head).is_some()
}

/// A decoder of one file format.
type Decoder = fn(&[u8]) -> Result<DecodedImage, String>;

/// The decoder of a file, told by its first bytes.
fn decoder(head: &[u8]) -> Option<Decoder> {
    Some(if head.starts_with(b"\xff\xd8\xff") {
        jpeg
    } else if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        png
    } else if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        webp
    } else if bmp::begins(head) {
        bmp::decode
    } else if pnm::begins(head) {
        pnm::decode
    } else if tiff::begins(head) {
        tiff::decode
    } else {
        return None;
    })
}

fn jpeg(bytes: &[u8]) -> Result<DecodedImage, String> {
    // The decoder does not miss the end of the last row of blocks.
    let ends = bytes.windows(2).rev().find_map(|pair| match pair {
        b"\xff\xd9" => Some(true),  // the end of the image
        b"\xff\xda" => Some(false), // the start of its last scan
        _ => None,
    });
    if ends != Some(true) {
        return Err("damaged JPEG: it is cut off".into());
    }
    // Strict, or what follows damaged data would be grey.
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let damaged = |error| format!("damaged JPEG: {error}");
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged)?;
    let (width, height) = decoder.dimensions().ok_or("damaged JPEG: it has no size")?;
    let size = limited(width, height)?;
    let mut rgb = vec![[0; 3]; width * height];
    decoder.decode_into(rgb.as_flattened_mut()).map_err(damaged)?;
    let [width, height] = size;
    Ok(DecodedImage { width, height, rgb })
}

fn png(bytes: &[u8]) -> Result<DecodedImage, String> {
    let damaged = |error| format!("damaged PNG: {error}");
    let limits = png::Limits { bytes: MAX_MEMORY };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let info = reader.info();
    let size = limited(info.width as usize, info.height as usize)?;
    let channels = reader.output_color_type().0.samples();
    let mut pixels = vec![0; size[0] * size[1] * channels];
    reader.next_frame(&mut pixels).map_err(damaged)?;
    DecodedImage::new(size, channels, &pixels)
}

fn webp(bytes: &[u8]) -> Result<DecodedImage, String> {
    let damaged = |error| format!("damaged WebP: {error}");
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
    decoder.set_memory_limit(MAX_MEMORY);
    let (width, height) = decoder.dimensions();
    let size = limited(width as usize, height as usize)?;
    let channels = if decoder.has_alpha() { 4 } else { 3 };
    let mut pixels = vec![0; size[0] * size[1] * channels];
    decoder.read_image(&mut pixels).map_err(damaged)?;
    DecodedImage::new(size, channels, &pixels)
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, GenericImageView, ImageFormat};

    use super::*;

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn complaint(bytes: &[u8]) -> String {
        DecodedImage::decode(bytes).err().unwrap()
    }

    /// A smooth picture, 20 x 12.
    fn smooth() -> DynamicImage {
        let pixel =
            |x: u32, y: u32| image::Rgb([x * 12, y * 20, 255 - x * 6 - y * 6].map(|v| v as u8));
        image::RgbImage::from_fn(20, 12, pixel).into()
    }

    /// The PNG of these rows, each with its filter byte, of a colour type at a depth.
    fn png(color: png::ColorType, depth: png::BitDepth, width: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, 1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == png::ColorType::Indexed {
            encoder.set_palette(vec![1, 2, 3, 40, 50, 60]);
            encoder.set_trns(vec![0, 255]);
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        bytes
    }

    #[test]
    fn lossless_formats_keep_every_pixel() {
        let image = smooth();
        for format in [ImageFormat::Png, ImageFormat::WebP] {
            for image in [image.clone(), image.to_rgba8().into()] {
                let picture = DecodedImage::decode(&encoded(&image, format)).unwrap();
                assert_eq!((picture.width, picture.height), (20, 12));
                assert_eq!(picture.rgb.as_flattened(), image.to_rgb8().as_raw(), "{format:?}");
            }
        }
    }

    #[test]
    fn jpegs_come_near_their_pixels() {
        for image in [smooth(), smooth().to_luma8().into()] {
            let picture = DecodedImage::decode(&encoded(&image, ImageFormat::Jpeg)).unwrap();
            assert_eq!((picture.width, picture.height), (20, 12));
            for (x, y, pixel) in DynamicImage::from(image.to_rgb8()).pixels() {
                let found = picture.rgb[y as usize * 20 + x as usize];
                assert!(found.iter().zip(pixel.0).all(|(&a, b)| a.abs_diff(b) < 30), "{x} {y}");
            }
        }
    }

    #[test]
    fn every_kind_of_png_becomes_rgb_as_in_pillow() {
        use png::{BitDepth as Depth, ColorType as Color};
        for (color, depth, width, data, rgb) in [
            (
                Color::Grayscale,
                Depth::Two,
                4,
                &[0x1b][..],
                &[[0; 3], [85; 3], [170; 3], [255; 3]][..],
            ),
            (Color::Grayscale, Depth::Sixteen, 2, &[1, 255, 254, 0], &[[1; 3], [254; 3]]),
            (Color::GrayscaleAlpha, Depth::Eight, 2, &[10, 100, 200, 0], &[[10; 3], [200; 3]]),
            (Color::GrayscaleAlpha, Depth::Sixteen, 1, &[1, 127, 0, 7], &[[1; 3]]),
            (Color::Rgb, Depth::Sixteen, 1, &[0, 255, 1, 0, 128, 128], &[[0, 1, 128]]),
            (Color::Rgba, Depth::Eight, 1, &[9, 8, 7, 0], &[[9, 8, 7]]),
            (Color::Indexed, Depth::One, 2, &[0x40], &[[1, 2, 3], [40, 50, 60]]),
        ] {
            let picture = DecodedImage::decode(&png(color, depth, width, data)).unwrap();
            assert_eq!(picture.rgb, rgb, "{color:?} {depth:?}");
        }
    }

    #[test]
    fn every_cut_of_a_file_is_an_error() {
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Jpeg] {
            let whole = encoded(&smooth(), format);
            // Nothing is lost with a PNG's last checksum and end marker.
            let needed = whole.len() - if format == ImageFormat::Png { 16 } else { 0 };
            for end in 0..needed {
                assert!(DecodedImage::decode(&whole[..end]).is_err(), "{format:?} {end}");
            }
        }
        assert_eq!(complaint(b"BM"), "is neither JPEG, PNG, WebP, BMP, PNM nor TIFF");
        assert_eq!(complaint(b"RIFF\0\0\0\0WAVE"), "is neither JPEG, PNG, WebP, BMP, PNM nor TIFF");
    }

    #[test]
    fn no_byte_changed_makes_a_panic() {
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Jpeg] {
            let whole = encoded(&smooth(), format);
            for at in 0..whole.len() {
                for flip in [0xff, 0x01, 0x80] {
                    let mut bytes = whole.clone();
                    bytes[at] ^= flip;
                    let _ = DecodedImage::decode(&bytes);
                }
            }
        }
    }

    #[test]
    fn vast_sizes_are_refused_by_their_headers() {
        let mut jpeg = encoded(&smooth(), ImageFormat::Jpeg);
        let frame = jpeg.windows(2).position(|bytes| bytes == b"\xff\xc0").unwrap();
        jpeg[frame + 5..frame + 9].fill(0xff);
        assert!(complaint(&jpeg).starts_with("is 65535 x 65535; at most 16384"));
        let wide = png::ColorType::Grayscale;
        let wide = png(wide, png::BitDepth::One, 1 << 15, &[0; 1 << 12]);
        assert!(complaint(&wide).starts_with("is 32768 x 1;"), "{}", complaint(&wide));
    }
}
