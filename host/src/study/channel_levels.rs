//! The levels that stand for a channel of weights in each packed file, for histograms.

use anyhow::{Context, Result};
use fm_candle::checkpoint::Source;
use fm_candle::{DType, Tensor};

use super::Study;
use crate::report::{Levels, Row};

/// Bits up to which levels are few enough to be drawn.
const MAX_BITS: u8 = 4;

/// The first channel of the largest tensor, and its levels in the rows of few bits; none where there
/// are no such rows.
pub(super) fn of(study: &Study, rows: &[Row]) -> Result<Option<Levels>> {
    let matrices = study.tensors.iter().filter(|(_, tensor)| tensor.rank() > 1);
    let Some((name, tensor)) = matrices.max_by_key(|(_, tensor)| tensor.elem_count()) else {
        return Ok(None);
    };
    let mut levels = Vec::new();
    for row in rows.iter().filter(|row| row.bits.code_bits().get() <= MAX_BITS) {
        let path = study.packed_path(row.method()?, row.bits);
        let packed = Source::open(&path, false)?.load()?;
        let tensor =
            packed.tensor(name).with_context(|| format!("`{}`: {name}", path.display()))?;
        let mut values = first_channel(tensor)?;
        values.sort_by(f32::total_cmp);
        values.dedup();
        levels.push((row.scheme.clone(), row.bits, values));
    }
    let weights = first_channel(tensor)?;
    let known = Levels { tensor: name.clone(), channel: 0, weights, rows: levels };
    Ok((!known.rows.is_empty()).then_some(known))
}

fn first_channel(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.narrow(0, 0, 1)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}
