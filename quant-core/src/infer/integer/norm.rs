//! The norm of 32 groups over bytes: sums are exact.

use super::super::float::{EPS, finish};
use super::super::map::LayerInput;
use super::super::op::{Modulation, Params};
use super::super::workspace::{Workspace, first};
use super::arena::bytes;
use super::input_quantizer::FixedPointAffine;
use crate::error::Result;
use crate::net::GROUPS;
use crate::num;

/// Mean and variance of the bytes of a plane.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct PlaneStatistics {
    mean: f32,
    /// Mean square of the distances from the mean.
    var: f32,
    count: f32,
}

impl PlaneStatistics {
    /// The mean and variance of bytes, each rounded once.
    fn new(plane: &[i8]) -> Self {
        let (mut sum, mut squares) = (0i64, 0i64);
        // Sums of a part fit in 32 bits.
        for part in plane.chunks(1 << 16) {
            let (mut part_sum, mut part_squares) = (0, 0);
            for &q in part {
                let q = i32::from(q);
                part_sum += q;
                part_squares += q * q;
            }
            (sum, squares) = (sum + i64::from(part_sum), squares + i64::from(part_squares));
        }
        let len = i64::try_from(plane.len()).unwrap_or(1).max(1);
        let count = num::f32_of_i64(len);
        // Lengths stay below 2^32: below 2^32 2^46, it fits.
        let spread = len.wrapping_mul(squares).wrapping_sub(sum.wrapping_mul(sum));
        let var = num::f32_of_i64(spread) / count / count;
        Self { mean: num::f32_of_i64(sum) / count, var, count }
    }
}

/// Gains and offsets of a norm, as those of floats, and the largest magnitude after it.
pub(super) fn norm(
    params: &Params<'_>,
    source: &LayerInput,
    modulation: Modulation,
    workspace: &mut Workspace<'_>,
) -> Result<()> {
    let channels = source.channels();
    let Workspace { maps, vector, affine, modulation: values, peak, .. } = workspace;
    let maps = bytes(maps);
    let shift = |channel: usize| {
        let shift = values.get(channel).copied().unwrap_or(0.0);
        if modulation == Modulation::Shift { shift } else { 0.0 }
    };
    let affine = first(affine, 2 * channels)?.as_chunks_mut::<2>().0;
    for (group, members) in affine.chunks_mut((channels / GROUPS).max(1)).enumerate() {
        let first = group * members.len();
        // Means and variances of the channels, kept where gain and offset will be.
        let (mut mean, mut count) = (0.0, 0.0);
        for (channel, member) in (first..).zip(members.iter_mut()) {
            let PlaneStatistics { mean: own, var, count: pixels } =
                PlaneStatistics::new(source.plane(maps, channel));
            let scale = source.values(channel).scale();
            let pixels = pixels * num::f32_of_usize(source.repeats(channel));
            *member = [scale * own + shift(channel), scale * scale * var];
            mean += pixels * member[0];
            count += pixels;
        }
        let mean = mean / count;
        let mut var = 0.0;
        for (channel, [own, spread]) in (first..).zip(members.iter()) {
            let pixels = source.plane(maps, channel).len() * source.repeats(channel);
            let off = own - mean;
            var += num::f32_of_usize(pixels) / count * (spread + off * off);
        }
        let scale = 1.0 / num::sqrt(var + EPS);
        for (channel, member) in (first..).zip(members.iter_mut()) {
            *member = [scale, (shift(channel) - mean) * scale];
        }
    }
    let modulated = (modulation == Modulation::ScaleShift).then_some(&**values);
    finish(params, channels, vector, affine, modulated)?;
    *peak = 0;
    for (channel, &affine) in affine.iter().enumerate() {
        let line = FixedPointAffine::new(affine, source.values(channel).scale());
        let plane = source.plane(maps, channel).iter();
        let (low, high) = plane.fold((0, 0), |(low, high), &q| (q.min(low), q.max(high)));
        for end in [low, high] {
            let y = i32::try_from(line.of(end).unsigned_abs()).unwrap_or(i32::MAX);
            *peak = (*peak).max(y);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_exact() {
        assert_eq!(
            PlaneStatistics::new(&[1, 2, 3, 6]),
            PlaneStatistics { mean: 3.0, var: 3.5, count: 4.0 }
        );
        let far = std::vec![100i8; 200_000];
        assert_eq!(PlaneStatistics::new(&far).var, 0.0);
    }
}
