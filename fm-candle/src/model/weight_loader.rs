//! Sources of a net's parameters: fresh random values, a stored state dict, or nowhere (shapes
//! alone).

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};

use crate::error::{Error, Result};
use crate::ops::{ConvArithmetic, DenseWeight, QuantizedWeight, WeightSource, is_finite};
use crate::random::Domain;

/// Initial values of a fresh parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// Uniform in `±1/sqrt(fan_in)`, torch's default for linear and convolution layers.
    Uniform {
        /// Inputs of one output value.
        fan_in: usize,
    },
    /// Uniform in `±sqrt(width)`, upstream's constant embeddings.
    Wide {
        /// Values of the embedding that the constant stands for.
        width: usize,
    },
    /// Standard normal, with a zero row at this index of axis 0.
    NormalButRow(usize),
}

/// The weight of a convolution or linear layer.
pub enum Weight {
    /// A tensor, which may be trained.
    Tensor(Tensor),
    /// Constant f32 weights on the CPU, wherever they lie, and how to multiply by them.
    Source(Arc<dyn WeightSource>, ConvArithmetic),
    /// Constant weights that stay packed on their device, and are decoded when a layer runs.
    Quantized(QuantizedWeight),
    /// A weight, and an observer of its layer's inputs.
    Observed(Box<Weight>, Arc<dyn InputObserver>),
}

/// Observer of the inputs of a convolution or linear layer.
pub trait InputObserver: Send + Sync {
    /// Takes the input of one run of the layer, `[n, h, w, c]`, of which it reads patches `stride`
    /// apart with a border of `padding` zeros.
    ///
    /// # Errors
    /// Those of reading it.
    fn observe(&self, x: &Tensor, stride: usize, padding: usize) -> Result<()>;
}

/// Hands out the parameters of a net under construction, each once, in state-dict order.
pub trait WeightLoader {
    /// The parameter `name` with `shape`.
    ///
    /// # Errors
    /// The parameter is missing or has another shape.
    fn take(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor>;

    /// The weight `name` with `shape`, which only a convolution or linear layer reads.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    fn take_weight(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Weight> {
        Ok(Weight::Tensor(self.take(name, shape, init)?))
    }
}

/// Fresh parameters to train: each is a function of the seed and its place in the order.
pub struct RandomInit {
    seed: u64,
    device: Device,
    /// Names and variables in state-dict order.
    pub vars: Vec<(String, Var)>,
}

impl RandomInit {
    /// Parameters on `device`, drawn from `seed`.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self { seed, device: device.clone(), vars: Vec::new() }
    }
}

impl WeightLoader for RandomInit {
    fn take(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        let n: usize = shape.iter().product();
        let mut values = vec![0f32; n];
        let index = self.vars.len() as u64;
        let stream = Domain::Init.stream(self.seed);
        let within = |bound: f32, values: &mut [f32]| {
            stream.fill_uniform(index, 0, values);
            for v in values {
                *v = (2.0 * *v - 1.0) * bound;
            }
        };
        match init {
            Init::Zeros => {}
            Init::Ones => values.fill(1.0),
            Init::Uniform { fan_in } => within(1.0 / (fan_in.max(1) as f32).sqrt(), &mut values),
            Init::Wide { width } => within((width as f32).sqrt(), &mut values),
            Init::NormalButRow(_) => stream.fill_normal(index, 0, &mut values),
        }
        if let Init::NormalButRow(row) = init {
            let width = n / shape[0];
            values[row * width..(row + 1) * width].fill(0.0);
        }
        let var = Var::from_tensor(&Tensor::from_vec(values, shape, &self.device)?)?;
        let tensor = var.as_tensor().clone();
        self.vars.push((name.to_string(), var));
        Ok(tensor)
    }
}

/// Parameters under training as another floating type, in which the net then computes; gradients
/// reach them in their own.
pub struct Cast<'a> {
    vars: core::slice::Iter<'a, (String, Var)>,
    dtype: DType,
}

impl<'a> Cast<'a> {
    /// The parameters of the same net, in state-dict order.
    pub fn new(vars: &'a [(String, Var)], dtype: DType) -> Self {
        Self { vars: vars.iter(), dtype }
    }
}

impl WeightLoader for Cast<'_> {
    fn take(&mut self, name: &str, shape: &[usize], _init: Init) -> Result<Tensor> {
        match self.vars.next() {
            Some((known, var)) if known == name && var.dims() == shape => {
                Ok(var.as_tensor().to_dtype(self.dtype)?)
            }
            _ => Err(Error::tensor(name, "is no parameter of the net under training")),
        }
    }
}

/// Parameters of a state dict, detached: evaluating the net keeps no graph.
pub struct StateDict {
    tensors: HashMap<String, Tensor>,
    device: Device,
    dtype: DType,
}

impl StateDict {
    /// The tensors of a state dict, to be moved to `device` as f32.
    pub fn new(tensors: impl IntoIterator<Item = (String, Tensor)>, device: &Device) -> Self {
        let tensors = tensors.into_iter().collect();
        Self { tensors, device: device.clone(), dtype: DType::F32 }
    }

    /// The tensors in another floating type, in which the net then computes.
    #[must_use]
    pub fn with_dtype(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// Checks that the net took every tensor.
    ///
    /// # Errors
    /// A tensor that the net has no place for.
    pub fn finish(self) -> Result<()> {
        match self.tensors.into_keys().min() {
            Some(name) => Err(Error::tensor(&name, "the net has no such parameter")),
            None => Ok(()),
        }
    }
}

impl WeightLoader for StateDict {
    fn take(&mut self, name: &str, shape: &[usize], _init: Init) -> Result<Tensor> {
        let tensor = self.tensors.remove(name).ok_or_else(|| {
            Error::tensor(name, format!("missing; the net needs it with shape {shape:?}"))
        })?;
        checked(name, &tensor, shape, &self.device, self.dtype)
    }

    fn take_weight(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Weight> {
        Weight::constant(&self.take(name, shape, init)?, ConvArithmetic::Float)
    }
}

/// Loader that hands on the parameters of another and attaches an observer to the layer of one weight.
pub struct Observed<'a, L> {
    /// Loader that the parameters come from.
    pub weights: L,
    /// Name of the weight whose layer is observed.
    pub name: &'a str,
    /// Observer of the inputs of that weight's layer.
    pub observer: Arc<dyn InputObserver>,
}

impl<L: WeightLoader> WeightLoader for Observed<'_, L> {
    fn take(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.weights.take(name, shape, init)
    }

    fn take_weight(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Weight> {
        let weight = self.weights.take_weight(name, shape, init)?;
        let is_it = name == self.name;
        Ok(if is_it { Weight::Observed(weight.into(), self.observer.clone()) } else { weight })
    }
}

impl Weight {
    /// A weight that is not trained.
    pub(crate) fn constant(tensor: &Tensor, arithmetic: ConvArithmetic) -> Result<Self> {
        if !tensor.device().is_cpu() || tensor.dtype() != DType::F32 {
            return Ok(Self::Tensor(tensor.clone()));
        }
        let depth = tensor.dims()[1..].iter().product();
        let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
        Ok(Self::Source(Arc::new(DenseWeight::new(values, depth)), arithmetic))
    }
}

/// The reason why a tensor cannot be used in f16.
pub(crate) const BEYOND_F16: &str = "holds weights beyond f16; use bf16 or f32";

/// A stored tensor as a constant parameter of this shape, on `device` in `dtype`.
///
/// # Errors
/// Another shape, or values that are no numbers there.
pub(crate) fn checked(
    name: &str,
    tensor: &Tensor,
    shape: &[usize],
    device: &Device,
    dtype: DType,
) -> Result<Tensor> {
    if tensor.dims() != shape {
        let found = tensor.dims();
        return Err(Error::tensor(name, format!("has shape {found:?}, the net needs {shape:?}")));
    }
    let tensor = tensor.detach().to_device(device)?.to_dtype(DType::F32)?.contiguous()?;
    if !is_finite(&tensor)? {
        return Err(Error::tensor(name, "holds NaN or infinite weights"));
    }
    let cast = tensor.to_dtype(dtype)?;
    if dtype == DType::F16 && !is_finite(&cast)? {
        return Err(Error::tensor(name, BEYOND_F16));
    }
    Ok(cast)
}

/// Records names and shapes; the tensors handed out hold zeros.
#[derive(Default)]
pub struct ShapeRecorder {
    /// Names and shapes in state-dict order.
    pub list: Vec<(String, Vec<usize>)>,
}

impl WeightLoader for ShapeRecorder {
    fn take(&mut self, name: &str, shape: &[usize], _init: Init) -> Result<Tensor> {
        self.list.push((name.to_string(), shape.to_vec()));
        // A broadcast zero: no memory for a net that will not run.
        Ok(Tensor::zeros(vec![1; shape.len()], DType::F32, &Device::Cpu)?.broadcast_as(shape)?)
    }
}
