//! The place of tensor records in a packed file: since version 1.1 before the data of each tensor, in
//! version 1.0 in a table of the head.

use super::bytes::padding;

/// The bytes of a record in the table.
pub(super) const RECORD_LEN: usize = 64;

/// Place of the tensor records of a packed file, and the paddings that go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordPlacement {
    /// Version 1.0: a table of records in the head, data at multiples of 64.
    Table,
    /// Version 1.1: each record before its data, at multiples of 4.
    Inline,
}

impl RecordPlacement {
    /// The required features of its files.
    pub(super) const fn features(self) -> u32 {
        match self {
            Self::Table => 0,
            Self::Inline => 1 << 1,
        }
    }

    /// The placement in a file with these required features; `None` for others.
    pub(super) fn of_features(features: u32) -> Option<Self> {
        [Self::Table, Self::Inline].into_iter().find(|placement| placement.features() == features)
    }

    /// The bytes of a tensor's record in the head.
    pub(super) const fn record_in_head(self) -> usize {
        match self {
            Self::Table => RECORD_LEN,
            Self::Inline => 0,
        }
    }

    /// Bytes from `end` to the payload, or to a tensor's data.
    pub(super) const fn padding(self, end: usize) -> usize {
        match self {
            Self::Table => padding(end, 64),
            Self::Inline => padding(end, 4),
        }
    }

    /// Bytes from `end` to a section, or to the codes within a tensor's data.
    pub(super) const fn inner_padding(self, end: usize) -> usize {
        match self {
            Self::Table => padding(end, 16),
            Self::Inline => padding(end, 4),
        }
    }
}
