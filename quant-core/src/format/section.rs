//! The section table, and the names of the tensors.

#[cfg(feature = "alloc")]
use super::bytes::put;
use super::bytes::{check_zero, word};
use super::record_placement::RecordPlacement;
use crate::error::{Error, Result, check_range};
#[cfg(feature = "alloc")]
use crate::num::u32_of;
use crate::num::{index, u64_of};
#[cfg(feature = "alloc")]
use alloc::collections::BTreeSet;
#[cfg(feature = "alloc")]
use alloc::vec::Vec;
use core::ops::Range;

/// The bytes of an entry of the table.
pub(super) const ENTRY_LEN: usize = field::END;

mod field {
    pub(super) const KIND: usize = 0;
    pub(super) const OFFSET: usize = 4;
    pub(super) const LEN: usize = 8;
    pub(super) const ZERO: usize = 12;
    pub(super) const END: usize = 16;
}

/// The most bytes of a tensor's name.
pub const MAX_NAME_LEN: usize = 512;

/// Kind of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionKind(pub u32);

impl SectionKind {
    /// The net's configuration.
    pub const NET: Self = Self(1);
    /// The tensors' names.
    pub const NAMES: Self = Self(2);
    /// The device's memory plan.
    pub const MEMORY_PLAN: Self = Self(3);
    /// Scales of the activations for integer arithmetic.
    pub const ACTIVATION_SCALES: Self = Self(4);
    /// Corrections of biases against the mean error of the weights.
    pub const BIAS_CORRECTIONS: Self = Self(5);
    /// The self-test vector: an input with its output.
    pub const SELF_TEST: Self = Self(6);
    /// The self-test checksum: an input with the checksum of its output.
    pub const SELF_TEST_CHECKSUM: Self = Self(7);
}

/// An entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Section<'a> {
    pub(super) kind: SectionKind,
    pub(super) contents: &'a [u8],
}

/// The sections of a head, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sections<'a> {
    head: &'a [u8],
    table: &'a [u8],
}

impl<'a> Sections<'a> {
    /// Checks the table; `first` is where the contents start but for padding.
    pub(super) fn parse(
        placement: RecordPlacement,
        head: &'a [u8],
        table: &'a [u8],
        first: usize,
    ) -> Result<Self> {
        let mut end = first;
        let mut last = None;
        for entry in table.as_chunks::<ENTRY_LEN>().0 {
            let [kind, offset, len, zero] =
                [field::KIND, field::OFFSET, field::LEN, field::ZERO].map(|at| word(entry, at));
            check_range(
                "kind of a section",
                kind.into(),
                last.map_or(1, |k| k + 1),
                u32::MAX.into(),
            )?;
            last = Some(u64::from(kind));
            let start = end.saturating_add(placement.inner_padding(end));
            check_range("offset of a section", offset.into(), u64_of(start), u64_of(start))?;
            let needed = u64::from(len);
            let truncated = Error::Truncated {
                what: "section",
                needed,
                left: u64_of(head.len().saturating_sub(start)),
            };
            let gap = head.get(end..start).ok_or(truncated)?;
            check_zero("padding before a section", gap)?;
            end = start.saturating_add(index(len));
            head.get(start..end).ok_or(truncated)?;
            if zero != 0 {
                return Err(Error::NotZero { what: "last field of a section's entry" });
            }
        }
        let rest = head.get(end..).unwrap_or(&[]);
        let padding = u64_of(placement.padding(end));
        check_range("bytes after the last section", u64_of(rest.len()), padding, padding)?;
        check_zero("padding after the last section", rest)?;
        Ok(Self { head, table })
    }

    /// The contents of the section of a kind.
    pub(super) fn get(&self, kind: SectionKind) -> Option<&'a [u8]> {
        self.iter().find(|section| section.kind == kind).map(|section| section.contents)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Section<'a>> {
        self.table.as_chunks().0.iter().map(move |entry| {
            let contents = self.head.get(contents(entry));
            Section {
                kind: SectionKind(word(entry, field::KIND)),
                contents: contents.unwrap_or(&[]),
            }
        })
    }
}

/// The place of the contents of an entry's section.
fn contents(entry: &[u8; ENTRY_LEN]) -> Range<usize> {
    let [start, len] = [field::OFFSET, field::LEN].map(|at| index(word(entry, at)));
    start..start.saturating_add(len)
}

/// The place of the contents of a kind, by a table.
#[cfg(feature = "alloc")]
pub(super) fn find(table: &[[u8; ENTRY_LEN]], kind: SectionKind) -> Option<Range<usize>> {
    table.iter().find(|entry| word(*entry, field::KIND) == kind.0).map(contents)
}

/// The entry of the table for contents at an offset.
#[cfg(feature = "alloc")]
pub(super) fn emit_entry(kind: SectionKind, offset: u32, len: u32) -> [u8; ENTRY_LEN] {
    let mut entry = [0; ENTRY_LEN];
    put(&mut entry, field::KIND, kind.0.to_le_bytes());
    put(&mut entry, field::OFFSET, offset.to_le_bytes());
    put(&mut entry, field::LEN, len.to_le_bytes());
    entry
}

/// The names of the tensors in order; without a section each is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names<'a> {
    left: &'a [u8],
}

impl<'a> Names<'a> {
    pub(super) const fn new(section: Option<&'a [u8]>) -> Self {
        Self {
            left: match section {
                Some(section) => section,
                None => &[],
            },
        }
    }

    /// Makes the contents of the section.
    #[cfg(feature = "alloc")]
    pub(super) fn emit(names: &[&str]) -> Result<Vec<u8>> {
        let mut seen = BTreeSet::new();
        let mut section = Vec::new();
        for (tensor, name) in names.iter().enumerate() {
            check_range("length of a tensor name", u64_of(name.len()), 1, u64_of(MAX_NAME_LEN))?;
            if !seen.insert(name) {
                return Err(Error::DuplicateName { tensor });
            }
            section.extend(&u32_of(name.len()).to_le_bytes()[..2]);
            section.extend(name.as_bytes());
        }
        Ok(section)
    }

    /// Checks the names of `count` tensors.
    pub(super) fn check(mut self, count: usize) -> Result<()> {
        let all = self.clone();
        for tensor in 0..count {
            let left = u64_of(self.left.len());
            let truncated = Error::Truncated { what: "tensor name", needed: 3, left };
            let (&len, rest) = self.left.split_first_chunk().ok_or(truncated)?;
            let len = usize::from(u16::from_le_bytes(len));
            check_range("length of a tensor name", u64_of(len), 1, u64_of(MAX_NAME_LEN))?;
            let left = u64_of(rest.len());
            let truncated = Error::Truncated { what: "tensor name", needed: u64_of(len), left };
            let (name, rest) = rest.split_at_checked(len).ok_or(truncated)?;
            if core::str::from_utf8(name).is_err() {
                return Err(Error::NotUtf8 { tensor });
            }
            if all.clone().take(tensor).any(|other| other.as_bytes() == name) {
                return Err(Error::DuplicateName { tensor });
            }
            self.left = rest;
        }
        if self.left.is_empty() {
            Ok(())
        } else {
            Err(Error::Trailing { bytes: u64_of(self.left.len()) })
        }
    }
}

/// Endless: after the last name come empty ones.
impl<'a> Iterator for Names<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let next = || {
            let (&len, rest) = self.left.split_first_chunk()?;
            let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(len)))?;
            Some((core::str::from_utf8(name).ok()?, rest))
        };
        let (name, rest) = next().unwrap_or(("", &[]));
        self.left = rest;
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sections of 3 and 2 bytes after a table of 32.
    fn head() -> [u8; 40] {
        let mut head = [0; 40];
        for (at, word) in [(0, 1), (4, 32), (8, 3), (16, 9), (20, 36), (24, 2_u32)] {
            head[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        head[32..35].fill(7);
        head[36..38].fill(8);
        head
    }

    #[test]
    fn finds_sections_by_kind() {
        let head = head();
        let sections = Sections::parse(RecordPlacement::Inline, &head, &head[..32], 32).unwrap();
        assert_eq!(sections.get(SectionKind::NET), Some(&[7; 3][..]));
        assert_eq!(sections.get(SectionKind(9)), Some(&[8; 2][..]));
        assert_eq!(sections.get(SectionKind::NAMES), None);
    }

    #[test]
    fn refuses_gaps_overlaps_and_repeated_kinds() {
        let with = |at: usize, byte: u8| {
            let mut head = head();
            head[at] = byte;
            Sections::parse(RecordPlacement::Inline, &head, &head[..32], 32).map(|_| ())
        };
        assert_eq!(with(0, 1), Ok(()));
        for (at, byte) in [
            (0, 0),   // kind 0
            (16, 1),  // the same kind twice
            (4, 16),  // into the table
            (4, 36),  // a gap
            (8, 5),   // reaches into the next section
            (8, 200), // reaches past the head
            (12, 1),  // the field that is zero
            (35, 1),  // padding between
            (39, 1),  // padding after
        ] {
            assert!(with(at, byte).is_err(), "byte {at} = {byte}");
        }
        for placement in [RecordPlacement::Table, RecordPlacement::Inline] {
            let padding = |first| Sections::parse(placement, &[0; 64], &[], first).is_ok();
            assert!(padding(64) && padding(61), "padding to 64 and to 4");
            assert!(!padding(0), "more than padding after");
        }
    }

    #[test]
    fn names_are_distinct_text_without_a_rest() {
        let names = |bytes| Names::new(Some(bytes));
        assert_eq!(names(b"\x01\0a\x02\0bc").check(2), Ok(()));
        assert!(names(b"\x01\0a\x02\0bc").take(3).eq(["a", "bc", ""]));
        assert_eq!(names(b"\x01\0a\x01\0a").check(2), Err(Error::DuplicateName { tensor: 1 }));
        assert_eq!(names(b"\x01\0\xff").check(1), Err(Error::NotUtf8 { tensor: 0 }));
        assert_eq!(names(b"\x01\0a\0").check(1), Err(Error::Trailing { bytes: 1 }));
        assert!(names(b"\x02\0a").check(1).is_err());
        assert!(names(b"\0\0").check(1).is_err());
        assert!(names(b"").check(1).is_err());
    }
}
