//! Nets whose residual blocks read a projection of the embedding, of [`UNetConfig::embedding_rank`] values.
//!
//! The embedding layers of all residual blocks read one vector `e = SiLU(time + label)`, which over the times is
//! a curve for each class, so few directions carry what they read. With the mean `m` and the covariance `C`
//! of `e` over times and labels, and `W` the weights of all embedding layers stacked, the projection `P` of a
//! rank is the one with the least `mean |(W - W' P)(e - m)|^2`:
//!
//! ```text
//! rows of P   an orthonormal basis of C^(-1/2) V,  V the first eigenvectors of C^(1/2) W^T W C^(1/2)
//! W' = W C P^T (P C P^T)^-1
//! W e + b  ~  W' (P e - P m) + (b + W m)
//! ```
//!
//! `[embedding, embedding]` matrices in f64: for upstream's largest net (embedding 1024) 8 MB each.

use candle_core::{DType, Device, Tensor};
use faer::linalg::solvers::{Llt, Solve};
use faer::{Mat, Side};
use quant_core::net::UNetConfig;

use super::unet::UNet;
use super::weight_loader::StateDict;
use crate::error::{Error, Result};

/// Times at which the embedding is taken, from 0 to 1.
const TIMES: usize = 33;
/// Most labels at which it is taken.
const MOST_LABELS: u32 = 101;
/// Part of the mean variance that is added to every direction, of which some have none.
const DAMPING: f64 = 1e-4;
/// Variance of every direction where the embedding is the same at all times and labels.
const LEAST_VARIANCE: f64 = 1e-30;

const PROJECTION: &str = "emb_projection";
const LAYER: &str = ".emb_layers.1.";

/// A net whose embedding can be projected to any rank: what does not depend on the rank is computed once.
pub struct EmbeddingProjector<'a> {
    config: &'a UNetConfig,
    tensors: &'a [(String, Tensor)],
    /// Names and weights of the embedding layers, `[width, embedding]`.
    layers: Vec<(&'a str, Mat<f64>)>,
    /// `m`, `[embedding, 1]`.
    mean: Mat<f64>,
    /// `C`, damped.
    covariance: Mat<f64>,
    /// `C^(-1/2) V` for the whole rank, the most important direction last.
    directions: Mat<f64>,
}

impl<'a> EmbeddingProjector<'a> {
    /// The net of `config`; `tensors` are its parameters in state-dict order.
    ///
    /// # Errors
    /// A net that has a projection or no embedding; parameters that are not the net's or not finite.
    pub fn new(config: &'a UNetConfig, tensors: &'a [(String, Tensor)]) -> Result<Self> {
        if config.embedding_rank.is_some() || config.embeds_nothing() {
            let reason =
                "a net that projects its embedding already, or has none, cannot be projected";
            return Err(Error::Config(reason.into()));
        }
        let layers: Vec<(&str, Mat<f64>)> = tensors
            .iter()
            .filter(|(name, _)| name.ends_with(&format!("{LAYER}weight")))
            .map(|(name, weight)| Ok((name.as_str(), matrix(weight)?)))
            .collect::<Result<_>>()?;
        let (mean, covariance) = moments(config, tensors)?;
        let len = covariance.nrows();
        let (vectors, values) = eigen(&covariance)?;
        let power = |exponent: f64| {
            let scaled = Mat::from_fn(len, len, |i, j| vectors[(i, j)] * values[j].powf(exponent));
            scaled * vectors.transpose()
        };
        let zero = Mat::zeros(len, len);
        let read = layers.iter().fold(zero, |sum: Mat<f64>, (_, w)| sum + w.transpose() * w);
        let root = power(0.5);
        let (directions, _) = eigen(&(&root * read * &root))?;
        let directions = power(-0.5) * directions;
        Ok(Self { config, tensors, layers, mean, covariance, directions })
    }

    /// The net with a projection of `rank` values before its embedding layers, and its parameters in
    /// state-dict order.
    ///
    /// # Errors
    /// A rank outside 1 to the embedding's length; weights that are not finite.
    pub fn project(&self, rank: usize) -> Result<(UNetConfig, Vec<(String, Tensor)>)> {
        let projected = UNetConfig { embedding_rank: Some(rank), ..self.config.clone() };
        super::config::check(&projected)?;
        let projection = self.basis(rank)?;
        let (c, m) = (&self.covariance, &self.mean);
        let inner = &projection * c * projection.transpose();
        let inner = Llt::new(inner.as_ref(), Side::Lower).map_err(|_| not_finite())?;

        let mut named: Vec<(String, Tensor)> = Vec::with_capacity(self.tensors.len() + 2);
        for (name, tensor) in self.tensors {
            let layer = self.layers.iter().find(|(layer, _)| same_layer(layer, name));
            let tensor = match layer {
                Some((weight, w)) if weight == name => {
                    // The transpose of W', by the symmetry of what is inverted.
                    let transposed = inner.solve(&projection * c * w.transpose());
                    to_tensor(&transposed.transpose().to_owned())?
                }
                Some((_, w)) => {
                    let moved = w * m + matrix(&tensor.unsqueeze(1)?)?;
                    to_tensor(&moved)?.squeeze(1)?
                }
                None => tensor.clone(),
            };
            named.push((name.clone(), tensor));
        }
        let bias = to_tensor(&(&projection * m * faer::Scale(-1.0)))?.squeeze(1)?;
        let own = [("weight", to_tensor(&projection)?), ("bias", bias)];
        let own = own.map(|(part, tensor)| (format!("{PROJECTION}.{part}"), tensor));
        let shapes = UNet::shapes(&projected)?;
        let at = shapes.iter().position(|(name, _)| *name == own[0].0).unwrap_or(0);
        named.splice(at..at, own);
        Ok((projected, named))
    }

    /// `P`: orthonormal rows whose products with `e` are uncorrelated, by falling variance.
    fn basis(&self, rank: usize) -> Result<Mat<f64>> {
        let len = self.covariance.nrows();
        let first = self.directions.subcols(len - rank, rank);
        let basis = first.qr().compute_thin_Q();
        let (turn, _) = eigen(&(basis.transpose() * &self.covariance * &basis))?;
        let turned = basis * turn;
        Ok(Mat::from_fn(rank, len, |i, j| turned[(j, rank - 1 - i)]))
    }
}

/// The net in upstream's layout, its projection multiplied into the layers that read it; as it is where it
/// has none.
///
/// # Errors
/// Tensors that are not the net's parameters.
pub fn expand_embedding(
    config: &UNetConfig,
    tensors: Vec<(String, Tensor)>,
) -> Result<(UNetConfig, Vec<(String, Tensor)>)> {
    if config.embedding_rank.is_none() {
        return Ok((config.clone(), tensors));
    }
    let find = |part: &str| {
        let name = format!("{PROJECTION}.{part}");
        let found = tensors.iter().find(|(found, _)| *found == name);
        found.map(|(_, tensor)| tensor.clone()).ok_or_else(|| Error::tensor(&name, "is missing"))
    };
    let (projection, offset) = (matrix(&find("weight")?)?, matrix(&find("bias")?.unsqueeze(1)?)?);
    let mut expanded = Vec::with_capacity(tensors.len());
    for (name, tensor) in &tensors {
        let tensor = match name.rsplit_once(LAYER) {
            Some((_, "weight")) => to_tensor(&(matrix(tensor)? * &projection))?,
            Some((layer, _)) => {
                let weight = format!("{layer}{LAYER}weight");
                let weight = tensors.iter().find(|(found, _)| *found == weight);
                let (_, weight) = weight.ok_or_else(|| Error::tensor(name, "has no weight"))?;
                let moved = matrix(weight)? * &offset + matrix(&tensor.unsqueeze(1)?)?;
                to_tensor(&moved)?.squeeze(1)?
            }
            None if name.starts_with(&format!("{PROJECTION}.")) => continue,
            None => tensor.clone(),
        };
        expanded.push((name.clone(), tensor));
    }
    Ok((UNetConfig { embedding_rank: None, ..config.clone() }, expanded))
}

/// Returns whether the parameter `name` belongs to the layer whose weight is called `weight`.
fn same_layer(weight: &str, name: &str) -> bool {
    weight.rsplit_once('.').map(|(layer, _)| layer) == name.rsplit_once('.').map(|(layer, _)| layer)
}

/// Mean `[embedding, 1]` and damped covariance `[embedding, embedding]` of the embedding over times and labels.
fn moments(config: &UNetConfig, tensors: &[(String, Tensor)]) -> Result<(Mat<f64>, Mat<f64>)> {
    let net = UNet::new(config, &mut StateDict::new(tensors.iter().cloned(), &Device::Cpu))?;
    let rows = u32::try_from(config.num_classes.map_or(1, |classes| classes + 1));
    let rows = rows.map_err(|_| Error::Config("too many classes".into()))?;
    // From the last row, which is "no label".
    let step = rows.div_ceil(MOST_LABELS) as usize;
    let labels: Vec<u32> = (0..rows).rev().step_by(step).collect();
    let n = TIMES * labels.len();
    let time = |i: usize| (i / labels.len()) as f32 / (TIMES - 1) as f32;
    let t = Tensor::from_vec((0..n).map(time).collect::<Vec<_>>(), n, &Device::Cpu)?;
    let label = config.num_classes.map(|_| {
        let all: Vec<u32> = labels.iter().copied().cycle().take(n).collect();
        Tensor::from_vec(all, n, &Device::Cpu)
    });
    let points = matrix(&net.embedding(&t, &t, label.transpose()?.as_ref())?)?;
    let mean = points.transpose() * Mat::full(n, 1, 1.0 / n as f64);
    let centred = Mat::from_fn(n, points.ncols(), |i, j| points[(i, j)] - mean[(j, 0)]);
    let mut covariance = centred.transpose() * &centred * faer::Scale(1.0 / n as f64);
    let len = covariance.nrows();
    let variance = (0..len).map(|i| covariance[(i, i)]).sum::<f64>() / len as f64;
    (0..len).for_each(|i| covariance[(i, i)] += DAMPING * variance + LEAST_VARIANCE);
    Ok((mean, covariance))
}

/// Eigenvectors and eigenvalues of a symmetric matrix, ascending.
fn eigen(matrix: &Mat<f64>) -> Result<(Mat<f64>, Vec<f64>)> {
    let found = matrix.self_adjoint_eigen(Side::Lower).map_err(|_| not_finite())?;
    let values = found.S().column_vector().iter().copied().collect();
    Ok((found.U().to_owned(), values))
}

fn not_finite() -> Error {
    Error::Config("the embedding or the weights that read it are not finite".into())
}

fn matrix(tensor: &Tensor) -> Result<Mat<f64>> {
    let (rows, columns) = tensor.dims2()?;
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(Mat::from_fn(rows, columns, |i, j| f64::from(values[i * columns + j])))
}

fn to_tensor(matrix: &Mat<f64>) -> Result<Tensor> {
    let (rows, columns) = (matrix.nrows(), matrix.ncols());
    #[expect(clippy::cast_possible_truncation, reason = "weights are f32")]
    let value = |i: usize| matrix[(i / columns, i % columns)] as f32;
    let values: Vec<f32> = (0..rows * columns).map(value).collect();
    Ok(Tensor::from_vec(values, (rows, columns), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::tiny;
    use crate::model::{Mode, RandomInit};

    fn net() -> (UNetConfig, Vec<(String, Tensor)>) {
        let config = UNetConfig { num_classes: Some(3), use_scale_shift_norm: true, ..tiny() };
        let mut weights = RandomInit::new(3, &Device::Cpu);
        UNet::new(&config, &mut weights).unwrap();
        let tensors = weights.vars.into_iter().map(|(name, var)| {
            // Fresh nets end in zeros.
            let noise: Vec<f32> = (0..var.elem_count()).map(|i| 0.1 * (i as f32).sin()).collect();
            let noise = Tensor::from_vec(noise, var.dims(), &Device::Cpu).unwrap();
            (name, (var.as_tensor().detach() + noise).unwrap())
        });
        (config, tensors.collect())
    }

    /// The velocity at some points, whose times are not those of the projection.
    fn velocity((config, tensors): &(UNetConfig, Vec<(String, Tensor)>)) -> Vec<f32> {
        let mut weights = StateDict::new(tensors.iter().cloned(), &Device::Cpu);
        let net = UNet::new(config, &mut weights).unwrap();
        weights.finish().unwrap();
        let x: Vec<f32> = (0..5 * 64).map(|i| (i as f32 * 0.37).sin()).collect();
        let x = Tensor::from_vec(x, (5, 1, 8, 8), &Device::Cpu).unwrap();
        let t = Tensor::new(&[0.03_f32, 0.2, 0.51, 0.77, 0.99], &Device::Cpu).unwrap();
        let label = Tensor::new(&[0_u32, 3, 2, 3, 1], &Device::Cpu).unwrap();
        let v = net.forward(&x, &t, Some(&label), None, Mode::Eval).unwrap();
        v.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn relative_error(found: &[f32], right: &[f32]) -> f32 {
        let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>();
        let error = square(&mut found.iter().zip(right).map(|(a, b)| a - b));
        (error / square(&mut right.iter().copied())).sqrt()
    }

    #[test]
    fn the_whole_rank_changes_nothing_and_less_changes_little() {
        let (config, tensors) = net();
        let right = velocity(&(config.clone(), tensors.clone()));
        let projector = EmbeddingProjector::new(&config, &tensors).unwrap();
        let errors = [config.embedding(), 24, 6, 1].map(|rank| {
            let projected = projector.project(rank).unwrap();
            relative_error(&velocity(&projected), &right)
        });
        assert!(errors[0] < 1e-5, "{errors:?}");
        assert!(errors.is_sorted() && errors[3] < 1.0, "{errors:?}");
        assert!(errors[1] < 0.1 * errors[3], "{errors:?}");
    }

    #[test]
    fn an_expanded_net_is_the_projected_one() {
        let (config, tensors) = net();
        let (low, projected) =
            EmbeddingProjector::new(&config, &tensors).unwrap().project(5).unwrap();
        let names: Vec<_> = projected.iter().map(|(name, _)| name.clone()).collect();
        assert!(names.iter().eq(UNet::shapes(&low).unwrap().iter().map(|(name, _)| name)));
        let right = velocity(&(low.clone(), projected.clone()));
        let (expanded_config, expanded) = expand_embedding(&low, projected).unwrap();
        assert_eq!(expanded_config, config);
        assert!(expanded.iter().map(|(name, _)| name).eq(tensors.iter().map(|(name, _)| name)));
        assert!(relative_error(&velocity(&(config, expanded)), &right) < 1e-5);
    }

    #[test]
    fn an_embedding_that_never_changes_is_its_mean() {
        let (config, mut tensors) = net();
        for (name, tensor) in &mut tensors {
            if name.starts_with("time_embed.2.weight") || name.starts_with("label_emb.") {
                *tensor = tensor.zeros_like().unwrap();
            }
        }
        let projected = EmbeddingProjector::new(&config, &tensors).unwrap().project(1).unwrap();
        assert!(relative_error(&velocity(&projected), &velocity(&(config, tensors))) < 1e-5);
    }

    #[test]
    fn what_cannot_be_projected_is_refused() {
        let (config, tensors) = net();
        let projector = EmbeddingProjector::new(&config, &tensors).unwrap();
        for rank in [0, config.embedding() + 1] {
            assert!(projector.project(rank).is_err(), "{rank}");
        }
        let (low, projected) = projector.project(4).unwrap();
        assert!(EmbeddingProjector::new(&low, &projected).is_err());
        assert!(expand_embedding(&low, tensors).is_err());
    }
}
