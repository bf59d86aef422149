//! The step of the vector kernels: 64 packed codes, whatever their width.
//!
//! A block is 8·B bytes, so the loops get it, and the slice for its results, as arrays. A word that
//! holds a part of it is read from where the part starts, or as far on as the block reaches, and
//! then the codes start some whole bytes up in the word. With 1 bit and words of four bytes for 8
//! codes each:
//!
//! ```text
//! byte      0 1 2 3 4 5 6 7
//! part 3          [-----]           reads from byte 3, shift 0
//! part 4            [-----]         reads from byte 4, shift 0
//! part 6            [-----]         reads from byte 4, shift 16
//! ```

/// The codes of a block.
pub(super) const CODES: usize = 64;

/// The bytes of a block: eight times eight codes, which take B bytes.
pub(super) type CodeBlock<const B: usize> = [[u8; B]; 8];

/// The whole blocks at the start of `bytes`.
pub(super) fn blocks<const B: usize>(bytes: &[u8]) -> &[CodeBlock<B>] {
    bytes.as_chunks().0.as_chunks().0
}

/// Words of `SIZE` bytes that hold `codes` neighbouring codes of `bits` bits each.
#[derive(Clone, Copy)]
pub(super) struct Words<const SIZE: usize> {
    pub(super) bits: usize,
    pub(super) codes: usize,
}

impl<const SIZE: usize> Words<SIZE> {
    /// The byte where the word of a part is read.
    const fn start(self, part: usize) -> usize {
        let (first, last) = (self.codes * self.bits / 8 * part, 8 * self.bits - SIZE);
        if first < last { first } else { last }
    }

    /// The bit of its word where a part starts.
    pub(super) const fn shift(self, part: usize) -> usize {
        self.codes * self.bits * part - 8 * self.start(part)
    }

    /// The word of a part.
    pub(super) fn read<const B: usize>(self, block: &CodeBlock<B>, part: usize) -> [u8; SIZE] {
        let bytes = block.as_flattened().get(self.start(part)..);
        let bytes = bytes.and_then(|bytes| bytes.first_chunk());
        bytes.copied().unwrap_or([0; SIZE])
    }
}
