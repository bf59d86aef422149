//! The parameters of a U-Net: what a file that names a net must hold.
//!
//! The order is that of the state dict of upstream's `UNetModel`:
//!
//! ```text
//! time_embed.0 .2        unless the time is ignored
//! label_emb              with classes, one row more for "no label"
//! input_blocks           a conv; per level the residual blocks, each with attention at its rates,
//!                        then (but for the last level) a step down
//! middle_block           residual block, attention, residual block
//! output_blocks          levels in reverse, one residual block more each, whose input has the
//!                        channels of a skip besides; then (but for level 0) a step up
//! out                    norm, conv
//! ```

use super::NetConfig;
use crate::error::Result;
use crate::num::floor_u64;

/// Takes the shape of each parameter.
type Visit<'a> = dyn FnMut(&[u64]) -> Result<()> + 'a;

impl NetConfig {
    /// Calls `visit` with the shape of each parameter, in state-dict order.
    ///
    /// # Errors
    /// The first one of `visit`.
    pub fn parameters(&self, visit: &mut Visit<'_>) -> Result<()> {
        let embedding = self.embedding();
        if !self.ignore_time {
            linear(u64::from(self.model_channels), embedding, visit)?;
            linear(embedding, embedding, visit)?;
        }
        if let Some(classes) = self.num_classes {
            visit(&[u64::from(classes) + 1, embedding])?;
        }
        let first = self.channel_mult.first().map_or(0, |&mult| self.channels(mult));
        if self.input_projection {
            let fourier = if self.with_fourier_features { 12 } else { 0 };
            conv(self.patched(self.in_channels) + fourier, first, visit)?;
        }
        let channels = self.way_down(first, visit)?;
        self.res_block(channels, channels, visit)?;
        attention(channels, visit)?;
        self.res_block(channels, channels, visit)?;
        let channels = self.way_up(first, channels, visit)?;
        norm(channels, visit)?;
        conv(first, self.patched(self.out_channels), visit)
    }

    /// The blocks of the way down, and the channels behind them.
    fn way_down(&self, first: u64, visit: &mut Visit<'_>) -> Result<u64> {
        let (mut channels, mut rate) = (first, 1);
        for (level, &mult) in self.channel_mult.iter().enumerate() {
            for _ in 0..self.num_res_blocks {
                self.res_block(channels, self.channels(mult), visit)?;
                channels = self.channels(mult);
                self.attention_at(rate, channels, visit)?;
            }
            if level + 1 < self.channel_mult.len() {
                self.step(channels, visit)?;
                rate *= 2;
            }
        }
        Ok(channels)
    }

    /// The blocks of the way up, and the channels behind them.
    fn way_up(&self, first: u64, mut channels: u64, visit: &mut Visit<'_>) -> Result<u64> {
        for (level, &mult) in self.channel_mult.iter().enumerate().rev() {
            let (own, rate) = (self.channels(mult), 1 << level);
            // What the last block of a level joins: the step down before the level, or the input,
            // whose width a way down without blocks never changes.
            let above = level.checked_sub(1).filter(|_| self.num_res_blocks > 0);
            let before = above.and_then(|above| self.channel_mult.get(above));
            let before = before.map_or(first, |&mult| self.channels(mult));
            for i in 0..=self.num_res_blocks {
                let skip = if i < self.num_res_blocks { own } else { before };
                self.res_block(channels + skip, own, visit)?;
                channels = own;
                self.attention_at(rate, channels, visit)?;
            }
            if level > 0 {
                self.step(channels, visit)?;
            }
        }
        Ok(channels)
    }

    /// A residual block from `c` to `o` channels.
    fn res_block(&self, c: u64, o: u64, visit: &mut Visit<'_>) -> Result<()> {
        let width = if self.use_scale_shift_norm { 2 * o } else { o };
        norm(c, visit)?;
        conv(c, o, visit)?;
        if self.ignore_time && self.num_classes.is_none() {
            visit(&[1, width])?;
        } else {
            linear(self.embedding(), width, visit)?;
        }
        norm(o, visit)?;
        conv(o, o, visit)?;
        if c == o { Ok(()) } else { with_bias(&[o, c, 1, 1], visit) }
    }

    fn attention_at(&self, rate: u32, channels: u64, visit: &mut Visit<'_>) -> Result<()> {
        let there = self.attention_resolutions.contains(&rate);
        if there { attention(channels, visit) } else { Ok(()) }
    }

    /// A change of the resolution.
    fn step(&self, channels: u64, visit: &mut Visit<'_>) -> Result<()> {
        if self.resblock_updown {
            self.res_block(channels, channels, visit)
        } else if self.conv_resample {
            conv(channels, channels, visit)
        } else {
            Ok(())
        }
    }

    /// Channels of an image whose patches are pixels.
    fn patched(&self, channels: u32) -> u64 {
        let patch = u64::from(self.patch.unwrap_or(1));
        u64::from(channels) * patch * patch
    }

    /// Channels of a level: upstream's `int(mult * model_channels)`.
    pub(crate) fn channels(&self, mult: f64) -> u64 {
        floor_u64(mult * f64::from(self.model_channels))
    }

    /// Length of the embedding of time and label.
    fn embedding(&self) -> u64 {
        4 * u64::from(self.model_channels)
    }
}

fn attention(channels: u64, visit: &mut Visit<'_>) -> Result<()> {
    norm(channels, visit)?;
    with_bias(&[3 * channels, channels, 1], visit)?;
    with_bias(&[channels, channels, 1], visit)
}

fn norm(channels: u64, visit: &mut Visit<'_>) -> Result<()> {
    with_bias(&[channels], visit)
}

fn linear(c: u64, o: u64, visit: &mut Visit<'_>) -> Result<()> {
    with_bias(&[o, c], visit)
}

/// A 3 x 3 convolution.
fn conv(c: u64, o: u64, visit: &mut Visit<'_>) -> Result<()> {
    with_bias(&[o, c, 3, 3], visit)
}

fn with_bias(weight: &[u64], visit: &mut Visit<'_>) -> Result<()> {
    visit(weight)?;
    visit(weight.get(..1).unwrap_or(&[]))
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn shapes(config: &NetConfig) -> Vec<Vec<u64>> {
        let mut shapes = Vec::new();
        let mut keep = |shape: &[u64]| {
            shapes.push(shape.to_vec());
            Ok(())
        };
        config.parameters(&mut keep).unwrap();
        shapes
    }

    #[test]
    fn a_net_of_one_level() {
        let config = NetConfig {
            in_channels: 2,
            model_channels: 32,
            out_channels: 1,
            num_res_blocks: 1,
            attention_resolutions: heapless::Vec::new(),
            channel_mult: heapless::Vec::from_slice(&[1.0]).unwrap(),
            num_classes: Some(10),
            use_scale_shift_norm: false,
            patch: None,
            ..example()
        };
        let res = |c: u64| {
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
        assert_eq!(shapes(&config), expected);

        // Patches of 4 x 4 pixels: 16 times the channels at both ends.
        expected[5] = vec![32, 32, 3, 3];
        let last = expected.len() - 2;
        expected[last..].clone_from_slice(&[vec![16, 32, 3, 3], vec![16]]);
        assert_eq!(shapes(&NetConfig { patch: Some(4), ..config }), expected);
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
