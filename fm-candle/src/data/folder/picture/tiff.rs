//! TIFF: the first image of a file, through the crate `tiff`.
//!
//! It follows Pillow: of samples of 16 bits the upper 8 count (of grey ones too, which Pillow lets
//! saturate), premultiplied alpha is divided out, other samples beside the colours are dropped, and
//! the orientation is obeyed. Floats and signed numbers have no agreed range and are refused.
//!
//! Source: Pillow, `TiffImagePlugin.py`, `Convert.c`, `Unpack.c`.

use std::borrow::Cow;
use std::io::Cursor;

use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;

use super::pixels::{DecodedImage, MAX_MEMORY, cmyk, limited, sample};

/// Values of the tag `PhotometricInterpretation`.
const BLACK_IS_ZERO: u8 = 1;
const PALETTE: u16 = 3;
/// Values of the tag `ExtraSamples`: nobody knows what, alpha that the colours are multiplied by, and
/// alpha.
const UNSPECIFIED: u16 = 0;
const PREMULTIPLIED: u16 = 1;
const ALPHA: u8 = 2;
/// A value of the tag `Predictor`: a sample is the difference from the one before.
const HORIZONTAL: u16 = 2;
/// A value of the tag `Compression`.
const JPEG: u16 = 7;

/// Returns true if a file with these first bytes is a TIFF, in either byte order, with offsets of 4
/// or 8 bytes.
pub(super) fn begins(bytes: &[u8]) -> bool {
    [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"].iter().any(|magic| bytes.starts_with(*magic))
}

/// Decodes a file.
pub(super) fn decode(bytes: &[u8]) -> Result<DecodedImage, String> {
    read(bytes).map_err(|reason| format!("damaged or unknown TIFF: {reason}"))
}

fn read(bytes: &[u8]) -> Result<DecodedImage, String> {
    let said = |error: tiff::TiffError| error.to_string();
    let mut bytes = Cow::Borrowed(bytes);
    let mut decoder = Decoder::new(Cursor::new(&*bytes)).map_err(said)?;
    let mut tag = |tag| -> Result<Vec<u16>, String> {
        Ok(decoder.find_tag_unsigned_vec(tag).map_err(said)?.unwrap_or_default())
    };
    let first = |values: Vec<u16>| values.first().copied();
    let extra = first(tag(Tag::ExtraSamples)?);
    let orientation = first(tag(Tag::Orientation)?).unwrap_or(1);
    let stored = first(tag(Tag::SamplesPerPixel)?).unwrap_or(1);
    let predictor = first(tag(Tag::Predictor)?);
    let jpeg = first(tag(Tag::Compression)?) == Some(JPEG);
    let palette = match first(tag(Tag::PhotometricInterpretation)?) {
        Some(PALETTE) => Some(tag(Tag::ColorMap)?),
        _ => None,
    };
    // The decoder knows no palettes: let it take the indices for grey. And it shall not take out a
    // sample itself, as differences would then be those of the wrong samples.
    let changed = if palette.is_some() {
        retagged(&bytes, Tag::PhotometricInterpretation, BLACK_IS_ZERO)
    } else if extra == Some(UNSPECIFIED) {
        retagged(&bytes, Tag::ExtraSamples, ALPHA)
    } else {
        None
    };
    if let Some(changed) = changed {
        bytes = Cow::Owned(changed);
    }
    let mut limits = Limits::default();
    (limits.decoding_buffer_size, limits.intermediate_buffer_size) = (MAX_MEMORY, MAX_MEMORY);
    let mut decoder = Decoder::new(Cursor::new(&*bytes)).map_err(said)?.with_limits(limits);

    let (width, height) = decoder.dimensions().map_err(said)?;
    let [width, height] = limited(width as usize, height as usize)?;
    let color = decoder.colortype().map_err(said)?;
    let samples = color.num_samples();
    if stored != samples && predictor == Some(HORIZONTAL) || stored == 2 && jpeg {
        return Err(format!("{stored} samples as {color:?}, so compressed, are not read"));
    }

    let depth = color.bit_depth();
    if !matches!(depth, 1 | 2 | 4 | 8 | 16) {
        return Err(format!("{color:?}; unsigned samples of 1, 2, 4, 8 and 16 bits are read"));
    }

    let mut result = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut result).map_err(said)?;
    let values = match result {
        DecodingResult::U8(values) if depth < 8 => {
            unpacked(&values, width, usize::from(samples), depth.into())
        }
        DecodingResult::U8(values) => values,
        DecodingResult::U16(values) => values.iter().map(|value| (value >> 8) as u8).collect(),
        _ => return Err("its samples are signed or floats; unsigned ones are read".into()),
    };
    let samples = usize::from(samples);
    if values.len() != width * height * samples {
        return Err(format!("{} samples are not {width} x {height} of {samples}", values.len()));
    }
    // Planes lie one after the other, pixels sample by sample.
    let (pixel, next) = if layout.planes > 1 { (1, width * height) } else { (samples, 1) };
    let at = |i: usize, sample: usize| values[i * pixel + sample * next];
    let three = |i: usize| [at(i, 0), at(i, 1), at(i, 2)];

    let n = width * height;
    let rgb: Vec<[u8; 3]> = match (color, &palette) {
        (ColorType::Gray(bits @ 1..=8), Some(map)) => {
            let colours = 1 << bits;
            let map = map.get(..3 * colours).ok_or("its palette is cut off")?;
            let colour = |i: usize| [0, 1, 2].map(|c| (map[c * colours + i] >> 8) as u8);
            (0..n).map(|i| colour(at(i, 0).into())).collect()
        }
        (_, Some(_)) => return Err(format!("a palette for {color:?}")),
        (ColorType::Gray(bits), None) => {
            let most = if bits < 8 { (1_u16 << bits) - 1 } else { 255 };
            #[expect(clippy::cast_possible_truncation, reason = "at most 255")]
            (0..n).map(|i| [(u16::from(at(i, 0)) * 255 / most) as u8; 3]).collect()
        }
        // Grey with alpha, or with samples of other meaning.
        (ColorType::Multiband { bit_depth: 8 | 16, .. }, None) => {
            (0..n).map(|i| [at(i, 0); 3]).collect()
        }
        (ColorType::RGBA(_), None) if extra == Some(PREMULTIPLIED) => {
            (0..n).map(|i| three(i).map(|value| divided(value, at(i, 3)))).collect()
        }
        (ColorType::RGB(_) | ColorType::RGBA(_), None) => (0..n).map(three).collect(),
        (ColorType::CMYK(_) | ColorType::CMYKA(_), None) => {
            (0..n).map(|i| cmyk(three(i), at(i, 3))).collect()
        }
        (ColorType::YCbCr(8), None) => (0..n).map(|i| ycbcr(three(i))).collect(),
        _ => return Err(format!("{color:?} is not read")),
    };
    Ok(oriented(DecodedImage { width, height, rgb }, orientation))
}

/// The file with another value, of one byte, of a tag of its first image.
fn retagged(bytes: &[u8], tag: Tag, value: u8) -> Option<Vec<u8>> {
    let (big_endian, big) = (bytes.starts_with(b"MM"), matches!(bytes.get(2..4)?, b"+\0" | b"\0+"));
    let number = |at: usize, len: usize| {
        let mut wide = [0; 8];
        wide[..len].copy_from_slice(bytes.get(at..at.checked_add(len)?)?);
        if big_endian {
            wide[..len].reverse();
        }
        Some(u64::from_le_bytes(wide))
    };
    // Bytes of a place, of the number of entries, and of an entry.
    let (place, count, entry) = if big { (8, 8, 20) } else { (4, 2, 12) };
    let directory = usize::try_from(number(place, place)?).ok()?;
    let entries = usize::try_from(number(directory, count)?).ok()?;
    let first = directory.checked_add(count)?;
    let mut places = (0..entries).map_while(|i| first.checked_add(i.checked_mul(entry)?));
    let at =
        places.find(|&at| number(at, 2).is_none_or(|found| found == u64::from(tag.to_u16())))?;
    // The low byte of a value of 2 bytes.
    let mut changed = bytes.to_vec();
    *changed.get_mut(at + 4 + place + usize::from(big_endian))? = value;
    Some(changed)
}

/// Samples of fewer than 8 bits, whose rows begin with a byte.
fn unpacked(packed: &[u8], width: usize, samples: usize, bits: usize) -> Vec<u8> {
    let len = width * samples;
    let rows = packed.chunks_exact((len * bits).div_ceil(8));
    rows.flat_map(|row| (0..len).map(move |x| sample(row, x, bits))).collect()
}

/// A colour without the alpha that it was multiplied by.
fn divided(value: u8, alpha: u8) -> u8 {
    let whole = (255 * u32::from(value)).checked_div(alpha.into()).unwrap_or(0);
    u8::try_from(whole).unwrap_or(255)
}

/// RGB of luma and chroma, as JFIF defines it.
fn ycbcr([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let [y, cb, cr] = [f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0];
    let rgb = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb];
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 255")]
    rgb.map(|value| value.round().clamp(0.0, 255.0) as u8)
}

/// The picture turned upright: where the first row and the first column of the file belong.
fn oriented(picture: DecodedImage, orientation: u16) -> DecodedImage {
    let DecodedImage { width: w, height: h, rgb } = picture;
    let across = matches!(orientation, 5..=8);
    let (width, height) = if across { (h, w) } else { (w, h) };
    let from = |x: usize, y: usize| match orientation {
        2 => (w - 1 - x, y),
        3 => (w - 1 - x, h - 1 - y),
        4 => (x, h - 1 - y),
        5 => (y, x),
        6 => (y, h - 1 - x),
        7 => (w - 1 - y, h - 1 - x),
        8 => (w - 1 - y, x),
        _ => (x, y),
    };
    let pixel = |i: usize| {
        let (x, y) = from(i % width, i / width);
        rgb[y * w + x]
    };
    DecodedImage { width, height, rgb: (0..w * h).map(pixel).collect() }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    /// Tags and their values.
    type Tags<'a> = &'a [(u16, &'a [u16])];

    /// A test file: true for big-endian, its width, tags and strips, and the pixels that it shows.
    type Case<'a> = (bool, u16, Tags<'a>, &'a [&'a [u8]], &'a [[u8; 3]]);

    /// A file of one image in strips, with these tags of 16-bit values.
    fn tiff(big_endian: bool, width: u16, tags: Tags<'_>, strips: &[&[u8]]) -> Vec<u8> {
        let half = |x: u16| if big_endian { x.to_be_bytes() } else { x.to_le_bytes() };
        let word = |x: usize| {
            let x = u32::try_from(x).unwrap();
            if big_endian { x.to_be_bytes() } else { x.to_le_bytes() }
        };
        let number = |x: usize| u16::try_from(x).unwrap();
        let data = strips.concat();
        let lens: Vec<u16> = strips.iter().map(|strip| number(strip.len())).collect();
        let offsets: Vec<u16> =
            (0..lens.len()).map(|i| 8 + lens[..i].iter().sum::<u16>()).collect();
        let (width, mut tags) = ([width], tags.to_vec());
        tags.extend([(256, &width[..]), (257, &[1]), (273, &offsets), (279, &lens)]);
        tags.sort_unstable();

        let directory = 8 + data.len();
        let mut more = directory + 2 + 12 * tags.len() + 4;
        let mut file = if big_endian { b"MM\0*" } else { b"II*\0" }.to_vec();
        file.extend([&word(directory)[..], &data, &half(number(tags.len()))].concat());
        let mut values = Vec::new();
        for (tag, of) in tags {
            file.extend([half(tag), half(3)].concat());
            file.extend(word(of.len()));
            let mut bytes: Vec<u8> = of.iter().flat_map(|&value| half(value)).collect();
            if bytes.len() > 4 {
                file.extend(word(more));
                more += bytes.len();
                values.extend(bytes);
            } else {
                bytes.resize(4, 0);
                file.extend(bytes);
            }
        }
        [file, vec![0; 4], values].concat()
    }

    fn rgb(bytes: &[u8]) -> Vec<[u8; 3]> {
        assert!(begins(bytes));
        decode(bytes).unwrap().rgb
    }

    const BITS: u16 = 258;
    const COMPRESSION: u16 = 259;
    const INTERPRETATION: u16 = 262;
    const SAMPLES: u16 = 277;
    const PLANES: u16 = 284;
    const EXTRA: u16 = 338;

    #[test]
    fn every_kind_of_pixel_becomes_rgb_as_in_pillow() {
        let (rgb3, rgba) = ((SAMPLES, &[3_u16][..]), (SAMPLES, &[4_u16][..]));
        let (grey, of_rgb) = ((INTERPRETATION, &[1_u16][..]), (INTERPRETATION, &[2_u16][..]));
        let few: Vec<u16> = [[0, 0x1234, 0xffff, 0x8000].to_vec(), vec![0; 12]].concat().repeat(3);
        let many: Vec<u16> =
            (0..256).map(|i| i * 257).chain([0; 256]).chain([0xffff; 256]).collect();
        // np.array(Image.open(io.BytesIO(file)).convert("RGB")), Pillow 13.0.0.
        let cases: [Case<'_>; 15] = [
            (false, 2, &[(BITS, &[8]), grey], &[&[5, 250]], &[[5; 3], [250; 3]]),
            (false, 2, &[(BITS, &[8]), (INTERPRETATION, &[0])], &[&[5, 250]], &[[250; 3], [5; 3]]),
            (false, 3, &[(BITS, &[2]), grey], &[&[0x1b]], &[[0; 3], [85; 3], [170; 3]]),
            (
                false,
                3,
                &[(BITS, &[4]), (INTERPRETATION, &[3]), (320, &few)],
                &[&[0x12, 0x30]],
                &[[18; 3], [255; 3], [128; 3]],
            ),
            (
                true,
                2,
                &[(BITS, &[8]), (INTERPRETATION, &[3]), (320, &many)],
                &[&[7, 255]],
                &[[7, 0, 255], [255, 0, 255]],
            ),
            (
                false,
                1,
                &[(BITS, &[16; 3]), of_rgb, rgb3],
                &[&[0x34, 0x12, 0xff, 0, 0, 0xff]],
                &[[18, 0, 255]],
            ),
            (
                true,
                1,
                &[(BITS, &[16; 3]), of_rgb, rgb3],
                &[&[0x12, 0x34, 0, 0xff, 0xff, 0]],
                &[[18, 0, 255]],
            ),
            (
                false,
                1,
                &[(BITS, &[8; 4]), of_rgb, rgba, (EXTRA, &[2])],
                &[&[1, 2, 3, 0]],
                &[[1, 2, 3]],
            ),
            (
                false,
                2,
                &[(BITS, &[8; 4]), of_rgb, rgba, (EXTRA, &[1])],
                &[&[10, 20, 100, 100, 1, 2, 3, 0]],
                &[[25, 51, 255], [0; 3]],
            ),
            (
                false,
                1,
                &[(BITS, &[8; 2]), grey, (SAMPLES, &[2]), (EXTRA, &[2])],
                &[&[9, 0]],
                &[[9; 3]],
            ),
            (
                false,
                2,
                &[(BITS, &[8; 4]), (INTERPRETATION, &[5]), rgba],
                &[&[3, 23, 43, 63, 0, 0, 0, 255]],
                &[[190, 175, 160], [0; 3]],
            ),
            (
                false,
                2,
                &[(BITS, &[8; 3]), of_rgb, rgb3, (PLANES, &[2])],
                &[&[1, 2], &[3, 4], &[5, 6]],
                &[[1, 3, 5], [2, 4, 6]],
            ),
            (
                false,
                2,
                &[(BITS, &[8; 3]), (INTERPRETATION, &[6]), rgb3, (530, &[1, 1])],
                &[&[128, 128, 128, 64, 96, 160]],
                &[[128; 3], [109, 52, 7]],
            ),
            // Grey of 16 bits, which Pillow lets saturate.
            (false, 1, &[(BITS, &[16]), grey], &[&[0xff, 0x12]], &[[0x12; 3]]),
            (true, 1, &[(BITS, &[16]), (INTERPRETATION, &[0])], &[&[0x12, 0]], &[[0xed; 3]]),
        ];
        for (big_endian, width, tags, strips, expected) in cases {
            assert_eq!(rgb(&tiff(big_endian, width, tags, strips)), expected, "{tags:?}");
        }
    }

    #[test]
    fn a_sample_of_no_colour_takes_part_in_differences() {
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&[1, 2, 3, 9, 1, 1, 1, 1]).unwrap();
        let packed = packed.finish().unwrap();
        let tags: [(u16, &[u16]); 6] = [
            (BITS, &[8; 4]),
            (INTERPRETATION, &[2]),
            (SAMPLES, &[4]),
            (EXTRA, &[0]),
            (COMPRESSION, &[8]),
            (317, &[HORIZONTAL]),
        ];
        assert_eq!(rgb(&tiff(false, 2, &tags, &[&packed])), [[1, 2, 3], [2, 3, 4]]);
    }

    #[test]
    fn pictures_are_turned_upright() {
        for (way, size, grey) in [(1, (2, 1), [1, 2]), (3, (2, 1), [2, 1]), (8, (1, 2), [2, 1])] {
            let tags: [(u16, &[u16]); 3] = [(BITS, &[8]), (INTERPRETATION, &[1]), (274, &[way])];
            let picture = decode(&tiff(false, 2, &tags, &[&[1, 2]])).unwrap();
            assert_eq!((picture.width, picture.height), size);
            assert_eq!(picture.rgb, grey.map(|v| [v; 3]));
        }
        // Numbered along the rows of a picture of three columns and two rows, as Pillow turns them.
        let turned = |way| {
            let rgb = (0..6).map(|v| [v; 3]).collect();
            let picture = oriented(DecodedImage { width: 3, height: 2, rgb }, way);
            picture.rgb.into_iter().map(|[v, ..]| v).collect::<Vec<_>>()
        };
        for (way, expected) in [
            (2, [2, 1, 0, 5, 4, 3]),
            (4, [3, 4, 5, 0, 1, 2]),
            (5, [0, 3, 1, 4, 2, 5]),
            (6, [3, 0, 4, 1, 5, 2]),
            (7, [5, 2, 4, 1, 3, 0]),
            (8, [2, 5, 1, 4, 0, 3]),
        ] {
            assert_eq!(turned(way), expected, "{way}");
        }
    }

    #[test]
    fn what_is_not_read_is_named_and_no_byte_changed_makes_a_panic() {
        let complaint = |bytes: &[u8]| decode(bytes).err().unwrap();
        let floats = tiff(
            false,
            1,
            &[(BITS, &[32]), (INTERPRETATION, &[1]), (339, &[3])],
            &[&1.0_f32.to_le_bytes()],
        );
        assert!(
            complaint(&floats).contains("Gray(32); unsigned samples"),
            "{}",
            complaint(&floats)
        );
        let signed = tiff(false, 1, &[(BITS, &[8]), (INTERPRETATION, &[1]), (339, &[2])], &[&[1]]);
        assert!(complaint(&signed).contains("are signed"), "{}", complaint(&signed));
        let map = vec![7; 48];
        let tags: [(u16, &[u16]); 3] = [(BITS, &[4]), (INTERPRETATION, &[3]), (320, &map)];
        let whole = tiff(true, 3, &tags, &[&[0x12, 0x30]]);
        for end in 0..whole.len() {
            assert!(decode(&whole[..end]).is_err(), "{end}");
        }
        for (at, flip) in (0..whole.len()).flat_map(|at| [1, 2, 0x80, 0xff].map(|flip| (at, flip)))
        {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            let _ = decode(&bytes);
        }
    }
}
