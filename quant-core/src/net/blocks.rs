//! The walk through the U-Net: its blocks in order, and the layers of each.
//!
//! ```text
//! input blocks   a convolution; then per level the residual blocks, each with attention at its rates;
//!                between two levels a step down
//! middle block   residual block, attention, residual block
//! output blocks  the input blocks mirrored: each reads, beside the map before it, the result of its
//!                input block (the skip); the last of a level but level 0 ends with a step up
//! ```
//!
//! With `r` residual blocks per level, input block `n` has its result at level `n / (r + 1)`, and is a
//! step down where `r + 1` divides `n`.

use super::UNetConfig;
use core::fmt;
use core::num::NonZeroUsize;

/// Change of the resolution by a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resample {
    /// Nothing.
    Keep,
    /// Twice the height and width.
    Up,
    /// Half the height and width.
    Down,
}

/// One layer of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The first convolution, of 3 x 3.
    Conv {
        /// Channels that it reads.
        input: usize,
        /// Channels that it writes.
        output: usize,
    },
    /// Two convolutions of 3 x 3 around the embedding, added to what they read.
    Residual {
        /// Channels that it reads.
        input: usize,
        /// Channels that it writes.
        output: usize,
        /// Change of the resolution.
        resample: Resample,
    },
    /// Attention of every pixel to every pixel, added to what it reads.
    Attention {
        /// Channels that it reads and writes.
        channels: usize,
        /// It has the heads of the decoder; see [`UNetConfig::heads`].
        decoder: bool,
    },
    /// A change of the resolution.
    Resample {
        /// Channels that it reads and writes.
        channels: usize,
        /// Up or down.
        resample: Resample,
        /// A convolution of 3 x 3 is part of it.
        conv: bool,
    },
}

/// The part of the net that a block belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The encoder, each of whose results is also a skip.
    Input,
    /// The bottleneck.
    Middle,
    /// The decoder, each of whose blocks reads a skip.
    Output,
}

/// A block of the net: layers, one after the other.
///
/// Its [`Display`](fmt::Display) is its name in the state dict; a layer's is that, a dot and its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The part that it belongs to.
    pub part: Part,
    /// Position of the block in its part.
    pub number: usize,
    /// Times that the resolution of its result, before a step up, has been halved.
    pub level: usize,
    /// Channels of the skip that it reads after those of the map before it; 0 outside the decoder.
    pub skip: usize,
    layers: [Option<Layer>; 3],
}

impl Block {
    /// The layers in order; none where the net does not project its input.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().flatten()
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            Part::Input => write!(f, "input_blocks.{}", self.number),
            Part::Middle => f.write_str("middle_block"),
            Part::Output => write!(f, "output_blocks.{}", self.number),
        }
    }
}

impl UNetConfig {
    /// The blocks in the order in which they run, which is that of the state dict.
    pub fn blocks(&self) -> impl Iterator<Item = Block> {
        let count = self.channel_mult.len() * self.stride().get();
        let encoder = (0..count).map(|n| self.input_block(n));
        let decoder = (0..count).rev().map(move |n| self.output_block(n, count));
        encoder.chain([self.middle_block(count)]).chain(decoder)
    }

    /// Input blocks of a level, the step down to it included.
    const fn stride(&self) -> NonZeroUsize {
        NonZeroUsize::MIN.saturating_add(self.num_res_blocks)
    }

    /// Returns whether input block `n` is a step down.
    fn steps_down(&self, n: usize) -> bool {
        n > 0 && n % self.stride() == 0
    }

    /// Channels of the result of input block `n`: a step down keeps them, so without residual blocks
    /// they never change.
    fn skip(&self, n: usize) -> usize {
        let level = n / self.stride();
        self.width(match self.num_res_blocks {
            0 => 0,
            _ if self.steps_down(n) => level.saturating_sub(1),
            _ => level,
        })
    }

    fn input_block(&self, n: usize) -> Block {
        let level = n / self.stride();
        let layers = if n == 0 {
            let (input, output) = (self.input_channels(), self.width(0));
            [self.input_projection.then_some(Layer::Conv { input, output }), None, None]
        } else if self.steps_down(n) {
            [Some(self.resample(self.skip(n), Resample::Down)), None, None]
        } else {
            let [residual, attention] = self.residual(self.skip(n - 1), level, false);
            [residual, attention, None]
        };
        Block { part: Part::Input, number: n, level, skip: 0, layers }
    }

    fn middle_block(&self, count: usize) -> Block {
        let channels = self.skip(count.saturating_sub(1));
        let resample = Resample::Keep;
        let residual = Some(Layer::Residual { input: channels, output: channels, resample });
        let layers = [residual, Some(Layer::Attention { channels, decoder: false }), residual];
        let level = self.channel_mult.len().saturating_sub(1);
        Block { part: Part::Middle, number: 0, level, skip: 0, layers }
    }

    /// The output block that reads the result of input block `n` of `count`.
    fn output_block(&self, n: usize, count: usize) -> Block {
        let (level, skip) = (n / self.stride(), self.skip(n));
        let before = if n + 1 == count { skip } else { self.width((n + 1) / self.stride()) };
        let [residual, attention] = self.residual(before + skip, level, true);
        let up = || self.resample(self.width(level), Resample::Up);
        let layers = [residual, attention, self.steps_down(n).then(up)];
        Block { part: Part::Output, number: count - 1 - n, level, skip, layers }
    }

    /// A residual block, and the attention after it where the level has one.
    fn residual(&self, input: usize, level: usize, decoder: bool) -> [Option<Layer>; 2] {
        let channels = self.width(level);
        let residual = Layer::Residual { input, output: channels, resample: Resample::Keep };
        let attends = self.attention_resolutions.contains(&(1 << level));
        [Some(residual), attends.then_some(Layer::Attention { channels, decoder })]
    }

    const fn resample(&self, channels: usize, resample: Resample) -> Layer {
        if self.resblock_updown {
            Layer::Residual { input: channels, output: channels, resample }
        } else {
            Layer::Resample { channels, resample, conv: self.conv_resample }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    /// A line for each layer.
    fn listed(config: &UNetConfig) -> Vec<String> {
        let layers = config.blocks().flat_map(|block| {
            let line = |(i, layer): (usize, &Layer)| std::format!("{block}.{i} {layer:?}");
            block.layers().enumerate().map(line).collect::<Vec<_>>()
        });
        let bare = |line: String| line.replace(['{', '}', ','], "").replace(" Keep", "");
        layers.map(bare).collect()
    }

    #[test]
    fn a_net_of_two_levels_block_by_block() {
        let config = UNetConfig {
            model_channels: 32,
            num_res_blocks: 1,
            attention_resolutions: [2].into(),
            channel_mult: [1.0, 2.0].into(),
            ..UNetConfig::default()
        };
        let expected = [
            "input_blocks.0.0 Conv  input: 3 output: 32 ",
            "input_blocks.1.0 Residual  input: 32 output: 32 resample: ",
            "input_blocks.2.0 Resample  channels: 32 resample: Down conv: true ",
            "input_blocks.3.0 Residual  input: 32 output: 64 resample: ",
            "input_blocks.3.1 Attention  channels: 64 decoder: false ",
            "middle_block.0 Residual  input: 64 output: 64 resample: ",
            "middle_block.1 Attention  channels: 64 decoder: false ",
            "middle_block.2 Residual  input: 64 output: 64 resample: ",
            "output_blocks.0.0 Residual  input: 128 output: 64 resample: ",
            "output_blocks.0.1 Attention  channels: 64 decoder: true ",
            "output_blocks.1.0 Residual  input: 96 output: 64 resample: ",
            "output_blocks.1.1 Attention  channels: 64 decoder: true ",
            "output_blocks.1.2 Resample  channels: 64 resample: Up conv: true ",
            "output_blocks.2.0 Residual  input: 96 output: 32 resample: ",
            "output_blocks.3.0 Residual  input: 64 output: 32 resample: ",
        ];
        let squeeze = |s: &str| s.split_whitespace().collect::<Vec<_>>().join(" ");
        let found: Vec<String> = listed(&config).iter().map(|line| squeeze(line)).collect();
        assert_eq!(found, expected.map(squeeze));
        let skips: Vec<usize> = config.blocks().map(|block| block.skip).collect();
        assert_eq!(skips, [0, 0, 0, 0, 0, 64, 32, 32, 32]);
    }

    #[test]
    fn without_residual_blocks_the_encoder_keeps_its_width() {
        let channel_mult = [2.0, 1.0, 3.0].into();
        let config = UNetConfig { num_res_blocks: 0, channel_mult, ..UNetConfig::default() };
        let decoder = config.blocks().filter(|block| block.part == Part::Output);
        let found: Vec<_> =
            decoder.map(|block| (block.skip, *block.layers().next().unwrap())).collect();
        let residual = |input, output| Layer::Residual { input, output, resample: Resample::Keep };
        let expected = [(512, 384), (640, 128), (384, 256)].map(|(c, o)| (256, residual(c, o)));
        assert_eq!(found, expected);
        assert_eq!(config.blocks().next().unwrap().to_string(), "input_blocks.0");
    }
}
