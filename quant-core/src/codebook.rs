//! A stored codebook: code → value.
//!
//! | format | bytes of a codebook of `K = 2^bits` levels | value of code `c` |
//! |---|---|---|
//! | [`CodebookFormat::F32`] | 4K | entry `c` |
//! | [`CodebookFormat::F16`] | 2K | entry `c`, widened exactly |
//! | [`CodebookFormat::I16`] | 4 + 2K: scale in f32, then signed entries | `entry c · scale`, in f32 |
//! | [`CodebookFormat::I8`] | 4 + K: likewise | `entry c · scale`, in f32 |
//! | [`CodebookFormat::Affine`] | 8: min, then scale, both f32 | `c · scale + min`, in f32 |
//! | [`CodebookFormat::Logarithmic`] | 16: a [`LogRange`] | its level `c` of `min(K, n)` |
//!
//! All numbers are little-endian, every operation is rounded on its own. `n` is the number of weights
//! that share the codebook. Every code has a value: logarithmic codes after the last level repeat
//! it.

use crate::bits::Bits;
use crate::log_range::LogRange;
use crate::num::low_u8;
use half::f16;

/// Table of the values of all codes, of which the first `2^bits` mean something.
pub type Table = [f32; 256];

/// True if this build can decode `log` codebooks.
pub(crate) const READS_LOG: bool = cfg!(any(feature = "log", test));

/// Stored format of a codebook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodebookFormat {
    /// Table of f32 levels.
    F32,
    /// Table of f16 levels.
    F16,
    /// Table of i16 levels times an f32 scale.
    I16,
    /// Table of i8 levels times an f32 scale.
    I8,
    /// Two f32 of an affine map, [`Affine`].
    Affine,
    /// Four f32 of geometric levels, a [`LogRange`].
    Logarithmic,
}

impl CodebookFormat {
    /// Bytes of a stored codebook of `levels` levels.
    pub const fn codebook_len(self, levels: usize) -> usize {
        match self {
            Self::F32 => 4 * levels,
            Self::F16 => 2 * levels,
            Self::I16 => 4 + 2 * levels,
            Self::I8 => 4 + levels,
            Self::Affine => 8,
            Self::Logarithmic => 16,
        }
    }
}

/// Uniform quantizer: `value(code) = code · scale + min`, each operation rounded to f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Value of code 0.
    pub min: f32,
    /// Difference between the values of neighbouring codes.
    pub scale: f32,
}

impl Affine {
    /// The value of a code.
    pub fn value(self, code: u8) -> f32 {
        // Two roundings, not one: bit-equal to the paper's uniform scheme.
        let offset = f32::from(code) * self.scale;
        offset + self.min
    }

    /// The values of the first `count` codes.
    #[cfg(feature = "alloc")]
    pub(crate) fn levels(self, count: usize) -> alloc::vec::Vec<f32> {
        (0..count).map(|code| self.value(low_u8(code))).collect()
    }

    /// The stored form.
    pub const fn to_bytes(self) -> [u8; 8] {
        let ([a, b, c, d], [e, f, g, h]) = (self.min.to_le_bytes(), self.scale.to_le_bytes());
        [a, b, c, d, e, f, g, h]
    }

    const fn from_bytes([a, b, c, d, e, f, g, h]: [u8; 8]) -> Self {
        Self { min: f32::from_le_bytes([a, b, c, d]), scale: f32::from_le_bytes([e, f, g, h]) }
    }
}

/// Codebook in its stored form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codebook<'a> {
    format: CodebookFormat,
    bits: Bits,
    bytes: &'a [u8],
    /// The `min(K, n)` of a logarithmic codebook.
    most: usize,
}

impl<'a> Codebook<'a> {
    /// The codebook that `bytes` store, shared by `weights` weights. Where `bytes` are too short
    /// for a code, its value is 0.
    pub fn new(format: CodebookFormat, bits: Bits, bytes: &'a [u8], weights: usize) -> Self {
        Self { format, bits, bytes, most: weights.min(bits.code_count()) }
    }

    /// Stored format of the codebook.
    pub const fn format(self) -> CodebookFormat {
        self.format
    }

    /// The stored bytes.
    pub const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The value of a code.
    pub fn value(self, code: u8) -> f32 {
        let i = usize::from(code);
        let value = match self.format {
            CodebookFormat::F32 => self.bytes.as_chunks().0.get(i).map(|&b| f32::from_le_bytes(b)),
            CodebookFormat::F16 => {
                self.bytes.as_chunks().0.get(i).map(|&b| f16::from_le_bytes(b).to_f32())
            }
            CodebookFormat::I16 => self.scaled().and_then(|(scale, entries)| {
                let &entry = entries.as_chunks().0.get(i)?;
                Some(f32::from(i16::from_le_bytes(entry)) * scale)
            }),
            CodebookFormat::I8 => self.scaled().and_then(|(scale, entries)| {
                let &entry = entries.get(i)?;
                Some(f32::from(entry.cast_signed()) * scale)
            }),
            CodebookFormat::Affine => {
                self.bytes.first_chunk().map(|&b| Affine::from_bytes(b).value(code))
            }
            CodebookFormat::Logarithmic if !READS_LOG => None,
            CodebookFormat::Logarithmic => self.range().and_then(|range| {
                let last = low_u8(range.level_count(self.most) - 1);
                range.level(code.min(last), self.most)
            }),
        };
        value.unwrap_or(0.0)
    }

    /// Fills the first `2^bits` entries of `table` with the values times `scale`.
    pub fn fill(self, scale: Option<f32>, table: &mut Table) {
        for (code, value) in (0..=self.bits.max_code()).zip(table) {
            let level = self.value(code);
            *value = scale.map_or(level, |scale| level * scale);
        }
    }

    /// `true` if the stored numbers make sense: a range is a range, every value is finite.
    pub(crate) fn is_sound(self) -> bool {
        let last = self.bits.max_code();
        let finite = |code| self.value(code).is_finite();
        match self.format {
            // The levels lie between the magnitudes of the range, which are finite.
            CodebookFormat::Logarithmic => self.range().is_some_and(|range| range.check().is_ok()),
            // The others lie between these two.
            CodebookFormat::Affine => finite(0) && finite(last),
            _ => (0..=last).all(finite),
        }
    }

    fn range(self) -> Option<LogRange> {
        self.bytes.first_chunk().map(|&bytes| LogRange::from_bytes(bytes))
    }

    /// The scale of integer entries, and the entries.
    fn scaled(self) -> Option<(f32, &'a [u8])> {
        let (&scale, entries) = self.bytes.split_first_chunk()?;
        Some((f32::from_le_bytes(scale), entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::tests::width;

    fn values<const N: usize>(format: CodebookFormat, bytes: &[u8], codes: [u8; N]) -> [f32; N] {
        codes.map(|code| Codebook::new(format, Bits::MAX, bytes, 1000).value(code))
    }

    #[test]
    fn reads_each_stored_form() {
        let f32_table = [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0];
        assert_eq!(values(CodebookFormat::F32, &f32_table, [0, 1, 2]), [1.0, -2.0, 0.0]);
        let f16_table = [0x00, 0x3c, 0x00, 0xc0];
        assert_eq!(values(CodebookFormat::F16, &f16_table, [0, 1, 2]), [1.0, -2.0, 0.0]);
        let i16_table = [0, 0, 0, 0x3f, 3, 0, 0xff, 0xff];
        assert_eq!(values(CodebookFormat::I16, &i16_table, [0, 1, 2]), [1.5, -0.5, 0.0]);
        let i8_table = [0, 0, 0, 0x3f, 3, 0xff];
        assert_eq!(values(CodebookFormat::I8, &i8_table, [0, 1, 2]), [1.5, -0.5, 0.0]);
        let affine = Affine { min: -2.0, scale: 0.5 }.to_bytes();
        assert_eq!(values(CodebookFormat::Affine, &affine, [0, 1, 255]), [-2.0, -1.5, 125.5]);
        assert_eq!(values(CodebookFormat::Affine, &[0; 7], [0]), [0.0]);
    }

    #[test]
    fn logarithmic_codes_after_the_last_level_repeat_it() {
        // Positive weights from 1 to 8, four levels for five codes or more.
        let bytes = [0.0, 0.0, 1.0, 8.0_f32].map(f32::to_le_bytes);
        let codebook =
            Codebook::new(CodebookFormat::Logarithmic, width(3), bytes.as_flattened(), 4);
        let mut table = [9.0; 256];
        codebook.fill(Some(0.5), &mut table);
        assert_eq!(table[..9], [0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0, 9.0]);
        assert!(codebook.is_sound());
        let upside_down = [0.0, 0.0, 8.0, 1.0_f32].map(f32::to_le_bytes);
        let bytes = upside_down.as_flattened();
        assert!(!Codebook::new(CodebookFormat::Logarithmic, width(3), bytes, 4).is_sound());
    }

    #[test]
    fn soundness_is_that_every_value_is_finite() {
        let affine = |min, scale| Affine { min, scale }.to_bytes();
        for (min, scale) in [
            (0.0, 1.0),
            (f32::MAX, 0.0),
            (f32::MAX, f32::MAX),
            (-f32::MAX, f32::MAX),
            (0.0, f32::INFINITY),
            (f32::NAN, 0.0),
            (1.0, f32::NAN),
        ] {
            let bytes = affine(min, scale);
            let codebook = Codebook::new(CodebookFormat::Affine, width(2), &bytes, 9);
            let finite = (0..4).all(|code| codebook.value(code).is_finite());
            assert_eq!(codebook.is_sound(), finite, "{min} {scale}");
        }
        // The widest range there is.
        let bytes = [1e-45, f32::MAX, f32::MIN_POSITIVE, f32::MAX].map(f32::to_le_bytes);
        let codebook =
            Codebook::new(CodebookFormat::Logarithmic, Bits::MAX, bytes.as_flattened(), 1000);
        assert!(codebook.is_sound() && (0..=255).all(|code| codebook.value(code).is_finite()));
    }

    #[test]
    fn affine_rounds_twice() {
        // 3 · 0.1 rounds up; a fused multiply-add would not.
        let affine = Affine { min: -0.3, scale: 0.1 };
        let product = 3.0_f32 * 0.1;
        assert_eq!(affine.value(3).to_bits(), (product + -0.3_f32).to_bits());
        assert_ne!(affine.value(3).to_bits(), libm::fmaf(3.0, 0.1, -0.3).to_bits());
    }
}
