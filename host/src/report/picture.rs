//! A picture in memory, and the PNG of one or, animated, of several.

use std::io::{BufRead, Seek};

use anyhow::{Result, ensure};

/// Keyword and text by which a PNG says who wrote it.
const SOFTWARE: (&str, &str) = ("Software", "fmq");

/// Milliseconds that a frame of an animation is shown, and those of the last one.
const DELAY: (u16, u16) = (80, 1600);

/// Pixels of 8 bits a channel, line by line.
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Grey or RGB.
    pub(crate) color: png::ColorType,
    /// `[height, width, channels]`.
    pub(crate) pixels: Vec<u8>,
}

impl Picture {
    /// The picture in three channels; a grey one's are equal.
    pub(crate) fn rgb(self) -> Self {
        if self.color == png::ColorType::Rgb {
            return self;
        }
        let pixels = self.pixels.iter().flat_map(|&grey| [grey; 3]).collect();
        Self { color: png::ColorType::Rgb, pixels, ..self }
    }

    /// The picture as a PNG.
    pub(crate) fn png(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.encoder(&mut bytes)?.write_header()?.write_image_data(&self.pixels)?;
        Ok(bytes)
    }

    /// An encoder for pictures like this one.
    fn encoder<'a>(
        &self,
        bytes: &'a mut Vec<u8>,
    ) -> Result<png::Encoder<'static, &'a mut Vec<u8>>> {
        let mut encoder = png::Encoder::new(bytes, self.width, self.height);
        encoder.set_color(self.color);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.add_text_chunk(SOFTWARE.0.into(), SOFTWARE.1.into())?;
        Ok(encoder)
    }
}

/// An animated PNG of the pictures `frame(0)` to `frame(count - 1)`, shown again and again, the
/// last one longer; viewers that know no animation show the last.
///
/// # Errors
///
/// Those of `frame`; no frames, or frames of different sizes or colours.
pub(crate) fn animation(count: usize, frame: impl Fn(usize) -> Result<Picture>) -> Result<Vec<u8>> {
    ensure!(count > 0, "an animation needs at least 1 frame");
    let last = frame(count - 1)?;
    let mut bytes = Vec::new();
    let mut encoder = last.encoder(&mut bytes)?;
    encoder.set_animated(u32::try_from(count)?, 0)?;
    encoder.set_sep_def_img(true)?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&last.pixels)?;
    let kind = (last.width, last.height, last.color);
    for i in 0..count {
        let next = frame(i)?;
        let found = (next.width, next.height, next.color);
        ensure!(found == kind, "frame {i} is {found:?}, but the last {kind:?}");
        writer.set_frame_delay(if i + 1 == count { DELAY.1 } else { DELAY.0 }, 1000)?;
        writer.write_image_data(&next.pixels)?;
    }
    writer.finish()?;
    Ok(bytes)
}

/// Returns true if the source is a PNG that says it was written by this program.
pub(crate) fn is_ours(source: impl BufRead + Seek) -> bool {
    png::Decoder::new(source).read_info().is_ok_and(|reader| {
        let texts = &reader.info().uncompressed_latin1_text;
        texts.iter().any(|text| (text.keyword.as_str(), text.text.as_str()) == SOFTWARE)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn grey(pixels: [u8; 2]) -> Picture {
        Picture { width: 2, height: 1, color: png::ColorType::Grayscale, pixels: pixels.into() }
    }

    #[test]
    fn grey_becomes_three_equal_channels() {
        let rgb = grey([3, 9]).rgb();
        assert_eq!((rgb.color, &rgb.pixels[..]), (png::ColorType::Rgb, &[3, 3, 3, 9, 9, 9][..]));
        assert_eq!(rgb.rgb().pixels, [3, 3, 3, 9, 9, 9]);
    }

    #[test]
    fn animations_hold_every_frame_and_rest_on_the_last() {
        let bytes = animation(3, |i| Ok(grey([u8::try_from(i)?, 7]))).unwrap();
        let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().unwrap();
        assert_eq!(reader.info().animation_control.unwrap().num_frames, 3);
        let mut still = [0; 2];
        reader.next_frame(&mut still).unwrap();
        assert!(still == [2, 7] && reader.info().frame_control.is_none(), "no part of it");
        for i in 0..3 {
            let mut pixels = [0; 2];
            reader.next_frame(&mut pixels).unwrap();
            assert_eq!(pixels, [i, 7]);
            let control = reader.info().frame_control.unwrap();
            let (delay, unit) = (control.delay_num, control.delay_den);
            assert_eq!((delay, unit), (if i == 2 { 1600 } else { 80 }, 1000), "frame {i}");
        }
    }

    #[test]
    fn frames_that_differ_in_size_are_no_animation() {
        let frame = |i| Ok(if i == 0 { grey([1, 2]) } else { grey([1, 2]).rgb() });
        assert!(animation(2, frame).unwrap_err().to_string().contains("frame 0"));
        assert!(animation(0, frame).is_err());
    }

    #[test]
    fn only_our_own_pictures_are_ours() {
        assert!(is_ours(Cursor::new(grey([1, 2]).png().unwrap())));
        assert!(is_ours(Cursor::new(animation(2, |_| Ok(grey([1, 2]))).unwrap())));
        let mut bytes = Vec::new();
        let writer = png::Encoder::new(&mut bytes, 1, 1).write_header();
        writer.unwrap().write_image_data(&[0]).unwrap();
        assert!(!is_ours(Cursor::new(bytes)));
        assert!(!is_ours(Cursor::new("no picture")));
    }
}
