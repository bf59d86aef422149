//! The parameters of a U-Net: what a file that names a net must hold.
//!
//! The order is that of the state dict of upstream's `UNetModel`:
//!
//! ```text
//! time_embed.0 .2        unless the time is ignored
//! label_emb              with classes, one row more for "no label"
//! emb_projection         with an embedding_rank; not upstream's
//! input_blocks           the layers of the blocks, in order
//! middle_block
//! output_blocks
//! out                    norm, conv
//! ```

use super::{Layer, UNetConfig};
use crate::error::Result;

/// Takes the shape of each parameter.
type Visit<'a> = dyn FnMut(&[usize]) -> Result<()> + 'a;

impl UNetConfig {
    /// Calls `visit` with the shape of each parameter, in state-dict order.
    ///
    /// # Errors
    /// The first one of `visit`.
    pub fn parameters(&self, visit: &mut Visit<'_>) -> Result<()> {
        let embedding = self.embedding();
        if !self.ignore_time {
            with_bias(&[embedding, self.model_channels], visit)?;
            with_bias(&[embedding, embedding], visit)?;
        }
        if let Some(classes) = self.num_classes {
            visit(&[classes + 1, embedding])?;
        }
        if let Some(rank) = self.embedding_rank {
            with_bias(&[rank, embedding], visit)?;
        }
        for block in self.blocks() {
            for layer in block.layers() {
                self.layer_parameters(layer, visit)?;
            }
        }
        norm(self.width(0), visit)?;
        conv(self.width(0), self.patched(self.out_channels), visit)
    }

    /// The shape of each parameter, in state-dict order.
    #[cfg(feature = "alloc")]
    pub fn shapes(&self) -> alloc::vec::Vec<alloc::vec::Vec<usize>> {
        let mut shapes = alloc::vec::Vec::new();
        let listed = self.parameters(&mut |shape| {
            shapes.push(shape.to_vec());
            Ok(())
        });
        debug_assert!(listed.is_ok(), "keeping a shape does not fail");
        shapes
    }

    fn layer_parameters(&self, layer: &Layer, visit: &mut Visit<'_>) -> Result<()> {
        match *layer {
            Layer::Conv { input, output } => conv(input, output, visit),
            Layer::Residual { input, output, .. } => {
                norm(input, visit)?;
                conv(input, output, visit)?;
                let width = if self.use_scale_shift_norm { 2 * output } else { output };
                if self.embeds_nothing() {
                    visit(&[1, width])?;
                } else {
                    with_bias(&[width, self.projected_embedding()], visit)?;
                }
                norm(output, visit)?;
                conv(output, output, visit)?;
                if input == output { Ok(()) } else { with_bias(&[output, input, 1, 1], visit) }
            }
            Layer::Attention { channels, .. } => {
                norm(channels, visit)?;
                with_bias(&[3 * channels, channels, 1], visit)?;
                with_bias(&[channels, channels, 1], visit)
            }
            Layer::Resample { channels, conv: true, .. } => conv(channels, channels, visit),
            Layer::Resample { .. } => Ok(()),
        }
    }
}

fn norm(channels: usize, visit: &mut Visit<'_>) -> Result<()> {
    with_bias(&[channels], visit)
}

/// A 3 x 3 convolution.
fn conv(input: usize, output: usize, visit: &mut Visit<'_>) -> Result<()> {
    with_bias(&[output, input, 3, 3], visit)
}

#[inline(never)]
fn with_bias(weight: &[usize], visit: &mut Visit<'_>) -> Result<()> {
    visit(weight)?;
    visit(weight.get(..1).unwrap_or(&[]))
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::super::record::tests::example;
    use super::*;
    use std::vec;

    #[test]
    fn a_net_of_one_level() {
        let config = UNetConfig {
            in_channels: 2,
            model_channels: 32,
            out_channels: 1,
            num_res_blocks: 1,
            attention_resolutions: [].into(),
            channel_mult: [1.0].into(),
            num_classes: Some(10),
            use_scale_shift_norm: false,
            patch: 1,
            embedding_rank: None,
            ..example()
        };
        let res = |c: usize| {
            let mut block = vec![vec![c], vec![c], vec![32, c, 3, 3], vec![32], vec![32, 128]];
            block.extend([vec![32], vec![32], vec![32], vec![32, 32, 3, 3], vec![32]]);
            if c != 32 {
                block.extend([vec![32, c, 1, 1], vec![32]]);
            }
            block
        };
        let mut expected = vec![vec![128, 32], vec![128], vec![128, 128], vec![128]];
        expected.extend([vec![11, 128], vec![32, 2, 3, 3], vec![32]]);
        expected.extend(res(32)); // down
        expected.extend(res(32)); // middle
        expected.extend([vec![32], vec![32], vec![96, 32, 1], vec![96], vec![32, 32, 1], vec![32]]);
        expected.extend(res(32));
        expected.extend(res(64)); // up, joined with the block of the way down, then the input
        expected.extend(res(64));
        expected.extend([vec![32], vec![32], vec![1, 32, 3, 3], vec![1]]);
        assert_eq!(config.shapes(), expected);

        // A projection of rank 8 before the blocks, whose embedding layers read it.
        let mut projected = expected.clone();
        projected.iter_mut().filter(|shape| **shape == [32, 128]).for_each(|shape| shape[1] = 8);
        projected.splice(5..5, [vec![8, 128], vec![8]]);
        projected[0] = vec![128, 32];
        assert_eq!(UNetConfig { embedding_rank: Some(8), ..config.clone() }.shapes(), projected);

        // Patches of 4 x 4 pixels: 16 times the channels at both ends.
        expected[5] = vec![32, 32, 3, 3];
        let last = expected.len() - 2;
        expected[last..].clone_from_slice(&[vec![16, 32, 3, 3], vec![16]]);
        assert_eq!(UNetConfig { patch: 4, ..config }.shapes(), expected);
    }

    #[test]
    fn the_first_error_ends_the_list() {
        let mut calls = 0;
        let refused = crate::Error::NotZero { what: "test" };
        let result = example().parameters(&mut |_| {
            calls += 1;
            if calls < 5 { Ok(()) } else { Err(refused) }
        });
        assert_eq!((result, calls), (Err(refused), 5));
    }
}
