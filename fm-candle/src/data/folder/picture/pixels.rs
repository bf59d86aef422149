//! The pixels of a picture, and what the decoders of its kinds share.

/// Longest side of a picture.
pub(in super::super) const MAX_SIDE: usize = 1 << 14;
/// Most pixels of a picture.
const MAX_PIXELS: usize = 1 << 26;
/// Most bytes that a decoder of compressed data may hold beside the pixels.
pub(super) const MAX_MEMORY: usize = 1 << 29;

/// A decoded image.
pub(in super::super) struct DecodedImage {
    pub(in super::super) width: usize,
    pub(in super::super) height: usize,
    /// `[height, width]`.
    pub(in super::super) rgb: Vec<[u8; 3]>,
}

impl DecodedImage {
    /// A picture of `channels` bytes per pixel: grey, grey and alpha, RGB, or RGB and alpha.
    pub(super) fn new(
        [width, height]: [usize; 2],
        channels: usize,
        pixels: &[u8],
    ) -> Result<Self, String> {
        let rgb: Vec<_> = match channels {
            1 => pixels.iter().map(|&grey| [grey; 3]).collect(),
            2 => pixels.as_chunks().0.iter().map(|&[grey, _]| [grey; 3]).collect(),
            3 => pixels.as_chunks().0.to_vec(),
            _ => pixels.as_chunks().0.iter().map(|&[r, g, b, _]| [r, g, b]).collect(),
        };
        if rgb.len() == width * height {
            Ok(Self { width, height, rgb })
        } else {
            Err(format!("decodes to {} pixels, but is {width} x {height}", rgb.len()))
        }
    }
}

/// Width and height, if a picture may have them.
pub(super) fn limited(width: usize, height: usize) -> Result<[usize; 2], String> {
    if width.max(height) > MAX_SIDE || width * height > MAX_PIXELS {
        return Err(format!(
            "is {width} x {height}; at most {MAX_SIDE} a side and {MAX_PIXELS} pixels are read"
        ));
    }
    if width == 0 || height == 0 {
        return Err(format!("is {width} x {height}"));
    }
    Ok([width, height])
}

/// Value `x` of a row of values of 1, 2, 4 or 8 bits, the first in the highest bits.
pub(super) fn sample(row: &[u8], x: usize, bits: usize) -> u8 {
    let per_byte = 8 / bits;
    let shift = (per_byte - 1 - x % per_byte) * bits;
    let mask = if bits < 8 { (1 << bits) - 1 } else { 255 };
    row[x / per_byte] >> shift & mask
}

/// RGB of inks that absorb, as Pillow rounds it.
pub(super) fn cmyk(inks: [u8; 3], black: u8) -> [u8; 3] {
    let light = u32::from(255 - black);
    inks.map(|ink| {
        let absorbed = u32::from(ink) * light + 128;
        let absorbed = ((absorbed >> 8) + absorbed) >> 8;
        u8::try_from(light.saturating_sub(absorbed)).unwrap_or(255)
    })
}
