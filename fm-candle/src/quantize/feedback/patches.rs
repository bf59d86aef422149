//! Patches of a layer's input: what each of its outputs is a product with.

use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::model::InputObserver;
use crate::random::Domain;

/// Takes some patches of the inputs of one convolution or linear layer.
///
/// A patch holds its values in the order of a row of the weight: channel, line, column.
pub(super) struct PatchRecorder {
    /// Side of the kernel.
    kernel: usize,
    /// Patches of a run, at most.
    most: u32,
    seed: u64,
    /// The layer's place, which with the run chooses the patches.
    layer: u64,
    taken: Mutex<RecordedRun>,
}

/// The patches of the last run, and the number of the next.
#[derive(Default)]
struct RecordedRun {
    run: u32,
    patches: Vec<f32>,
}

impl PatchRecorder {
    /// Patches of inputs of the weight of this shape, at most `most` of a run.
    pub(super) fn new(shape: &[usize], most: u32, seed: u64, layer: u64) -> Self {
        let kernel = shape.get(3).copied().unwrap_or(1);
        Self { kernel, most, seed, layer, taken: Mutex::default() }
    }

    /// The patches of the last run, `[patches, columns of the weight]`; none where the layer has not
    /// run.
    pub(super) fn take(&self) -> Vec<f32> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        core::mem::take(&mut taken.patches)
    }
}

impl InputObserver for PatchRecorder {
    fn observe(&self, x: &Tensor, stride: usize, padding: usize) -> Result<()> {
        let (n, h, w, c) = x.dims4()?;
        let values = x.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let k = self.kernel;
        let outputs = |side: usize| (side + 2 * padding).saturating_sub(k) / stride + 1;
        let (lines, columns) = (outputs(h), outputs(w));
        let all = n * lines * columns;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = u32::try_from(all).map_err(|_| Error::Config("too many pixels".into()))?;
        let stream = Domain::FeedbackPatch.stream(self.seed);
        let place = (self.layer << 32) | u64::from(taken.run);
        let picks: Vec<usize> = if count <= self.most {
            (0..all).collect()
        } else {
            (0..self.most).map(|i| stream.below(place, i, count) as usize).collect()
        };
        let mut patches = vec![0f32; picks.len() * c * k * k];
        patches.par_chunks_mut((c * k * k).max(1)).zip(picks).for_each(|(patch, pick)| {
            let (image, line, column) =
                (pick / (lines * columns), pick / columns % lines, pick % columns);
            for ky in 0..k {
                let Some(y) = (line * stride + ky).checked_sub(padding).filter(|y| *y < h) else {
                    continue;
                };
                for kx in 0..k {
                    let from = (column * stride + kx).checked_sub(padding);
                    let Some(x) = from.filter(|x| *x < w) else { continue };
                    let pixel = &values[((image * h + y) * w + x) * c..][..c];
                    for (channel, value) in pixel.iter().enumerate() {
                        patch[(channel * k + ky) * k + kx] = *value;
                    }
                }
            }
        });
        taken.patches = patches;
        taken.run += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::ops::conv2d;

    #[test]
    fn products_with_the_patches_are_the_outputs() {
        let ramp = |shape: &[usize], by: f32| {
            let n = shape.iter().product();
            let values = (0..n).map(|i: usize| (i as f32 * by).sin()).collect::<Vec<_>>();
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
        };
        let x = ramp(&[2, 5, 6, 3], 0.7);
        for (k, stride, padding) in [(3, 1, 1), (3, 2, 1), (1, 1, 0)] {
            let weight = ramp(&[4, 3, k, k], 0.3);
            let bias = Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap();
            let y = conv2d(&x, &weight, &bias, stride, padding).unwrap().flatten(0, 2).unwrap();
            let recorder = PatchRecorder::new(weight.dims(), 1000, 0, 0);
            recorder.observe(&x, stride, padding).unwrap();
            let columns = 3 * k * k;
            let patches = recorder.take();
            assert!(recorder.take().is_empty());
            let patches =
                Tensor::from_slice(&patches, (patches.len() / columns, columns), &Device::Cpu)
                    .unwrap();
            let product = patches.matmul(&weight.flatten_from(1).unwrap().t().unwrap()).unwrap();
            let error = (product - &y).unwrap().abs().unwrap().max_all().unwrap();
            assert!(error.to_scalar::<f32>().unwrap() < 1e-5, "{k} {stride}");
        }
    }

    #[test]
    fn a_run_gives_at_most_so_many_patches_and_the_next_run_others() {
        let x = Tensor::rand(0f32, 1., (1, 8, 8, 2), &Device::Cpu).unwrap();
        let recorder = PatchRecorder::new(&[4, 2], 5, 1, 7);
        let run = || {
            recorder.observe(&x, 1, 0).unwrap();
            recorder.take()
        };
        let (first, second) = (run(), run());
        assert_eq!((first.len(), second.len()), (10, 10));
        assert_ne!(first, second);
        let again = PatchRecorder::new(&[4, 2], 5, 1, 7);
        again.observe(&x, 1, 0).unwrap();
        assert_eq!(again.take(), first);
    }
}
