//! The whole net: embeddings, encoder, middle, decoder.

use core::f64::consts::TAU;

use candle_core::{DType, Tensor};
use quant_core::net::{self, Layer, Part, Resample, UNetConfig};

use super::attention::AttentionBlock;
use super::blocks::{Convolution, GroupNormAct, Linear, ResBlock, resample};
use super::config;
use super::masks::Mode;
use super::weight_loader::{Init, ShapeRecorder, WeightLoader};
use crate::error::{Error, Result};
use crate::ops::{self, Activation, shuffle, unshuffle};

/// One layer of a block, with its parameters.
enum Module {
    Conv(Convolution),
    Res(Box<ResBlock>),
    AttentionBlock(AttentionBlock),
    Resample(Resample, Option<Convolution>),
}

impl Module {
    /// The layer `name` of the net.
    fn new(
        weights: &mut dyn WeightLoader,
        name: &str,
        layer: &Layer,
        config: &UNetConfig,
    ) -> Result<Self> {
        Ok(match *layer {
            Layer::Conv { input, output } => {
                Self::Conv(Convolution::new(weights, name, input, output, 3)?)
            }
            Layer::Residual { input, output, resample } => {
                let width = (input, output);
                Self::Res(Box::new(ResBlock::new(weights, name, width, resample, config)?))
            }
            Layer::Attention { channels, decoder } => {
                Self::AttentionBlock(AttentionBlock::new(weights, name, channels, decoder, config)?)
            }
            Layer::Resample { resample, conv: false, .. } => Self::Resample(resample, None),
            Layer::Resample { channels, resample: Resample::Down, .. } => {
                let conv = Convolution::new(weights, &format!("{name}.op"), channels, channels, 3)?;
                Self::Conv(conv.with_stride(2))
            }
            Layer::Resample { channels, resample, .. } => {
                let conv =
                    Convolution::new(weights, &format!("{name}.conv"), channels, channels, 3)?;
                Self::Resample(resample, Some(conv))
            }
        })
    }

    fn forward(&self, x: &Tensor, embedding: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::Res(block) => block.forward(x, embedding, mode),
            Self::AttentionBlock(attention) => attention.forward(x),
            Self::Resample(by, None) => resample(x, *by),
            Self::Resample(by, Some(conv)) => conv.forward(&resample(x, *by)?),
        }
    }
}

/// An input, middle or output block.
pub(super) struct UNetModules(Vec<Module>);

impl UNetModules {
    fn new(
        weights: &mut dyn WeightLoader,
        block: &net::Block,
        config: &UNetConfig,
    ) -> Result<Self> {
        let layers = block.layers().enumerate();
        let module = |(i, layer)| Module::new(weights, &format!("{block}.{i}"), layer, config);
        Ok(Self(layers.map(module).collect::<Result<_>>()?))
    }

    /// # Shapes
    /// `x: [n, h, w, c]`, `embedding: [n, projected_embedding]` after its SiLU, result
    /// `[n, h', w', o]`.
    pub(super) fn forward(&self, x: &Tensor, embedding: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        self.0.iter().try_fold(x.clone(), |x, module| module.forward(&x, embedding, mode))
    }
}

/// The velocity net `v(x, t, label)` of upstream's `UNetModel`.
pub struct UNet {
    config: UNetConfig,
    time_embed: Option<(Linear, Linear)>,
    label_emb: Option<Tensor>,
    projection: Option<Linear>,
    pub(super) input_blocks: Vec<UNetModules>,
    pub(super) middle_block: UNetModules,
    pub(super) output_blocks: Vec<UNetModules>,
    out: (GroupNormAct, Convolution),
}

impl UNet {
    /// Builds the net, taking its parameters in state-dict order.
    ///
    /// # Errors
    /// A configuration that makes no net, or a parameter that `weights` does not have.
    pub fn new(config: &UNetConfig, weights: &mut dyn WeightLoader) -> Result<Self> {
        config::check(config)?;
        let embedding = config.embedding();
        let time_embed = if config.ignore_time {
            None
        } else {
            let first = Linear::new(weights, "time_embed.0", config.model_channels, embedding)?;
            Some((first, Linear::new(weights, "time_embed.2", embedding, embedding)?))
        };
        let label_emb = match config.num_classes {
            Some(classes) => Some(weights.take(
                "label_emb.weight",
                &[classes + 1, embedding],
                Init::NormalButRow(classes),
            )?),
            None => None,
        };
        let projection = config
            .embedding_rank
            .map(|rank| Linear::new(weights, "emb_projection", embedding, rank))
            .transpose()?;

        let (mut input_blocks, mut middle_block, mut output_blocks) =
            (Vec::new(), UNetModules(Vec::new()), Vec::new());
        for block in config.blocks() {
            let built = UNetModules::new(weights, &block, config)?;
            match block.part {
                Part::Input => input_blocks.push(built),
                Part::Middle => middle_block = built,
                Part::Output => output_blocks.push(built),
            }
        }
        let width = config.width(0);
        let velocity = config.out_channels * config.patch.pow(2);
        let out = (
            GroupNormAct::new(weights, "out.0", width)?,
            Convolution::zero(weights, "out.2", width, velocity, 3)?,
        );
        let config = config.clone();
        Ok(Self {
            config,
            time_embed,
            label_emb,
            projection,
            input_blocks,
            middle_block,
            output_blocks,
            out,
        })
    }

    /// Names and shapes of the parameters in state-dict order.
    ///
    /// # Errors
    /// A configuration that makes no net.
    pub fn shapes(config: &UNetConfig) -> Result<Vec<(String, Vec<usize>)>> {
        let mut shapes = ShapeRecorder::default();
        Self::new(config, &mut shapes)?;
        Ok(shapes.list)
    }

    /// The configuration the net was built from.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// The velocity at `x` and `t`.
    ///
    /// # Shapes
    /// `x: [n, c, h, w]` in the data's scale `[-1, 1]` at t = 1, `t: [n]` in `[0, 1]`, noise at
    /// 0; `label: [n]` integers, where `num_classes` or no label at all means "unconditional";
    /// `concat: [n, c', h, w]` for nets with more input than image channels; result
    /// `[n, out_channels, h, w]`.
    ///
    /// # Errors
    /// Shapes that do not fit, or a label for a net without classes.
    pub fn forward(
        &self,
        x: &Tensor,
        t: &Tensor,
        label: Option<&Tensor>,
        concat: Option<&Tensor>,
        mode: Mode<'_>,
    ) -> Result<Tensor> {
        let embedding = self.embedding(x, t, label)?;
        let (mut h, mut skips) = self.encoder(x, concat, &embedding, mode)?;
        for block in &self.output_blocks {
            if let Some(skip) = skips.pop() {
                h = ops::concat(&h, &skip)?;
            }
            h = block.forward(&h, &embedding, mode)?;
        }
        self.output_head(&h, x.dtype())
    }

    /// Result of the middle block: the latents of the paper's analysis.
    ///
    /// # Shapes
    /// As [`forward`](Self::forward); result `[n, c', h', w']`, with the channels of the last level
    /// on its map.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn bottleneck(&self, x: &Tensor, t: &Tensor, label: Option<&Tensor>) -> Result<Tensor> {
        let embedding = self.embedding(x, t, label)?;
        let (h, _) = self.encoder(x, None, &embedding, Mode::Eval)?;
        Ok(h.permute((0, 3, 1, 2))?.contiguous()?)
    }

    /// The map after the middle block, `[n, h', w', c']`, and the skips of the decoder.
    fn encoder(
        &self,
        x: &Tensor,
        concat: Option<&Tensor>,
        embedding: &Tensor,
        mode: Mode<'_>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let mut h = self.input_map(x, concat)?;
        let mut skips = Vec::with_capacity(self.input_blocks.len());
        for block in &self.input_blocks {
            h = block.forward(&h, embedding, mode)?;
            skips.push(h.clone());
        }
        Ok((self.middle_block.forward(&h, embedding, mode)?, skips))
    }

    /// The map that the first block takes, `[n, h, w, c]`.
    pub(super) fn input_map(&self, x: &Tensor, concat: Option<&Tensor>) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        let patch = self.config.patch;
        let multiple = patch << (self.config.channel_mult.len() - 1);
        if [height, width].iter().any(|side| *side == 0 || side % multiple != 0) {
            return Err(Error::Config(format!(
                "images of {height} x {width} cannot be halved and doubled back by this net; use \
                 sides divisible by {multiple}"
            )));
        }
        let mut h = self.input(x, concat)?.to_dtype(self.dtype())?;
        if patch > 1 {
            h = unshuffle(&h, patch)?;
        }
        let (needed, found) = (self.config.input_channels(), h.dim(1)?);
        if needed != found {
            let [needed, found] = [needed, found].map(|channels| channels / patch.pow(2));
            return Err(Error::Config(format!(
                "the net takes {needed} channels, the input has {found}"
            )));
        }
        Ok(h.permute((0, 2, 3, 1))?.contiguous()?)
    }

    /// The velocity that the last block's map becomes, `[n, out_channels, h, w]`.
    pub(super) fn output_head(&self, h: &Tensor, dtype: DType) -> Result<Tensor> {
        let patch = self.config.patch;
        let v = self.out.1.forward(&self.out.0.forward(h, Activation::Silu)?)?;
        let v = v.permute((0, 3, 1, 2))?.contiguous()?.to_dtype(dtype)?;
        if patch > 1 { Ok(shuffle(&v, patch)?) } else { Ok(v) }
    }

    /// The type of the weights, in which the net computes; norms and softmax compute in f32.
    pub fn dtype(&self) -> DType {
        self.out.1.dtype()
    }

    /// Input of the first block: the images, their Fourier features, what is concatenated.
    fn input(&self, x: &Tensor, concat: Option<&Tensor>) -> Result<Tensor> {
        let fourier = self.config.with_fourier_features.then(|| fourier_features(x)).transpose()?;
        let parts: Vec<&Tensor> =
            [Some(x), fourier.as_ref(), concat].into_iter().flatten().collect();
        Ok(Tensor::cat(&parts, 1)?)
    }

    /// `SiLU(time_mlp(t) + label_row)`, or its projection, the form in which every block uses it:
    /// `[n, projected_embedding]`.
    pub(super) fn embedding(
        &self,
        x: &Tensor,
        t: &Tensor,
        label: Option<&Tensor>,
    ) -> Result<Tensor> {
        let n = x.dim(0)?;
        if t.dims() != [n] {
            let found = t.dims();
            return Err(Error::Config(format!("t has shape {found:?}, expected [{n}]")));
        }
        let mut embedding = match &self.time_embed {
            Some((first, second)) => {
                let waves = timestep_embedding(t, self.config.model_channels)?;
                let waves = waves.to_dtype(self.dtype())?;
                second.forward(&first.forward(&waves)?.silu()?)?
            }
            None => Tensor::zeros((n, self.config.embedding()), self.dtype(), x.device())?,
        };
        if let (Some(table), Some(classes)) = (&self.label_emb, self.config.num_classes) {
            let rows = match label {
                Some(label) if label.dims() != [n] => {
                    let found = label.dims();
                    return Err(Error::Config(format!(
                        "label has shape {found:?}, expected [{n}]"
                    )));
                }
                Some(label) => table.index_select(&label.to_dtype(DType::U32)?, 0)?,
                None => {
                    let row = table.narrow(0, classes, 1)?.detach();
                    row.broadcast_as((n, self.config.embedding()))?
                }
            };
            embedding = (embedding + rows)?;
        } else if label.is_some() {
            return Err(Error::Config("the net has no classes, but labels were given".into()));
        }
        let embedding = embedding.silu()?;
        match &self.projection {
            Some(projection) => projection.forward(&embedding),
            None => Ok(embedding),
        }
    }
}

/// `[cos(t f_i), sin(t f_i)]` with `f_i = 10000^(-i / (dim / 2))`; a zero follows for odd `dim`.
///
/// # Shapes: `t: [n]` to `[n, dim]`
fn timestep_embedding(t: &Tensor, dim: usize) -> Result<Tensor> {
    let half = dim / 2;
    let step = -10000f32.ln() / half.max(1) as f32;
    let frequencies: Vec<f32> = (0..half).map(|i| (step * i as f32).exp()).collect();
    let frequencies = Tensor::from_vec(frequencies, (1, half), t.device())?;
    let phase = t.to_dtype(DType::F32)?.unsqueeze(1)?.broadcast_mul(&frequencies)?;
    let waves = Tensor::cat(&[phase.cos()?, phase.sin()?], 1)?;
    Ok(if dim % 2 == 1 { waves.pad_with_zeros(1, 0, 1)? } else { waves })
}

/// Sines, then cosines, of `2 pi 2^f x` for f = 6, 7, channel by channel.
///
/// # Shapes: `[n, c, h, w]` to `[n, 4c, h, w]`
fn fourier_features(x: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let octave = |f: i32| x * (TAU * f64::from(1 << f));
    let phase = Tensor::stack(&[octave(6)?, octave(7)?], 2)?.reshape((n, 2 * c, h, w))?;
    Ok(Tensor::cat(&[phase.sin()?, phase.cos()?], 1)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::model::half_precision::assert_near;
    use crate::model::{RandomInit, StateDict};

    fn net(config: &UNetConfig) -> UNet {
        let config = UNetConfig {
            model_channels: 32,
            channel_mult: [1.0].into(),
            num_res_blocks: 1,
            attention_resolutions: [].into(),
            ..config.clone()
        };
        UNet::new(&config, &mut RandomInit::new(0, &Device::Cpu)).unwrap()
    }

    fn zeros(channels: usize) -> Tensor {
        Tensor::zeros((2, channels, 3, 5), DType::F32, &Device::Cpu).unwrap()
    }

    #[test]
    fn fourier_features_come_before_what_is_concatenated() {
        let config =
            UNetConfig { in_channels: 4, with_fourier_features: true, ..UNetConfig::default() };
        let net = net(&config);
        let input = net.input(&zeros(3), Some(&(zeros(1) + 2.0).unwrap())).unwrap();
        let pixel = input.narrow(2, 0, 1).unwrap().narrow(3, 0, 1).unwrap();
        let pixel = pixel.narrow(0, 0, 1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let expected = [vec![0.0; 3], vec![0.0; 6], vec![1.0; 6], vec![2.0]].concat();
        assert_eq!(pixel, expected);
        let t = Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap();
        let forward =
            |concat: Option<Tensor>| net.forward(&zeros(3), &t, None, concat.as_ref(), Mode::Eval);
        assert_eq!(forward(Some(zeros(1))).unwrap().dims(), [2, 3, 3, 5]);
        let error = forward(None).unwrap_err().to_string();
        assert!(error.contains("takes 16 channels, the input has 15"), "{error}");
    }

    #[test]
    fn half_precision_changes_the_velocity_a_little() {
        let config = UNetConfig {
            model_channels: 32,
            channel_mult: [1.0, 2.0].into(),
            num_res_blocks: 1,
            attention_resolutions: [2].into(),
            num_classes: Some(3),
            use_scale_shift_norm: true,
            ..UNetConfig::default()
        };
        let mut weights = RandomInit::new(1, &Device::Cpu);
        UNet::new(&config, &mut weights).unwrap();
        // Convolutions that start at zero would hide all others.
        let filled = |var: &candle_core::Var| (var.as_tensor() + 0.01).unwrap();
        let dict = || weights.vars.iter().map(|(name, var)| (name.clone(), filled(var)));
        let x = Tensor::ones((2, 3, 8, 8), DType::F32, &Device::Cpu).unwrap();
        let t = Tensor::new(&[0.25f32, 0.5], &Device::Cpu).unwrap();
        let label = Tensor::new(&[0u32, 2], &Device::Cpu).unwrap();
        let v = |dtype| {
            let mut stored = StateDict::new(dict(), &Device::Cpu).with_dtype(dtype);
            let net = UNet::new(&config, &mut stored).unwrap();
            assert_eq!(net.dtype(), dtype);
            let v = net.forward(&x, &t, Some(&label), None, Mode::Eval).unwrap();
            assert_eq!(v.dtype(), DType::F32);
            v
        };
        let single = v(DType::F32);
        for dtype in [DType::F16, DType::BF16] {
            assert_near(dtype, &v(dtype), &single);
        }
    }

    #[test]
    fn without_a_first_convolution_the_input_has_the_width_of_the_first_level() {
        let net = net(&UNetConfig { input_projection: false, ..UNetConfig::default() });
        let t = Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap();
        let forward = |x: Tensor| net.forward(&x, &t, None, None, Mode::Eval);
        assert_eq!(forward(zeros(32)).unwrap().dims(), [2, 3, 3, 5]);
        let error = forward(zeros(3)).unwrap_err().to_string();
        assert!(error.contains("takes 32 channels, the input has 3"), "{error}");
    }
}
