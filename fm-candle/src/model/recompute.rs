//! Gradients with little memory: between forward and backward only the maps between blocks are kept,
//! and each block is computed again when its gradient is due (gradient checkpointing; Chen et al.,
//! 2016).

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use super::masks::{Masks, Mode};
use super::unet::{UNet, UNetModules};
use crate::error::Result;
use crate::ops;

/// Points at which a training batch is evaluated; see [`UNet::forward`].
#[derive(Clone, Copy)]
pub struct BlockInputs<'a> {
    /// Images, `[n, c, h, w]`.
    pub x: &'a Tensor,
    /// Times, `[n]`.
    pub t: &'a Tensor,
    /// Classes, `[n]`, or none.
    pub label: Option<&'a Tensor>,
}

/// A block's inputs, and where its dropout begins.
struct RecordedBlock<'a> {
    block: &'a UNetModules,
    h: Tensor,
    skip: Option<Tensor>,
    layer: u64,
}

impl RecordedBlock<'_> {
    fn forward(&self, embedding: &Tensor, masks: &Masks) -> Result<Tensor> {
        let h = match &self.skip {
            Some(skip) => ops::concat(&self.h, skip)?,
            None => self.h.clone(),
        };
        self.block.forward(&h, embedding, Mode::Train(masks))
    }

    /// Gradients of the block's inputs from that of its result: of `h`, of `skip`, of the embedding;
    /// those of its parameters go to `sink`.
    fn backward(
        &self,
        embedding: &Tensor,
        masks: &Masks,
        gy: &Tensor,
        sink: &mut impl FnMut(GradStore) -> Result<()>,
    ) -> Result<[Option<Tensor>; 3]> {
        masks.rewind(self.layer);
        let h = Var::from_tensor(&self.h)?;
        let skip = self.skip.as_ref().map(Var::from_tensor).transpose()?;
        let embedding = Var::from_tensor(embedding)?;
        let again = RecordedBlock {
            h: h.as_tensor().clone(),
            skip: skip.as_ref().map(|skip| skip.as_tensor().clone()),
            ..*self
        };
        let mut grads = pull_back(&again.forward(&embedding, masks)?, gy)?;
        let inputs =
            [grads.remove(&h), skip.and_then(|skip| grads.remove(&skip)), grads.remove(&embedding)];
        sink(grads)?;
        Ok(inputs)
    }
}

impl UNet {
    /// The loss of the velocity in training mode; the gradients of the parameters go to `sink`, block
    /// by block.
    ///
    /// They are those of `loss(forward(..)).backward()`, but for the order of sums.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and what `loss` and `sink` meet.
    pub fn backward_by_blocks(
        &self,
        inputs: BlockInputs<'_>,
        masks: &Masks,
        loss: impl FnOnce(&Tensor) -> Result<Tensor>,
        mut sink: impl FnMut(GradStore) -> Result<()>,
    ) -> Result<Tensor> {
        let tracked = self.embedding(inputs.x, inputs.t, inputs.label)?;
        let embedding = tracked.detach();
        let mut visits: Vec<RecordedBlock<'_>> = Vec::new();
        let mut h = self.input_map(inputs.x, None)?.detach();
        let mut visit = |block, h: &mut Tensor, skip: Option<Tensor>| -> Result<()> {
            let visit = RecordedBlock { block, h: h.clone(), skip, layer: masks.layer() };
            *h = visit.forward(&embedding, masks)?.detach();
            visits.push(visit);
            Ok(())
        };
        let mut skips = Vec::new();
        for block in &self.input_blocks {
            visit(block, &mut h, None)?;
            skips.push(h.clone());
        }
        visit(&self.middle_block, &mut h, None)?;
        for block in &self.output_blocks {
            visit(block, &mut h, skips.pop())?;
        }

        let last = Var::from_tensor(&h)?;
        let loss = loss(&self.output_head(&last, inputs.x.dtype())?)?;
        let mut grads = loss.backward()?;
        let mut gradient = grads.remove(&last);
        sink(grads)?;

        let mut of_skips = Vec::new();
        let mut of_embedding = None;
        // Going back, the input blocks come last; their results have also gone to the output blocks.
        let inputs_from = self.input_blocks.len();
        while let Some(visit) = visits.pop() {
            if visits.len() < inputs_from {
                gradient = sum(gradient, of_skips.pop().flatten())?;
            }
            let Some(gy) = gradient.take() else { continue };
            let [h, skip, embedded] = visit.backward(&embedding, masks, &gy, &mut sink)?;
            if visit.skip.is_some() {
                of_skips.push(skip);
            }
            gradient = h;
            of_embedding = sum(of_embedding, embedded)?;
        }
        if let Some(gradient) = of_embedding {
            sink(pull_back(&tracked, &gradient)?)?;
        }
        Ok(loss.detach())
    }
}

/// The gradients of all that `y` was made of, from its own.
fn pull_back(y: &Tensor, gy: &Tensor) -> Result<GradStore> {
    Ok((y * gy)?.sum_all()?.backward()?)
}

fn sum(a: Option<Tensor>, b: Option<Tensor>) -> Result<Option<Tensor>> {
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some(ops::add(&a, &b)?),
        (a, b) => a.or(b),
    })
}
