//! PBM, PGM and PPM, in text and in bytes.
//!
//! ```text
//! "P1".."P6" width height largest    numbers in text; "#" begins a comment; P1 and P4 have no largest
//! values                             1, 2, 3: in text; 4, 5, 6: bits, or 1 or 2 bytes, after one blank
//! ```
//!
//! Values are scaled to 255 and rounded, as Pillow does with colours. Source: netpbm's pages of
//! `pbm`, `pgm`, `ppm`; Pillow, `PpmImagePlugin.py`.

use super::pixels::{DecodedImage, limited, sample};

/// Returns true if a file with these first bytes is a PNM.
pub(super) fn begins(bytes: &[u8]) -> bool {
    matches!(bytes, [b'P', b'1'..=b'6', after, ..] if after.is_ascii_whitespace() || *after == b'#')
}

/// Decodes a file.
pub(super) fn decode(bytes: &[u8]) -> Result<DecodedImage, String> {
    read(bytes).map_err(|reason| format!("damaged PNM: {reason}"))
}

fn read(bytes: &[u8]) -> Result<DecodedImage, String> {
    let kind = bytes[1];
    let mut text = Text { rest: &bytes[2..] };
    let (width, height) = (text.number()?, text.number()?);
    let size = limited(width, height)?;
    let bitmap = matches!(kind, b'1' | b'4');
    let most = if bitmap { 1 } else { text.number()? };
    if !(1..=65535).contains(&most) {
        return Err(format!("its largest value is {most}, not 1 to 65535"));
    }
    let channels = if matches!(kind, b'3' | b'6') { 3 } else { 1 };
    let n = width * height * channels;
    let scaled = |value: usize| {
        let value = value.min(most) as f64 / most as f64 * 255.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 255")]
        let value = value.round_ties_even() as u8;
        value
    };
    // A set bit is black.
    let ink = |bit: u8| if bit == 0 { 255 } else { 0 };
    let values: Vec<u8> = match kind {
        b'1' => (0..n).map(|_| text.bit().map(ink)).collect::<Result<_, _>>()?,
        b'2' | b'3' => (0..n).map(|_| text.number().map(scaled)).collect::<Result<_, _>>()?,
        b'4' => {
            let rows = text.after(width.div_ceil(8) * height)?.chunks_exact(width.div_ceil(8));
            rows.flat_map(|row| (0..width).map(move |x| ink(sample(row, x, 1)))).collect()
        }
        _ if most < 256 => text.after(n)?.iter().map(|&value| scaled(value.into())).collect(),
        _ => {
            let values = text.after(2 * n)?.as_chunks().0.iter();
            values.map(|&value| scaled(u16::from_be_bytes(value).into())).collect()
        }
    };
    DecodedImage::new(size, channels, &values)
}

/// The rest of a file under parsing.
struct Text<'a> {
    rest: &'a [u8],
}

impl<'a> Text<'a> {
    /// Goes on to what is neither blank nor comment.
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_ascii_start();
            if self.rest.first() != Some(&b'#') {
                return;
            }
            let end = self.rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            self.rest = &self.rest[end.unwrap_or(self.rest.len())..];
        }
    }

    fn number(&mut self) -> Result<usize, String> {
        self.skip();
        let len = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at(len);
        self.rest = rest;
        let number = core::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        number.ok_or_else(|| "a number is missing".into())
    }

    /// A bit in text, which need not be apart from the next.
    fn bit(&mut self) -> Result<u8, String> {
        self.skip();
        let (&bit, rest) = self.rest.split_first().ok_or("it is cut off")?;
        self.rest = rest;
        match bit {
            b'0' | b'1' => Ok(bit - b'0'),
            _ => Err("a bit is missing".into()),
        }
    }

    /// The bytes after one blank.
    fn after(&self, len: usize) -> Result<&'a [u8], String> {
        self.rest.get(1..1 + len).ok_or_else(|| "it is cut off".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rgb(bytes: &[u8]) -> Vec<[u8; 3]> {
        assert!(begins(bytes));
        decode(bytes).unwrap().rgb
    }

    #[test]
    fn every_kind_becomes_rgb_as_in_pillow() {
        // np.array(Image.open(io.BytesIO(file)).convert("RGB")), Pillow 13.0.0.
        const N: u8 = 255;
        for (file, grey) in [
            (&b"P1\n# ink\n3 2\n101 0 1 0"[..], &[0, N, 0, N, 0, N][..]),
            (b"P2 3 1 15 0 8 15", &[0, 136, N]),
            (
                b"P4 10 2\n\xaa\xc0\x0f\0",
                &[0, N, 0, N, 0, N, 0, N, 0, 0, N, N, N, N, 0, 0, 0, 0, N, N],
            ),
            (b"P5 4 1 100\n\0\x01\x32\x64", &[0, 3, 128, 255]),
            // More than the largest value.
            (b"P5 2 1 100 \xff\0", &[255, 0]),
        ] {
            assert_eq!(rgb(file), grey.iter().map(|&v| [v; 3]).collect::<Vec<_>>(), "{file:?}");
        }
        for (file, expected) in [
            (&b"P3 1 2 255\n1 2 3\n4 5 6\n"[..], &[[1, 2, 3], [4, 5, 6]][..]),
            // Blanks may be pixels.
            (b"P6\t2 1 255\n\n \t\x01\x02\x03", &[[10, 32, 9], [1, 2, 3]]),
            (b"P6 1 1 31\n\x01\x10\x1f", &[[8, 132, 255]]),
            (b"P6 1 1 65535\n\0\x80\0\x81\xff\xff", &[[0, 1, 255]]),
            (b"P6 1 1 1000\n\x01\xf4\0\x64\x03\xe8", &[[128, 26, 255]]),
            // Grey of 16 bits is scaled too, where Pillow lets it saturate.
            (b"P5 1 1 1000\n\x01\xf4", &[[128; 3]]),
        ] {
            assert_eq!(rgb(file), expected, "{file:?}");
        }
    }

    #[test]
    fn damage_is_named() {
        for (file, complaint) in [
            (&b"P5 2 1 255\n\x01"[..], "it is cut off"),
            (b"P6 1 1 255", "it is cut off"),
            (b"P2 2 1 255 1 ", "a number is missing"),
            (b"P1 2 1 12", "a bit is missing"),
            (b"P5 2 x", "a number is missing"),
            (b"P5 # no end", "a number is missing"),
            (b"P5 1 1 0 0", "its largest value is 0"),
            (b"P5 1 1 65536 00", "its largest value is 65536"),
            (b"P5 0 1 255 ", "is 0 x 1"),
            (b"P5 99999999999999999999 1 255 ", "a number is missing"),
            (b"P5 20000 1 255 ", "is 20000 x 1; at most"),
        ] {
            let found = decode(file).err().unwrap();
            assert!(found.contains(complaint), "{file:?}: {found}");
        }
        assert!(!begins(b"P7\n") && !begins(b"P5") && !begins(b"P5x") && !begins(b"PK"));
    }
}
