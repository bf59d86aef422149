//! A stored codebook: code → value.
//!
//! | entries | bytes per codebook | value of code `c` |
//! |---|---|---|
//! | [`Entries::F32`] | 4 · levels | entry `c` |
//! | [`Entries::F16`] | 2 · levels | entry `c`, widened exactly |
//! | [`Entries::Affine`] | 8: min, then step, both f32 | `c · step + min`, in f32 |
//!
//! All numbers are little-endian.

use half::f16;

/// How the codebooks of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entries {
    /// A table of f32 levels.
    F32,
    /// A table of f16 levels.
    F16,
    /// Equal steps in f32.
    Affine,
}

impl Entries {
    /// The bytes of one codebook of `levels` levels.
    pub const fn codebook_len(self, levels: u16) -> usize {
        match self {
            Self::F32 => 4 * levels as usize,
            Self::F16 => 2 * levels as usize,
            Self::Affine => 8,
        }
    }
}

/// Equal steps: `value(code) = code · step + min`, each operation rounded to f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Value of code 0.
    pub min: f32,
    /// Difference between neighbouring values.
    pub step: f32,
}

impl Affine {
    /// The value of a code.
    pub fn value(self, code: u8) -> f32 {
        // Two roundings, not one: bit-equal to the paper's uniform scheme.
        let offset = f32::from(code) * self.step;
        offset + self.min
    }

    /// The stored form.
    pub const fn to_bytes(self) -> [u8; 8] {
        let ([a, b, c, d], [e, f, g, h]) = (self.min.to_le_bytes(), self.step.to_le_bytes());
        [a, b, c, d, e, f, g, h]
    }

    const fn from_bytes([a, b, c, d, e, f, g, h]: [u8; 8]) -> Self {
        Self { min: f32::from_le_bytes([a, b, c, d]), step: f32::from_le_bytes([e, f, g, h]) }
    }
}

/// One codebook in its stored form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codebook<'a> {
    entries: Entries,
    bytes: &'a [u8],
}

impl<'a> Codebook<'a> {
    /// The codebook that `bytes` store; any bytes are a codebook, with as many values as they have.
    pub const fn new(entries: Entries, bytes: &'a [u8]) -> Self {
        Self { entries, bytes }
    }

    /// How the codebook is stored.
    pub const fn entries(self) -> Entries {
        self.entries
    }

    /// The stored bytes.
    pub const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The value of a code, `None` for a code behind the end of the table.
    pub fn value(self, code: u8) -> Option<f32> {
        let code_index = usize::from(code);
        match self.entries {
            Entries::F32 => {
                self.bytes.as_chunks().0.get(code_index).map(|&b| f32::from_le_bytes(b))
            }
            Entries::F16 => {
                self.bytes.as_chunks().0.get(code_index).map(|&b| f16::from_le_bytes(b).to_f32())
            }
            Entries::Affine => self.bytes.first_chunk().map(|&b| Affine::from_bytes(b).value(code)),
        }
    }

    /// The values of the codes 0, 1, ..., as far as `levels` goes, at most 256.
    pub fn values(self, levels: u16) -> impl Iterator<Item = f32> + 'a {
        (0..=u8::MAX).take(usize::from(levels)).map_while(move |code| self.value(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_stored_form() {
        let table = Codebook::new(Entries::F32, &[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
        assert_eq!([0, 1, 2].map(|c| table.value(c)), [Some(1.0), Some(-2.0), None]);
        let half = Codebook::new(Entries::F16, &[0x00, 0x3c, 0x00, 0xc0]);
        assert_eq!([0, 1, 2].map(|c| half.value(c)), [Some(1.0), Some(-2.0), None]);
        let affine = Affine { min: -2.0, step: 0.5 }.to_bytes();
        let affine = Codebook::new(Entries::Affine, &affine);
        assert_eq!([0, 1, 255].map(|c| affine.value(c)), [Some(-2.0), Some(-1.5), Some(125.5)]);
        assert_eq!(Codebook::new(Entries::Affine, &[0; 7]).value(0), None);
    }

    #[test]
    fn affine_rounds_twice() {
        // 3 · 0.1 rounds up; a fused multiply-add would not.
        let affine = Affine { min: -0.3, step: 0.1 };
        let product = 3.0_f32 * 0.1;
        assert_eq!(affine.value(3).to_bits(), (product + -0.3_f32).to_bits());
        assert_ne!(affine.value(3).to_bits(), libm::fmaf(3.0, 0.1, -0.3).to_bits());
    }
}
