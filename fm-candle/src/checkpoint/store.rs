//! An opened file of any kind: a checked table of contents, and tensors on demand.

use std::borrow::Cow;

use super::entry::{LeftOut, TensorEntry};
use super::packed::PackedFile;
use super::pth::{self, RecordPart, TorchArchive};
use super::safetensors::Reader;
use crate::mapped::Mapped;

/// The kind of a file, told by its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Torch's zip archive (1.6 and later).
    Torch,
    /// Torch's stream of pickles (before 1.6).
    TorchLegacy,
    /// Safetensors.
    Safetensors,
    /// Our packed file.
    Packed,
}

impl FileKind {
    /// The kind of a file that begins so, told by its first 64 bytes; none for other files.
    pub fn of(head: &[u8]) -> Option<Self> {
        if head.starts_with(&quant_core::format::MAGIC) {
            Some(Self::Packed)
        } else if head.starts_with(b"PK") {
            Some(Self::Torch)
        } else if pth::is_legacy(&head[..head.len().min(64)]) {
            Some(Self::TorchLegacy)
        } else if head.get(8) == Some(&b'{') {
            Some(Self::Safetensors)
        } else {
            None
        }
    }
}

/// An opened file. An error is a reason, without the names of file and tensor.
#[derive(Debug)]
pub(super) enum Store {
    Torch(FileKind, TorchArchive),
    Safetensors(Reader),
    Packed(PackedFile),
}

impl Store {
    /// Opens a file as what its first bytes say.
    ///
    /// # Errors
    ///
    /// That it is of no known kind; why it is damaged or hostile.
    pub(super) fn open(file: Mapped, part: RecordPart) -> Result<Self, String> {
        let Some(kind) = FileKind::of(&file) else {
            return Err(
                "is no torch checkpoint (.pth, .pt), no .safetensors and no packed .fmq file"
                    .into(),
            );
        };
        Ok(match kind {
            FileKind::Packed => Self::Packed(PackedFile::open(file)?),
            FileKind::Torch => Self::Torch(kind, TorchArchive::open_zip(file, part)?),
            FileKind::TorchLegacy => Self::Torch(kind, TorchArchive::open_legacy(file, part)?),
            FileKind::Safetensors => Self::Safetensors(Reader::open(file)?),
        })
    }

    pub(super) const fn kind(&self) -> FileKind {
        match self {
            Self::Torch(kind, _) => *kind,
            Self::Safetensors(_) => FileKind::Safetensors,
            Self::Packed(_) => FileKind::Packed,
        }
    }

    /// The tensors, in the order of the state dict.
    pub(super) fn entries(&self) -> &[TensorEntry] {
        match self {
            Self::Torch(_, archive) => archive.entries(),
            Self::Safetensors(reader) => reader.entries(),
            Self::Packed(packed) => packed.entries(),
        }
    }

    /// The file's metadata, in its order.
    pub(super) fn metadata(&self) -> &[(String, String)] {
        match self {
            Self::Torch(_, archive) => archive.metadata(),
            Self::Safetensors(reader) => reader.metadata(),
            Self::Packed(packed) => packed.metadata(),
        }
    }

    /// Tensors of the state dicts that cannot be weights.
    pub(super) fn left_out(&self) -> &[LeftOut] {
        self.torch().map_or(&[], TorchArchive::left_out)
    }

    /// Bytes to read and to make for the tensor of the entry at `index`, found without reading
    /// them; 0 where the file's table of contents bounds them by its length.
    pub(super) fn cost(&self, index: usize) -> Result<u64, String> {
        self.torch().map_or(Ok(0), |archive| archive.cost(index))
    }

    /// The elements of the entry at `index`, which is below the number of entries:
    /// little-endian, row-major, as many as its shape says.
    pub(super) fn bytes(&self, index: usize) -> Result<Cow<'_, [u8]>, String> {
        match self {
            Self::Torch(_, archive) => archive.bytes(index),
            Self::Safetensors(reader) => Ok(Cow::Borrowed(reader.bytes(index))),
            Self::Packed(packed) => packed.bytes(index).map(Cow::Owned),
        }
    }

    /// The packed file, if it is one.
    pub(super) const fn packed(&self) -> Option<&PackedFile> {
        if let Self::Packed(packed) = self { Some(packed) } else { None }
    }

    /// The torch file, if it is one.
    pub(super) const fn torch(&self) -> Option<&TorchArchive> {
        if let Self::Torch(_, archive) = self { Some(archive) } else { None }
    }
}
