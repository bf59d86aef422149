//! The record of a U-Net's configuration in the packed file.
//!
//! It has 160 bytes, little-endian:
//!
//! | offset | bytes | field | range |
//! |---|---|---|---|
//! | 0 | 4 | `in_channels` | 1..=65536 |
//! | 4 | 4 | `model_channels` | 1..=65536 |
//! | 8 | 4 | `out_channels` | 1..=65536 |
//! | 12 | 4 | `num_res_blocks` | 0..=64 |
//! | 16 | 4 | `num_heads` | 1..=65536 |
//! | 20 | 4 | `num_head_channels` | 0 = none, ..=65536 |
//! | 24 | 4 | `num_heads_upsample` | 0 = none, ..=65536 |
//! | 28 | 4 | `num_classes` | 0 = none, ..=2^24 |
//! | 32 | 4 | `image_size` | 0 = unknown, ..=65536 |
//! | 36 | 4 | `dropout`, f32 | at least 0, below 1 |
//! | 40 | 4 | flags, see below | other bits zero |
//! | 44 | 1 | length of `attention_resolutions` | 0..=8 |
//! | 45 | 1 | length of `channel_mult` | 1..=8 |
//! | 46 | 2 | zero | |
//! | 48 | 32 | `attention_resolutions`, then zeros | each 1..=65536 |
//! | 80 | 64 | `channel_mult`, f64, then zeros | each above 0, to 1024 |
//! | 144 | 4 | `patch` | 0 = 1, 2..=16 |
//! | 148 | 4 | `embedding_rank` | 0 = none, to 4 `model_channels` |
//! | 152 | 8 | zero, reserved | |
//!
//! Flags, from bit 0: `conv_resample`, `use_scale_shift_norm`, `resblock_updown`,
//! `use_new_attention_order`, `with_fourier_features`, `ignore_time`, `input_projection`.

use super::{Dims, Ignored, MAX_LEVELS, UNetConfig};
use crate::error::check_range;
use crate::error::{Error, Result, check_length};
use crate::num::{f32_of, high_u32, index, low_u8, low_u32, u32_of};
use heapless::Vec;

/// The bytes of the record.
pub const RECORD_LEN: usize = 160;

const FLAGS: usize = 7;

impl UNetConfig {
    /// Reads a record.
    ///
    /// # Errors
    /// [`Error::Length`] unless `record` has [`RECORD_LEN`] bytes; [`Error::Range`],
    /// [`Error::Real`] or [`Error::NotZero`] for a field outside its range.
    pub fn parse(record: &[u8]) -> Result<Self> {
        check_length("net record", RECORD_LEN, record.len())?;
        let words = record.as_chunks().0;
        let word = |i: usize| words.get(i).map_or(0, |&bytes| u32::from_le_bytes(bytes));
        let size = |i| index(word(i));
        let long = |i: usize| u64::from(word(21 + 2 * i)) << 32 | u64::from(word(20 + 2 * i));
        let option = |i| Some(size(i)).filter(|&value| value != 0);
        let flags = word(10);
        let flag = |bit: u32| flags >> bit & 1 == 1;
        let [resolutions, mults, zero0, zero1] = word(11).to_le_bytes();
        check_zero("unknown flags of the net", flags >> FLAGS == 0)?;
        let mut padding =
            [zero0 == 0, zero1 == 0].into_iter().chain((38..40).map(|i| word(i) == 0));
        check_zero("padding of the net record", padding.all(|zero| zero))?;
        let patch = option(36);
        // 1 is written as 0.
        check_zero("patch of one pixel in the net record", patch != Some(1))?;
        let config = Self {
            in_channels: size(0),
            model_channels: size(1),
            out_channels: size(2),
            num_res_blocks: size(3),
            attention_resolutions: list(resolutions, |i| word(12 + i), index)?,
            dropout: f64::from(f32::from_bits(word(9))),
            channel_mult: list(mults, long, f64::from_bits)?,
            conv_resample: flag(0),
            num_classes: option(7),
            num_heads: size(4),
            num_head_channels: option(5),
            num_heads_upsample: option(6),
            use_scale_shift_norm: flag(1),
            resblock_updown: flag(2),
            use_new_attention_order: flag(3),
            with_fourier_features: flag(4),
            ignore_time: flag(5),
            input_projection: flag(6),
            image_size: option(8),
            patch: patch.unwrap_or(1),
            embedding_rank: option(37),
            dims: Dims,
            use_checkpoint: false,
            target: Ignored,
        };
        config.check()?;
        Ok(config)
    }

    /// The record; it does not keep what makes no difference to the numbers, as `use_checkpoint`.
    ///
    /// # Errors
    /// Those of [`UNetConfig::check`].
    pub fn emit(&self) -> Result<[u8; RECORD_LEN]> {
        self.check()?;
        let flags = self.flags().into_iter().rev().fold(0, |bits, on| bits << 1 | u32::from(on));
        let lens = [self.attention_resolutions.len(), self.channel_mult.len()].map(low_u8);
        let head = [
            u32_of(self.in_channels),
            u32_of(self.model_channels),
            u32_of(self.out_channels),
            u32_of(self.num_res_blocks),
            u32_of(self.num_heads),
            u32_of(self.num_head_channels.unwrap_or(0)),
            u32_of(self.num_heads_upsample.unwrap_or(0)),
            u32_of(self.num_classes.unwrap_or(0)),
            u32_of(self.image_size.unwrap_or(0)),
            f32_of(self.dropout).to_bits(),
            flags,
            u32::from_le_bytes([lens[0], lens[1], 0, 0]),
        ];
        let zeros = core::iter::repeat(0);
        let resolutions = self.attention_resolutions.iter().map(|&rate| u32_of(rate));
        let mults = self.channel_mult.iter().map(|mult| mult.to_bits());
        let mults = mults.flat_map(|bits| [low_u32(bits), high_u32(bits)]).chain(zeros.clone());
        let words = head.into_iter().chain(resolutions.chain(zeros).take(MAX_LEVELS));
        let patch = if self.patch > 1 { u32_of(self.patch) } else { 0 };
        let last = [patch, u32_of(self.embedding_rank.unwrap_or(0))];
        let words = words.chain(mults.take(2 * MAX_LEVELS)).chain(last);
        let mut record = [0; RECORD_LEN];
        for (bytes, word) in record.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        Ok(record)
    }

    const fn flags(&self) -> [bool; FLAGS] {
        [
            self.conv_resample,
            self.use_scale_shift_norm,
            self.resblock_updown,
            self.use_new_attention_order,
            self.with_fourier_features,
            self.ignore_time,
            self.input_projection,
        ]
    }
}

fn check_zero(what: &'static str, is_zero: bool) -> Result<()> {
    if is_zero { Ok(()) } else { Err(Error::NotZero { what }) }
}

/// The first `len` of the eight entries of a list, each turned into a value; the others must be
/// zero.
fn list<E: PartialEq + Default, T>(
    len: u8,
    entry: impl Fn(usize) -> E,
    value: impl Fn(E) -> T,
) -> Result<Vec<T, MAX_LEVELS>> {
    let most = u64::from(u32_of(MAX_LEVELS));
    check_range("length of a list of the net", u64::from(len), 0, most)?;
    let unused = usize::from(len)..MAX_LEVELS;
    let zero = unused.into_iter().all(|i| entry(i) == E::default());
    check_zero("unused entries of the net record", zero)?;
    let mut list = Vec::new();
    for i in 0..usize::from(len) {
        let pushed = list.push(value(entry(i)));
        debug_assert!(pushed.is_ok(), "the length is checked");
    }
    Ok(list)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A small net that has a value in every field.
    pub(crate) fn example() -> UNetConfig {
        UNetConfig {
            in_channels: 3,
            model_channels: 128,
            out_channels: 3,
            num_res_blocks: 4,
            attention_resolutions: [2, 4].into(),
            dropout: 0.25,
            channel_mult: [2.0, 2.0, 1.5].into(),
            conv_resample: false,
            num_classes: Some(10),
            num_heads: 1,
            num_head_channels: None,
            num_heads_upsample: Some(2),
            use_scale_shift_norm: true,
            resblock_updown: false,
            use_new_attention_order: true,
            with_fourier_features: false,
            ignore_time: false,
            input_projection: true,
            image_size: Some(32),
            patch: 2,
            embedding_rank: Some(24),
            ..UNetConfig::default()
        }
    }

    #[test]
    fn record_is_as_documented() {
        let record = example().emit().unwrap();
        assert_eq!(record[..8], [3, 0, 0, 0, 128, 0, 0, 0]);
        assert_eq!(record[20..32], [0, 0, 0, 0, 2, 0, 0, 0, 10, 0, 0, 0]);
        assert_eq!(record[36..48], [0, 0, 0x80, 0x3e, 0b100_1010, 0, 0, 0, 2, 3, 0, 0]);
        assert_eq!(record[48..60], [2, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(record[96..112], [0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(record[144..], [2, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(UNetConfig::parse(&record), Ok(example()));
        let whole = UNetConfig { patch: 1, embedding_rank: None, ..example() };
        assert_eq!(whole.emit().unwrap()[144..], [0; 16]);
    }

    #[test]
    fn refuses_fields_outside_their_range() {
        let mut record = example().emit().unwrap();
        record[0] = 0;
        let refused = Error::Range { what: "in_channels", found: 0, min: 1, max: 65536 };
        assert_eq!(UNetConfig::parse(&record), Err(refused));
        assert!(UNetConfig::parse(&record[1..]).is_err());
        for dropout in [f64::NAN, -0.5, 1.0, 1.0 - 1e-9, 1.5] {
            assert!(UNetConfig { dropout, ..example() }.emit().is_err());
        }
        for mult in [0.0, f64::NAN, f64::INFINITY, -1.0] {
            let channel_mult = [1.0, mult].into();
            let refused = UNetConfig { channel_mult, ..example() }.emit();
            assert!(refused.is_err());
        }
        assert!(UNetConfig { channel_mult: Vec::new(), ..example() }.emit().is_err());
        assert!(UNetConfig { num_classes: Some(0), ..example() }.emit().is_err());
        for patch in [0, 17] {
            assert!(UNetConfig { patch, ..example() }.emit().is_err());
        }
        assert!(UNetConfig { with_fourier_features: true, ..example() }.emit().is_err());
        for rank in [0, 4 * 128 + 1] {
            assert!(UNetConfig { embedding_rank: Some(rank), ..example() }.emit().is_err());
        }
        let nothing = UNetConfig { ignore_time: true, num_classes: None, ..example() };
        assert!(nothing.emit().is_err(), "a rank of no embedding");
    }

    proptest! {
        /// A record that parses is emitted again byte for byte: it has one form only.
        #[test]
        fn emit_undoes_parse(at in 0..RECORD_LEN, byte in any::<u8>()) {
            let mut record = example().emit().unwrap();
            record[at] = byte;
            if let Ok(config) = UNetConfig::parse(&record) {
                prop_assert_eq!(config.emit(), Ok(record));
            }
        }
    }
}
