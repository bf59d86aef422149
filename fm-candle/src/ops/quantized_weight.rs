//! Weights that stay packed in a device's memory, and become dense for as long as a layer runs.
//!
//! ```text
//! w[row, i] = levels[row / rows_per_codebook, code i of the row] scale[row]      in f32
//! ```
//! The codes lie as quant-core packs them ([`quant_core::packing`]); its codebooks, of whatever kind,
//! are tables of levels here. Both products are rounded once, so the f32 weights are those of
//! [`QuantizedMatrix::decode_row`] to the bit.

use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, bail};
use half::{bf16, f16};
use quant_core::matrix::QuantizedMatrix;

use super::decode::Decode;
use super::real::slice;

/// A constant weight as codes, levels and scales on a device.
#[derive(Clone, Debug)]
pub struct QuantizedWeight {
    codes: Tensor,
    levels: Tensor,
    scales: Tensor,
    shape: Shape,
    decode: Decode,
}

impl QuantizedWeight {
    /// Copies coded rows to `device`; they will be decoded to `dtype`: f32, f16 or bf16.
    ///
    /// # Shapes
    /// `shape` is that of the weight; its first axis are the rows.
    ///
    /// # Errors
    /// Another number of elements, another type, or a device without room.
    pub fn new(
        rows: QuantizedMatrix<'_>,
        shape: impl Into<Shape>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let (shape, quant_core::matrix::QuantLayout { bits, rows_per_codebook, .. }) =
            (shape.into(), rows.layout());
        if shape.elem_count() != rows.rows() * rows.row_len() {
            bail!("{} rows of {} codes are no {shape:?}", rows.rows(), rows.row_len())
        }
        if shape.elem_count() == 0 {
            bail!("packed weights {shape:?} have no element")
        }
        if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
            bail!("packed weights cannot be decoded to {}; use f32, f16 or bf16", dtype.as_str())
        }
        let rows_per_codebook =
            usize::try_from(rows_per_codebook).map_err(candle_core::Error::wrap)?.min(rows.rows());
        let mut levels = Vec::new();
        for first in (0..rows.rows()).step_by(rows_per_codebook) {
            let mut table = [0.0; 256];
            if let Some(codebook) = rows.codebook(first) {
                codebook.fill(None, &mut table);
            }
            levels.extend_from_slice(&table[..bits.code_count()]);
        }
        let scales = (0..rows.rows()).map(|row| rows.scale(row).unwrap_or(1.0));
        Ok(Self {
            codes: Tensor::new(rows.parts().codes, device)?,
            levels: Tensor::new(levels, device)?,
            scales: Tensor::from_iter(scales, device)?,
            shape,
            decode: Decode {
                bits,
                rows_per_codebook,
                rows: rows.rows(),
                row_len: rows.row_len(),
                dtype,
            },
        })
    }

    /// The type of the dense weight.
    pub fn dtype(&self) -> DType {
        self.decode.dtype
    }

    /// This weight in another shape.
    ///
    /// # Errors
    /// Another number of elements.
    pub fn reshape(self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        if shape.elem_count() != self.shape.elem_count() {
            bail!("a packed weight {:?} cannot be {shape:?}", self.shape)
        }
        Ok(Self { shape, ..self })
    }

    /// The bytes that the codes, levels and scales take.
    pub fn size_in_bytes(&self) -> usize {
        let bytes = |t: &Tensor| t.elem_count() * t.dtype().size_in_bytes();
        bytes(&self.codes) + bytes(&self.levels) + bytes(&self.scales)
    }

    /// The dense weight, made anew.
    ///
    /// # Errors
    /// A device without room for it.
    pub fn dense(&self) -> Result<Tensor> {
        let rows = self.codes.apply_op3_no_bwd(&self.levels, &self.scales, &self.decode)?;
        rows.reshape(&self.shape)
    }
}

impl CustomOp3 for Decode {
    fn name(&self) -> &'static str {
        "decode"
    }

    fn cpu_fwd(
        &self,
        codes: &CpuStorage,
        lc: &Layout,
        levels: &CpuStorage,
        ll: &Layout,
        scales: &CpuStorage,
        ls: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (codes, levels, scales) = (slice(codes, lc)?, slice(levels, ll)?, slice(scales, ls)?);
        let weight = match self.dtype {
            DType::F16 => CpuStorage::F16(self.apply(codes, levels, scales, f16::from_f32)),
            DType::BF16 => CpuStorage::BF16(self.apply(codes, levels, scales, bf16::from_f32)),
            _ => CpuStorage::F32(self.apply(codes, levels, scales, |x| x)),
        };
        Ok((weight, (self.rows, self.row_len).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        codes: &candle_core::CudaStorage,
        lc: &Layout,
        levels: &candle_core::CudaStorage,
        ll: &Layout,
        scales: &candle_core::CudaStorage,
        ls: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let weight = super::cuda::decode((codes, lc), (levels, ll), (scales, ls), self)?;
        Ok((weight, (self.rows, self.row_len).into()))
    }
}

#[cfg(test)]
mod tests {
    use quant_core::bits::Bits;
    use quant_core::codebook::CodebookFormat;
    use quant_core::matrix::{Parts, QuantLayout as Stored, RowScale};
    use quant_core::noise::Stream;

    use super::*;

    /// Bytes of codes, codebooks and scales, of which the numbers are small and finite.
    fn bytes(stored: Stored, rows: usize, row_len: usize) -> Parts<Vec<u8>> {
        let stream = Stream::new(7, 1);
        let lens = stored.byte_lens(rows, row_len).unwrap();
        let halves = |index, len: usize| -> Vec<u8> {
            let mut values = vec![0.0; len.div_ceil(2)];
            stream.fill_normal(index, 0, &mut values);
            values
                .into_iter()
                .flat_map(|v| half::f16::from_f32(v).to_le_bytes())
                .take(len)
                .collect()
        };
        let singles = |index, len: usize| -> Vec<u8> {
            let mut values = vec![0.0; len.div_ceil(4)];
            stream.fill_normal(index, 0, &mut values);
            values.into_iter().flat_map(f32::to_le_bytes).take(len).collect()
        };
        let codebooks = match stored.codebook {
            CodebookFormat::F16 => halves(0, lens.codebooks),
            CodebookFormat::F32 | CodebookFormat::Affine => singles(0, lens.codebooks),
            // A scale or a range each: the same one, and any entries.
            CodebookFormat::I16 | CodebookFormat::I8 => {
                let codebook = stored.codebook.codebook_len(stored.bits.code_count());
                let entries = (0..codebook - 4).map(|i| (i * 37) as u8);
                0.01f32
                    .to_le_bytes()
                    .into_iter()
                    .chain(entries)
                    .collect::<Vec<_>>()
                    .repeat(stored.codebook_count(rows))
            }
            CodebookFormat::Logarithmic => {
                let range = [0.5f32, 2.0, 0.25, 8.0].map(f32::to_le_bytes);
                range.as_flattened().repeat(stored.codebook_count(rows))
            }
        };
        let scales = match stored.row_scale {
            RowScale::F16 => halves(1, lens.scales),
            RowScale::Log => (0..lens.scales).map(|i| (i * 37) as u8).collect(),
            _ => singles(1, lens.scales),
        };
        let codes = (0..lens.codes as u32).map(|i| stream.word(2, i).to_le_bytes()[3]).collect();
        Parts { codebooks, scales, codes }
    }

    #[test]
    fn decodes_as_quant_core_does() {
        let codebooks = [
            CodebookFormat::F32,
            CodebookFormat::F16,
            CodebookFormat::I16,
            CodebookFormat::I8,
            CodebookFormat::Affine,
            CodebookFormat::Logarithmic,
        ];
        let scales = [RowScale::None, RowScale::F16, RowScale::F32, RowScale::Log];
        let cases =
            Bits::ALL.into_iter().flat_map(|bits| codebooks.map(|codebook| (bits, codebook)));
        for (bits, codebook) in cases {
            // Rows that end in the middle of a byte, single weights, a codebook for all.
            for (rows, row_len, shared) in [(5, 27, 2), (3, 1, 1), (4, 64, 9), (1, 13, 1)] {
                let row_scale = scales[(rows + usize::from(bits.get())) % 4];
                let stored = Stored { bits, codebook, rows_per_codebook: shared, row_scale };
                let bytes = bytes(stored, rows, row_len);
                let parts = Parts {
                    codebooks: &bytes.codebooks[..],
                    scales: &bytes.scales,
                    codes: &bytes.codes,
                };
                let coded = QuantizedMatrix::new(stored, rows, row_len, parts).unwrap();
                let mut expected = vec![0.0; rows * row_len];
                for (row, out) in expected.chunks_exact_mut(row_len).enumerate() {
                    coded.decode_row(row, out).unwrap();
                }
                let expected = Tensor::from_vec(expected, (rows, row_len), &Device::Cpu).unwrap();
                for dtype in [DType::F32, DType::F16, DType::BF16] {
                    let weight =
                        QuantizedWeight::new(coded, (rows, row_len), dtype, &Device::Cpu).unwrap();
                    let (found, expected) =
                        (weight.dense().unwrap(), expected.to_dtype(dtype).unwrap());
                    let [found, expected] = [found, expected].map(|t| {
                        let t = t.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
                        t.concat().into_iter().map(f32::to_bits).collect::<Vec<_>>()
                    });
                    assert_eq!(found, expected, "{stored:?}, {rows} x {row_len}, {dtype:?}");
                }
            }
        }
    }

    #[test]
    fn takes_the_memory_of_its_codes_and_levels() {
        let stored = Stored {
            bits: Bits::new(3).unwrap(),
            codebook: CodebookFormat::Affine,
            rows_per_codebook: 4,
            row_scale: RowScale::F32,
        };
        let bytes = bytes(stored, 10, 9);
        let parts =
            Parts { codebooks: &bytes.codebooks[..], scales: &bytes.scales, codes: &bytes.codes };
        let coded = QuantizedMatrix::new(stored, 10, 9, parts).unwrap();
        let of = |shape: &[usize], dtype| QuantizedWeight::new(coded, shape, dtype, &Device::Cpu);
        let weight = of(&[10, 3, 3, 1], DType::F16).unwrap();
        assert_eq!(weight.size_in_bytes(), 10 * 4 + 4 * (3 * 8 + 10));
        assert_eq!(weight.clone().reshape((10, 9)).unwrap().dense().unwrap().dims(), [10, 9]);
        assert!(weight.reshape((9, 9)).is_err());
        assert!(of(&[9, 9], DType::F16).is_err() && of(&[10, 9], DType::F64).is_err());
    }
}
