//! BMP: pixels of 1 to 32 bits, palettes, bit fields, run lengths.
//!
//! ```text
//! "BM" | u32 size | u32 | u32 where the pixels lie            the file
//! u32 its size (12) | u16 width, height, planes, bits         the image, as OS/2 has it
//! u32 its size (40..124) | i32 width, height | u16 planes,    the same, as Windows has it;
//!     bits | u32 compression | ... | u32 colours | ...        the masks of bit fields at 40
//! BGR or BGR0 per colour                                      the palette, up to 8 bits
//! rows, padded to 4 bytes, the lowest first unless the height is negative
//! ```
//!
//! A field of fewer than 8 bits is scaled to 255 and cut, as Pillow does; alpha is dropped. Source:
//! Microsoft, "Bitmap Storage"; Pillow, `BmpImagePlugin.py`, `Unpack.c`.

use super::pixels::{DecodedImage, limited, sample};

/// Pixels as they lie there.
const RAW: u32 = 0;
/// Runs of pixels of 8 bits.
const RLE8: u32 = 1;
/// Runs of pixels of 4 bits.
const RLE4: u32 = 2;
/// Pixels as they lie there, of fields that masks tell.
const FIELDS: u32 = 3;

/// Returns true if a file with these first bytes is a BMP.
pub(super) fn begins(bytes: &[u8]) -> bool {
    let known = [12, 40, 52, 56, 64, 108, 124];
    bytes.starts_with(b"BM") && u32_at(bytes, 14).is_ok_and(|size| known.contains(&size))
}

/// Decodes a file.
pub(super) fn decode(bytes: &[u8]) -> Result<DecodedImage, String> {
    read(bytes).map_err(|reason| format!("damaged BMP: {reason}"))
}

fn read(bytes: &[u8]) -> Result<DecodedImage, String> {
    let (mut start, header) = (index(bytes, 10)?, index(bytes, 14)?);
    let os2 = header == 12;
    let (width, rows, bits, compression, colours) = if os2 {
        (u16_at(bytes, 18)?.into(), i64::from(u16_at(bytes, 20)?), u16_at(bytes, 24)?, RAW, 0)
    } else {
        let rows = i64::from(u32_at(bytes, 22)?.cast_signed());
        (u32_at(bytes, 18)?, rows, u16_at(bytes, 28)?, u32_at(bytes, 30)?, index(bytes, 46)?)
    };
    let height = usize::try_from(rows.unsigned_abs()).unwrap_or(usize::MAX);
    let [width, height] = limited(width as usize, height)?;

    // Black where a palette ends early.
    let mut palette = [[0; 3]; 256];
    if bits <= 8 {
        let (entry, first) = (if os2 { 3 } else { 4 }, 14 + header);
        let colours = if colours == 0 { 1 << bits } else { colours.min(256) };
        let end = first + entry * colours;
        let stored = bytes.get(first..end).ok_or("its palette is cut off")?;
        for (colour, stored) in palette.iter_mut().zip(stored.chunks_exact(entry)) {
            *colour = [stored[2], stored[1], stored[0]];
        }
        // Some programs do not count the palette.
        if start == first {
            start = end;
        }
    }
    let data = bytes.get(start..).ok_or("it is cut off")?;
    let masks = match (compression, bits) {
        (FIELDS, _) => [u32_at(bytes, 54)?, u32_at(bytes, 58)?, u32_at(bytes, 62)?],
        (_, 16) => [0x7c00, 0x3e0, 0x1f],
        _ => [0xff_0000, 0xff00, 0xff],
    };
    let fields = masks.map(BmpField::of);

    let mut rgb: Vec<[u8; 3]> = Vec::with_capacity(width * height);
    match (compression, bits) {
        (RAW, 1 | 2 | 4 | 8) => rows_of(data, width, height, bits.into(), |row| {
            rgb.extend((0..width).map(|x| palette[usize::from(sample(row, x, bits.into()))]));
        })?,
        (RAW | FIELDS, 16) => rows_of(data, width, height, 16, |row| {
            let pixels = row.as_chunks().0.iter().map(|&pixel| u16::from_le_bytes(pixel).into());
            rgb.extend(pixels.map(|pixel| fields.map(|field| field.of_pixel(pixel))).take(width));
        })?,
        (RAW | FIELDS, 24) => rows_of(data, width, height, 24, |row| {
            rgb.extend(row.as_chunks().0.iter().map(|&[b, g, r]| [r, g, b]).take(width));
        })?,
        (RAW | FIELDS, 32) => rows_of(data, width, height, 32, |row| {
            let pixels = row.as_chunks().0.iter().map(|&pixel| u32::from_le_bytes(pixel));
            rgb.extend(pixels.map(|pixel| fields.map(|field| field.of_pixel(pixel))).take(width));
        })?,
        (RLE8, 8) | (RLE4, 4) => {
            let indices = runs(data, width, height, bits == 4)?;
            rgb.extend(indices.into_iter().map(|index| palette[usize::from(index)]));
        }
        _ => return Err(format!("compression {compression} of {bits} bits is not known")),
    }
    if rows > 0 {
        let mut upright = Vec::with_capacity(rgb.len());
        rgb.rchunks_exact(width).for_each(|row| upright.extend_from_slice(row));
        rgb = upright;
    }
    Ok(DecodedImage { width, height, rgb })
}

/// Hands out the rows of pixels of some bits.
fn rows_of(
    data: &[u8],
    width: usize,
    height: usize,
    bits: usize,
    each: impl FnMut(&[u8]),
) -> Result<(), String> {
    let stride = (width * bits).div_ceil(32) * 4;
    // The padding of the last row may lack.
    let needed = stride * (height - 1) + (width * bits).div_ceil(8);
    if data.len() < needed {
        return Err("it is cut off".into());
    }
    data.chunks(stride).take(height).for_each(each);
    Ok(())
}

/// A colour's bits in a pixel.
#[derive(Clone, Copy)]
struct BmpField {
    shift: u32,
    /// The largest value, 0 where there are no bits.
    most: u64,
}

impl BmpField {
    fn of(mask: u32) -> Self {
        let shift = mask.trailing_zeros() % 32;
        Self { shift, most: (mask >> shift).into() }
    }

    /// The colour of a pixel, scaled to 255.
    fn of_pixel(self, pixel: u32) -> u8 {
        let value = u64::from(pixel >> self.shift) & self.most;
        u8::try_from((value * 255).checked_div(self.most).unwrap_or(0)).unwrap_or(255)
    }
}

/// The indices that run lengths stand for; what they leave out is 0.
fn runs(data: &[u8], width: usize, height: usize, nibbles: bool) -> Result<Vec<u8>, String> {
    let mut indices = vec![0; width * height];
    let (mut x, mut y) = (0, 0);
    let mut put = |x: &mut usize, y: usize, index: u8| {
        // Runs may go beyond their row by padding, which belongs to none.
        if *x < width && y < height {
            indices[y * width + *x] = index;
        }
        *x += 1;
    };
    let half = |byte: u8, i: usize| match (nibbles, i % 2) {
        (false, _) => byte,
        (true, 0) => byte >> 4,
        (true, _) => byte & 15,
    };
    let mut rest = data;
    loop {
        let (&[first, second], after) = rest.split_first_chunk().ok_or("it is cut off")?;
        rest = after;
        match (first, second) {
            (0, 0) => (x, y) = (0, y + 1),
            (0, 1) => return Ok(indices),
            (0, 2) => {
                let (&[right, up], after) = rest.split_first_chunk().ok_or("it is cut off")?;
                rest = after;
                (x, y) = (x + usize::from(right), y + usize::from(up));
            }
            (0, n) => {
                let n = usize::from(n);
                let len = if nibbles { n.div_ceil(2) } else { n };
                let (literal, after) = rest.split_at_checked(len).ok_or("it is cut off")?;
                for i in 0..n {
                    put(&mut x, y, half(literal[if nibbles { i / 2 } else { i }], i));
                }
                // Padded to 16 bits.
                rest = after.get(len % 2..).unwrap_or_default();
            }
            (n, byte) => (0..usize::from(n)).for_each(|i| put(&mut x, y, half(byte, i))),
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, String> {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    found.map(|&bytes| u16::from_le_bytes(bytes)).ok_or_else(|| "its header is cut off".into())
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    found.map(|&bytes| u32::from_le_bytes(bytes)).ok_or_else(|| "its header is cut off".into())
}

/// A number that is a place in the file or a count.
fn index(bytes: &[u8], at: usize) -> Result<usize, String> {
    u32_at(bytes, at).map(|number| number as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this header of Windows, what lies after it, and pixels.
    fn bmp(size: [i32; 2], bits: u16, compression: u32, data: &[u8], after: &[u8]) -> Vec<u8> {
        let start = 54 + u32::try_from(after.len()).unwrap();
        let colours = if bits <= 8 { u32::try_from(after.len() / 4).unwrap() } else { 0 };
        let mut file = b"BM\0\0\0\0\0\0\0\0".to_vec();
        file.extend([start, 40].iter().flat_map(|word| word.to_le_bytes()));
        file.extend(size.iter().flat_map(|side| side.to_le_bytes()));
        file.extend([1, bits].iter().flat_map(|half| half.to_le_bytes()));
        file.extend([compression, 0, 0, 0, colours, 0].iter().flat_map(|word| word.to_le_bytes()));
        [&file, after, data].concat()
    }

    fn rgb(bytes: &[u8]) -> Vec<[u8; 3]> {
        assert!(begins(bytes));
        decode(bytes).unwrap().rgb
    }

    /// Three colours, blue first.
    const PALETTE: [u8; 12] = [10, 20, 30, 0, 40, 50, 60, 0, 70, 80, 90, 0];
    const A: [u8; 3] = [30, 20, 10];
    const B: [u8; 3] = [60, 50, 40];
    const C: [u8; 3] = [90, 80, 70];

    #[test]
    fn every_kind_of_pixel_becomes_rgb_as_in_pillow() {
        let masks = |masks: [u32; 3]| masks.map(u32::to_le_bytes).concat();
        // np.array(Image.open(io.BytesIO(file)).convert("RGB")), Pillow 13.0.0.
        for (size, bits, compression, data, after, expected) in [
            ([3, 1], 1, RAW, &b"\xa0\0\0\0"[..], PALETTE[..8].to_vec(), &[B, A, B][..]),
            ([3, 1], 4, RAW, b"\x21\0\0\0", PALETTE.to_vec(), &[C, B, A]),
            ([4, 1], 8, RAW, b"\0\x01\x02\x03", PALETTE.to_vec(), &[A, B, C, [0; 3]]),
            ([2, 1], 16, RAW, b"\xff\x7f\x61\x0c", vec![], &[[255; 3], [24, 24, 8]]),
            (
                [2, 1],
                16,
                FIELDS,
                b"\x1f\xf8\x61\x08",
                masks([0xf800, 0x7e0, 0x1f]),
                &[[255, 0, 255], [8, 12, 8]],
            ),
            ([1, 2], 24, RAW, b"\x01\x02\x03\0\x04\x05\x06\0", vec![], &[[6, 5, 4], [3, 2, 1]]),
            ([1, -2], 24, RAW, b"\x01\x02\x03\0\x04\x05\x06\0", vec![], &[[3, 2, 1], [6, 5, 4]]),
            ([1, 1], 32, RAW, b"\x01\x02\x03\x04", vec![], &[[3, 2, 1]]),
            (
                [1, 1],
                32,
                FIELDS,
                b"\x01\x02\x03\x04",
                masks([0xff00_0000, 0xff_0000, 0xff00]),
                &[[4, 3, 2]],
            ),
            // Three of 1 and one of 2; three as they are, and one of 1.
            (
                [4, 2],
                8,
                RLE8,
                b"\x03\x01\x01\x02\0\0\0\x03\x02\x01\0\0\x01\x01\0\0\0\x01",
                PALETTE.to_vec(),
                &[C, B, A, B, B, B, B, C],
            ),
            ([5, 1], 4, RLE4, b"\x02\x12\0\x03\x21\0\0\x01", PALETTE.to_vec(), &[B, C, C, B, A]),
            // A pixel, one to the right left out, a pixel.
            ([3, 1], 8, RLE8, b"\x01\x01\0\x02\x01\0\x01\x02\0\x01", PALETTE.to_vec(), &[B, A, C]),
        ] {
            let file = bmp(size, bits, compression, data, &after);
            assert_eq!(rgb(&file), expected, "{size:?} {bits} {compression}");
        }
        let os2 = b"BM\0\0\0\0\0\0\0\0\x20\0\0\0\x0c\0\0\0\x02\0\x01\0\x01\0\x01\0\
            \x01\x02\x03\x04\x05\x06\x40\0\0\0";
        assert_eq!(rgb(os2), [[3, 2, 1], [6, 5, 4]]);
    }

    #[test]
    fn damage_is_named_and_no_byte_changed_makes_a_panic() {
        let complaint = |bytes: &[u8]| decode(bytes).err().unwrap();
        let rle = bmp([4, 1], 8, RLE8, b"\x03\x01\x01\x02\0\x01", &PALETTE);
        let whole = bmp([3, 2], 24, RAW, &[7; 24], &[]);
        for file in [&rle, &whole] {
            // The padding of the last row is not needed.
            let needed = file.len() - if file == &whole { 3 } else { 0 };
            for end in 0..needed {
                assert!(complaint(&file[..end]).starts_with("damaged BMP: it"), "{end}");
            }
            for (at, flip) in (0..file.len()).flat_map(|at| [1, 0x80, 0xff].map(|flip| (at, flip)))
            {
                let mut bytes = file.clone();
                bytes[at] ^= flip;
                let _ = decode(&bytes);
            }
        }
        assert!(
            complaint(&bmp([1, 1], 8, 4, &[0; 4], &PALETTE)).contains("compression 4 of 8 bits")
        );
        assert!(complaint(&bmp([20_000, 1], 24, RAW, &[], &[])).contains("is 20000 x 1; at most"));
        assert!(!begins(b"BM") && !begins(b"BMW is no picture, but text"));
    }
}
