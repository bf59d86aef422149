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
    /// Levels in units of their table, `[tables * 2^bits]`.
    pub(super) levels: Var,
    /// Scales over those that were fitted, `[rows]`; none where rows have none.
    pub(super) scales: Option<Var>,
}

impl TunedMatrix {
    /// The weights `originals` as `tensor` quantizes them; `None` where it has no codes.
    pub(super) fn new(
        index: usize,
        originals: Vec<f32>,
        tensor: &QuantizedTensor,
    ) -> Result<Option<Self>> {
        let Some(fitted) = Tables::of(tensor) else { return Ok(None) };
        let shape = tensor.shape().to_vec();
        let (rows, row_len) = rows_of(&shape)?;
        let units = fitted.levels.chunks(fitted.bits.code_count()).map(|table| {
            let square = table.iter().map(|level| level * level).sum::<f32>() / table.len() as f32;
            square.sqrt().max(f32::MIN_POSITIVE)
        });
        let table_units: Vec<f32> = units.collect();
        let count = fitted.bits.code_count();
        let levels: Vec<f32> = fitted
            .levels
            .iter()
            .enumerate()
            .map(|(i, level)| level / table_units[i / count])
            .collect();
        let unit = |row: usize| fitted.row_scale(row) * table_units[row / fitted.rows_per_table];
        let latent: Vec<f32> = (0..rows)
            .flat_map(|row| {
                let unit = unit(row).max(f32::MIN_POSITIVE);
                originals[row * row_len..][..row_len].iter().map(move |w| w / unit)
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
        let count = tables.bits.code_count();
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
        let (len, count) = (self.row_len.max(1), self.fitted.bits.code_count());
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
