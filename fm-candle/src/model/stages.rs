//! The net run stage by stage: the embedding, each block, the output head.

use candle_core::Tensor;
use quant_core::net::UNetConfig;

use super::masks::Mode;
use super::unet::UNet;
use crate::error::Result;
use crate::ops;

/// The maps between two stages.
#[derive(Clone)]
pub struct StageState {
    /// `[n, projected_embedding]`, after its SiLU.
    embedding: Tensor,
    /// Result of the last block, `[n, h, w, c]`; of the output head, the velocity.
    h: Tensor,
    /// Results of the input blocks that no output block has read.
    skips: Vec<Tensor>,
}

impl StageState {
    /// The map of the last stage: after the output head, the velocity.
    pub fn map(&self) -> &Tensor {
        &self.h
    }

    /// Bytes of the maps as f32.
    pub fn bytes(&self) -> usize {
        let maps = self.skips.iter().chain([&self.embedding, &self.h]);
        4 * maps.map(Tensor::elem_count).sum::<usize>()
    }
}

/// Prefixes of the parameters of each stage in order; those of the first are the embeddings'.
pub fn stage_prefixes(config: &UNetConfig) -> Vec<Vec<String>> {
    let embeddings = ["time_embed.", "label_emb.", "emb_projection."].map(String::from);
    let blocks = config.blocks().map(|block| vec![format!("{block}.")]);
    [embeddings.to_vec()].into_iter().chain(blocks).chain([vec!["out.".to_string()]]).collect()
}

impl UNet {
    /// The first stage, at points as [`forward`](Self::forward) takes them.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward).
    pub fn first_stage(
        &self,
        x: &Tensor,
        t: &Tensor,
        label: Option<&Tensor>,
    ) -> Result<StageState> {
        let embedding = self.embedding(x, t, label)?;
        Ok(StageState { embedding, h: self.input_map(x, None)?, skips: Vec::new() })
    }

    /// Stage `number` from 1 on, after that before it: an input block, the middle block, an output
    /// block, or the output head, whose map is the velocity; one after that changes nothing.
    ///
    /// # Errors
    /// Maps that are not those of the stage before.
    pub fn stage(&self, number: usize, mut state: StageState) -> Result<StageState> {
        let Some(place) = number.checked_sub(1) else { return Ok(state) };
        let (inputs, embedding) = (self.input_blocks.len(), &state.embedding);
        if let Some(block) = self.input_blocks.get(place) {
            state.h = block.forward(&state.h, embedding, Mode::Eval)?;
            state.skips.push(state.h.clone());
        } else if place == inputs {
            state.h = self.middle_block.forward(&state.h, embedding, Mode::Eval)?;
        } else if let Some(block) = self.output_blocks.get(place - inputs - 1) {
            let h = match state.skips.pop() {
                Some(skip) => ops::concat(&state.h, &skip)?,
                None => state.h,
            };
            state.h = block.forward(&h, embedding, Mode::Eval)?;
        } else if place == inputs + 1 + self.output_blocks.len() {
            state.h = self.output_head(&state.h, self.dtype())?;
        }
        Ok(state)
    }
}
