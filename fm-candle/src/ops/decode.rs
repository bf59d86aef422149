//! The sizes of rows of codes, and how they are decoded: the definition of a GPU's kernel.

use candle_core::DType;
use quant_core::bits::Bits;

/// The coding of the rows, and the type of their values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decode {
    /// Width of a code.
    pub bits: Bits,
    /// At least 1.
    pub rows_per_codebook: usize,
    pub rows: usize,
    pub row_len: usize,
    /// f32, f16 or bf16.
    pub dtype: DType,
}

impl Decode {
    /// Bytes of a row of codes.
    pub(super) fn row_bytes(&self) -> usize {
        self.bits.packed_len(self.row_len)
    }

    /// Decodes the rows as `decode` in `cuda/kernels.cu` does, index by index; `store` rounds to
    /// the result's type.
    pub(super) fn apply<T: Copy>(
        &self,
        codes: &[u8],
        levels: &[f32],
        scales: &[f32],
        store: fn(f32) -> T,
    ) -> Vec<T> {
        let (bits, mask) = (usize::from(self.bits.get()), usize::from(self.bits.max_code()));
        let mut out = Vec::with_capacity(self.rows * self.row_len);
        for row in 0..self.rows {
            let levels = &levels[(row / self.rows_per_codebook) << bits..][..=mask];
            let table: Vec<T> = levels.iter().map(|level| store(level * scales[row])).collect();
            let codes = &codes[row * self.row_bytes()..][..self.row_bytes()];
            for i in 0..self.row_len {
                let bit = i % 8 * bits;
                let (at, shift) = (i / 8 * bits + bit / 8, bit % 8);
                let mut code = usize::from(codes[at]);
                if shift + bits > 8 {
                    code |= usize::from(codes[at + 1]) << 8;
                }
                out.push(table[(code >> shift) & mask]);
            }
        }
        out
    }
}
