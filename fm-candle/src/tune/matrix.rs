//! A weight under tuning: codes, levels and scales of its own, and their gradients.

use candle_core::{Device, Tensor, Var};
use quant_core::matrix::rows_of;
use quant_core::quantize::{QuantizedTensor, Tables};
use rayon::prelude::*;

use crate::error::Result;

/// A matrix of weights that are made of codes, levels and scales.
pub(super) struct TunedMatrix {
    /// Place of the parameter in the state dict.
    pub(super) index: usize,
    shape: Vec<usize>,
    row_len: usize,
    originals: Vec<f32>,
    /// The tables as they were fitted: units of what is tuned.
    fitted: Tables,
    /// Size of a table's levels, `[tables]`: the root mean square.
    table_units: Vec<f32>,
    /// The tables of the last refresh, as they are stored.
    stored: Tables,
    /// The codes of the last refresh.
    codes: Vec<u8>,
    /// Weights before rounding in units of their level and scale, `[rows, row_len]`.
    pub(super) latent: Var,
    /// Levels in units of their table, `[tables * K]`.
    pub(super) levels: Var,
    /// Scales over those that were fitted, `[rows]`; none where rows have none.
    pub(super) scales: Option<Var>,
}

impl TunedMatrix {
    /// The weights `originals` as `tensor` quantizes them, by rounding `targets` where it did not round
    /// those; `None` where it has no codes.
    pub(super) fn new(
        index: usize,
        originals: Vec<f32>,
        targets: Option<&[f32]>,
        tensor: &QuantizedTensor,
    ) -> Result<Option<Self>> {
        let Some(fitted) = Tables::of(tensor) else { return Ok(None) };
        let shape = tensor.shape().to_vec();
        let (rows, row_len) = rows_of(&shape)?;
        let units = fitted.levels.chunks(fitted.rate.levels()).map(|table| {
            let square = table.iter().map(|level| level * level).sum::<f32>() / table.len() as f32;
            square.sqrt().max(f32::MIN_POSITIVE)
        });
        let table_units: Vec<f32> = units.collect();
        let count = fitted.rate.levels();
        let levels: Vec<f32> = fitted
            .levels
            .iter()
            .enumerate()
            .map(|(i, level)| level / table_units[i / count])
            .collect();
        let unit = |row: usize| fitted.row_scale(row) * table_units[row / fitted.rows_per_table];
        let rounded = targets.unwrap_or(&originals);
        let latent: Vec<f32> = (0..rows)
            .flat_map(|row| {
                let unit = unit(row).max(f32::MIN_POSITIVE);
                rounded[row * row_len..][..row_len].iter().map(move |w| w / unit)
            })
            .collect();
        let var = |values: &[f32]| Var::from_slice(values, values.len(), &Device::Cpu);
        Ok(Some(Self {
            index,
            latent: var(&latent)?,
            levels: var(&levels)?,
            scales: (!fitted.scales.is_empty()).then(|| var(&vec![1.0; rows])).transpose()?,
            codes: vec![0; originals.len()],
            stored: fitted.stored(),
            fitted,
            table_units,
            shape,
            row_len,
            originals,
        }))
    }

    /// The tables now.
    fn tables(&self) -> Result<Tables> {
        let mut tables = self.fitted.clone();
        let count = tables.rate.levels();
        for (i, (to, level)) in
            tables.levels.iter_mut().zip(self.levels.to_vec1::<f32>()?).enumerate()
        {
            *to = level * self.table_units[i / count];
        }
        if let Some(scales) = &self.scales {
            for (to, scale) in tables.scales.iter_mut().zip(scales.to_vec1::<f32>()?) {
                *to *= scale;
            }
        }
        Ok(tables)
    }

    /// The latent weights in the weights' own units.
    fn latent_weights(&self) -> Result<Vec<f32>> {
        let mut latent = self.latent.to_vec1::<f32>()?;
        let len = self.row_len.max(1);
        latent.par_chunks_mut(len).enumerate().for_each(|(row, latent)| {
            let unit =
                self.fitted.row_scale(row) * self.table_units[row / self.fitted.rows_per_table];
            for w in latent {
                *w *= unit;
            }
        });
        Ok(latent)
    }

    /// Finds codes, levels and scales anew and puts the weights that they make into `var`.
    pub(super) fn refresh(&mut self, var: &Var) -> Result<()> {
        let stored = self.tables()?.stored();
        let latent = self.latent_weights()?;
        let mut values = vec![0f32; latent.len()];
        let len = self.row_len.max(1);
        let rows = latent.par_chunks(len).zip(self.codes.par_chunks_mut(len));
        rows.zip(values.par_chunks_mut(len)).enumerate().for_each(
            |(row, ((latent, codes), values))| {
                stored.encode_row(row, latent, codes);
                let (levels, scale) = (stored.row_levels(row), stored.row_scale(row));
                for (value, &code) in values.iter_mut().zip(&*codes) {
                    *value = levels[usize::from(code)] * scale;
                }
            },
        );
        self.stored = stored;
        var.set(&Tensor::from_vec(values, &*self.shape, var.device())?)?;
        Ok(())
    }

    /// The gradients of levels, scales and latent weights from that of the weights.
    pub(super) fn gradients(&self, weights: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let grads = weights.flatten_all()?.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
        let (len, count) = (self.row_len.max(1), self.fitted.rate.levels());
        let per_table = self.fitted.rows_per_table;
        let sums: Vec<(f32, Vec<f32>)> = grads
            .par_chunks(len)
            .zip(self.codes.par_chunks(len))
            .enumerate()
            .map(|(row, (grads, codes))| {
                let (levels, scale) = (self.stored.row_levels(row), self.stored.row_scale(row));
                let mut by_code = vec![0f32; count];
                for (&grad, &code) in grads.iter().zip(codes) {
                    by_code[usize::from(code)] += grad;
                }
                let of_scale = by_code.iter().zip(levels).map(|(grad, level)| grad * level).sum();
                let unit = self.table_units[row / per_table];
                for grad in &mut by_code {
                    *grad *= scale * unit;
                }
                (of_scale, by_code)
            })
            .collect();
        let mut levels = vec![0f32; self.fitted.levels.len()];
        for (row, (_, by_code)) in sums.iter().enumerate() {
            let first = row / per_table * count;
            for (sum, grad) in levels[first..first + count].iter_mut().zip(by_code) {
                *sum += grad;
            }
        }
        let scales: Vec<f32> =
            sums.iter().zip(&self.fitted.scales).map(|((grad, _), scale)| grad * scale).collect();
        let mut latent = grads;
        latent.par_chunks_mut(len).enumerate().for_each(|(row, latent)| {
            let unit = self.fitted.row_scale(row) * self.table_units[row / per_table];
            for grad in latent {
                *grad *= unit;
            }
        });
        let tensor = |values: Vec<f32>| -> Result<Option<Tensor>> {
            let n = values.len();
            Ok(Some(Tensor::from_vec(values, n, &Device::Cpu)?))
        };
        let scales = if self.scales.is_some() { tensor(scales)? } else { None };
        Ok([tensor(levels)?, scales, tensor(latent)?])
    }

    /// The tensor as the packed file stores it.
    pub(super) fn packed(&self) -> Result<QuantizedTensor> {
        let latent = self.latent_weights()?;
        Ok(self.tables()?.quantize(&latent, &self.originals, &self.shape)?)
    }
}

#[cfg(test)]
mod tests {
    use quant_core::bits::Bits;
    use quant_core::matrix::RowScale;
    use quant_core::quantize::CodebookDtype;

    use super::*;

    /// Six rows of eight weights on two tables of four levels, with scales, and what each counts.
    fn matrix() -> (TunedMatrix, Vec<f32>) {
        let tables = Tables {
            rate: Bits::new(2).unwrap().into(),
            codebook_dtype: CodebookDtype::F16,
            rows_per_table: 3,
            levels: vec![-1.5, -0.5, 0.25, 2.0, -4.0, 1.0, 2.0, 3.0],
            scales: vec![0.5, 1.0, 2.0, 0.25, 1.5, 1.0],
            row_scale: RowScale::F16,
        };
        let ramp: Vec<f32> = (0..48).map(|i| (i as f32 * 1.7).sin() * 4.0).collect();
        let values = tables.quantize(&ramp, &ramp, &[6, 8]).unwrap().dequantized();
        let tensor = tables.quantize(&values, &values, &[6, 8]).unwrap();
        let counts = (0..48).map(|i| (i as f32 * 0.9).cos()).collect();
        (TunedMatrix::new(0, values, None, &tensor).unwrap().unwrap(), counts)
    }

    /// The sum of the weights as they count.
    fn sum(matrix: &mut TunedMatrix, counts: &[f32]) -> f64 {
        let var = Var::zeros((6, 8), candle_core::DType::F32, &Device::Cpu).unwrap();
        matrix.refresh(&var).unwrap();
        let values = var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.iter().zip(counts).map(|(&w, &c)| f64::from(w) * f64::from(c)).sum()
    }

    #[test]
    fn a_fresh_matrix_is_the_quantized_tensor() {
        let (mut matrix, _) = matrix();
        let var = Var::zeros((6, 8), candle_core::DType::F32, &Device::Cpu).unwrap();
        matrix.refresh(&var).unwrap();
        let values = var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values, matrix.originals);
        assert_eq!(matrix.packed().unwrap().dequantized(), values);
    }

    #[test]
    fn gradients_of_levels_and_scales_are_finite_differences() {
        let (mut matrix, counts) = matrix();
        sum(&mut matrix, &counts);
        let weights = Tensor::from_vec(counts.clone(), (6, 8), &Device::Cpu).unwrap();
        let [levels, scales, latent] = matrix.gradients(&weights).unwrap();
        for (var, gradient) in
            [(matrix.levels.clone(), levels), (matrix.scales.clone().unwrap(), scales)]
        {
            let gradient = gradient.unwrap().to_vec1::<f32>().unwrap();
            let values = var.to_vec1::<f32>().unwrap();
            for (i, &expected) in gradient.iter().enumerate() {
                let mut at = |by: f32| {
                    let mut moved = values.clone();
                    moved[i] += by;
                    var.set(&Tensor::new(&moved[..], &Device::Cpu).unwrap()).unwrap();
                    sum(&mut matrix, &counts)
                };
                let found = (at(0.03) - at(-0.03)) / 0.06;
                let error = (found - f64::from(expected)).abs();
                assert!(error < 0.02 * found.abs(), "{i}: {found} {expected}");
                var.set(&Tensor::new(&values[..], &Device::Cpu).unwrap()).unwrap();
            }
        }
        // Straight through, in units of scale and table.
        let latent = latent.unwrap().to_vec1::<f32>().unwrap();
        let unit = matrix.fitted.row_scale(4) * matrix.table_units[1];
        assert!((latent[35] - counts[35] * unit).abs() < 1e-6);
    }

    #[test]
    fn a_latent_weight_that_passes_the_middle_takes_the_next_level() {
        let (mut matrix, counts) = matrix();
        sum(&mut matrix, &counts);
        let (before, mut latent) = (matrix.codes.clone(), matrix.latent.to_vec1::<f32>().unwrap());
        let i = before.iter().position(|&code| code == 1).unwrap();
        latent[i] += 10.0;
        matrix.latent.set(&Tensor::new(&latent[..], &Device::Cpu).unwrap()).unwrap();
        sum(&mut matrix, &counts);
        assert_eq!(matrix.codes[i], 3);
        let others = matrix.codes.iter().zip(&before).enumerate().filter(|&(j, _)| j != i);
        assert!(others.into_iter().all(|(_, (a, b))| a == b));
    }
}
