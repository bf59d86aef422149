//! Upstream's training checkpoint: which of its entries are a run's, in both directions.
//!
//! ```text
//! model         the state dict; with an average num_updates, model.NAME and shadow_params.N
//! optimizer     torch's AdamW: state {N: step, exp_avg, exp_avg_sq} and one group; the shadows are
//!               parameters too, after the others and without a state
//! lr_schedule   ConstantLR or LinearLR
//! epoch         the last finished one; -1 before that
//! scaler        the gradient scaler of half precision
//! args          a namespace of the command line
//! fmq           our own: texts by key, which upstream does not look at
//! ```
//! Source: `examples/image/training/load_and_save.py` and `examples/image/models/ema.py` of
//! `facebookresearch/flow_matching`; `torch/optim/adamw.py` and `lr_scheduler.py`.

use std::collections::HashMap;
use std::path::Path;

use candle_core::DType;
use serde_json::{Map, Value as Json};

use super::{AdamWConfig, Scaler, Schedule};
use crate::checkpoint::torch::{Object, attributes};
use crate::checkpoint::{Choice, METADATA_KEY, Source};
use crate::error::{Error, Result};

/// The contents of a training checkpoint beside the elements of its tensors.
pub(super) struct CheckpointHeader<'a> {
    /// Name and shape of each parameter, in the state dict's order.
    pub(super) parameters: Vec<(&'a str, &'a [usize])>,
    /// True if an average is kept.
    pub(super) ema: bool,
    /// True if the optimizer has made an update.
    pub(super) moments: bool,
    pub(super) adam: &'a AdamWConfig,
    pub(super) schedule: &'a Schedule,
    pub(super) scaler: &'a Scaler,
    /// Finished epochs.
    pub(super) epochs: u64,
    pub(super) args: &'a Map<String, Json>,
    pub(super) metadata: &'a [(&'a str, String)],
}

impl CheckpointHeader<'_> {
    /// The object to pickle. Its tensors are, in this order: `num_updates` where an average is kept,
    /// the weights, their averages, and for each parameter step, `exp_avg` and `exp_avg_sq`.
    pub(super) fn object(&self) -> Object {
        let epoch = i64::try_from(self.epochs).map_or(i64::MAX, |epochs| epochs - 1);
        let metadata = self.metadata.iter().map(|(key, text)| (*key, Object::from(&**text)));
        dict([
            ("model", self.model()),
            ("optimizer", self.optimizer()),
            ("lr_schedule", Object::from(&self.schedule.state(self.epochs))),
            ("epoch", Object::Int(epoch)),
            ("scaler", Object::from(&self.scaler.state())),
            ("args", Object::Namespace(attributes(self.args))),
            (METADATA_KEY, dict(metadata)),
        ])
    }

    fn model(&self) -> Object {
        let tensor = |shape: &[usize]| Object::Tensor(DType::F32, shape.to_vec());
        let mut entries = Vec::new();
        let prefix = if self.ema { "model." } else { "" };
        if self.ema {
            entries.push(("num_updates".into(), Object::Tensor(DType::I64, Vec::new())));
        }
        for (name, shape) in &self.parameters {
            entries.push((Object::Text(format!("{prefix}{name}")), tensor(shape)));
        }
        if self.ema {
            for (i, (_, shape)) in self.parameters.iter().enumerate() {
                entries.push((Object::Text(format!("shadow_params.{i}")), tensor(shape)));
            }
        }
        Object::Ordered(entries)
    }

    fn optimizer(&self) -> Object {
        let tensor = |shape: &[usize]| Object::Tensor(DType::F32, shape.to_vec());
        let states = (0..).zip(&self.parameters).filter(|_| self.moments).map(|(i, (_, shape))| {
            let moments =
                [("step", tensor(&[])), ("exp_avg", tensor(shape)), ("exp_avg_sq", tensor(shape))];
            (Object::Int(i), dict(moments))
        });
        let AdamWConfig { betas: (beta1, beta2), eps, weight_decay, .. } = *self.adam;
        let count = self.parameters.len() * if self.ema { 2 } else { 1 };
        let group = dict([
            ("lr", Object::Float(self.schedule.lr(self.epochs))),
            ("betas", Object::Tuple(vec![Object::Float(beta1), Object::Float(beta2)])),
            ("eps", Object::Float(eps)),
            ("weight_decay", Object::Float(weight_decay)),
            ("amsgrad", Object::Bool(false)),
            ("maximize", Object::Bool(false)),
            ("foreach", Object::None),
            ("capturable", Object::Bool(false)),
            ("differentiable", Object::Bool(false)),
            ("fused", Object::None),
            ("decoupled_weight_decay", Object::Bool(true)),
            ("initial_lr", Object::Float(self.schedule.initial)),
            ("params", Object::List((0..).take(count).map(Object::Int).collect())),
        ]);
        dict([
            ("state", Object::Dict(states.collect())),
            ("param_groups", Object::List(vec![group])),
        ])
    }
}

fn dict<'a>(entries: impl IntoIterator<Item = (&'a str, Object)>) -> Object {
    Object::Dict(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

/// A training checkpoint as it is found, its moments not yet read.
pub(super) struct FoundCheckpoint {
    /// The raw weights.
    pub(super) weights: Source,
    /// The average, where one is kept, and the updates that it has seen.
    pub(super) average: Option<(Source, u64)>,
    /// The optimizer's tensors.
    optimizer: Source,
    /// Index of the tensor of each name among them.
    places: HashMap<String, usize>,
    /// Settings of the optimizer; the average's are not among them.
    pub(super) adam: AdamWConfig,
    pub(super) schedule: Schedule,
    pub(super) scaler: Scaler,
    /// Finished epochs.
    pub(super) epochs: u64,
    /// The optimizer's numbers of the parameters, in their order.
    numbers: Vec<u64>,
    /// Updates that the optimizer has made.
    pub(super) updates: u64,
}

impl FoundCheckpoint {
    /// Opens the training checkpoint at `path`; none where it holds weights alone, or as upstream's
    /// loader sees it no epoch.
    ///
    /// # Errors
    /// A file that is no checkpoint; an optimizer or a schedule that AdamW and [`Schedule`] cannot go
    /// on with.
    pub(super) fn open(path: &Path) -> Result<Option<Self>> {
        let weights = Source::open(path, true)?;
        let Some((optimizer, rest)) = Source::open_training(path)? else { return Ok(None) };
        if rest["epoch"].is_null() {
            return Ok(None);
        }
        let bad = |reason: String| Error::file(path, reason);
        let average = Source::open(path, false)?;
        let average = if average.ema() { Some((average, num_updates(path)?)) } else { None };
        let epochs =
            finished(&rest).ok_or_else(|| bad(format!("epoch is {}, no count", rest["epoch"])))?;
        let schedule = Schedule::from_state(&rest["lr_schedule"], epochs)
            .map_err(|reason| bad(format!("lr_schedule {reason}")))?;
        let scaler = Scaler::from_state(&rest["scaler"])
            .map_err(|reason| bad(format!("scaler {reason}")))?;
        let [group] = rest["optimizer"]["param_groups"].as_array().map_or(&[][..], |g| g) else {
            return Err(bad("the optimizer has not one group of parameters".into()));
        };
        let adam = adam(group).map_err(|reason| bad(format!("the optimizer {reason}")))?;
        let params = group["params"].as_array().map_or(&[][..], |params| params);
        let numbers = params.iter().map_while(Json::as_u64).collect();
        let places = optimizer.tensors().iter().enumerate();
        let places = places.map(|(place, info)| (info.name.clone(), place)).collect();
        let mut found = Self {
            weights,
            average,
            optimizer,
            places,
            adam,
            schedule,
            scaler,
            epochs,
            numbers,
            updates: 0,
        };
        found.updates = found.steps(&rest["optimizer"]["state"]).map_err(bad)?;
        Ok(Some(found))
    }

    /// The updates that the parameters have had, all the same number; before torch 1.12 they are
    /// plain numbers, not tensors.
    fn steps(&self, state: &Json) -> Result<u64, String> {
        let mut steps = self.numbers.iter().filter_map(|number| {
            let Some(&place) = self.places.get(&format!("state.{number}.step")) else {
                return state[number.to_string()]["step"].as_f64();
            };
            let step = self.optimizer.read(place).ok()?.to_dtype(DType::F64).ok()?;
            step.flatten_all().ok()?.to_vec1().ok()?.first().copied()
        });
        let Some(first) = steps.next() else { return Ok(0) };
        if let Some(other) = steps.find(|step| step.to_bits() != first.to_bits()) {
            return Err(format!(
                "its parameters have had different numbers of updates ({first} and {other})"
            ));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
        let whole = (first.fract() == 0.0 && (0.0..1e15).contains(&first)).then_some(first as u64);
        whole.ok_or_else(|| format!("the optimizer has made {first} updates"))
    }

    /// `exp_avg` or `exp_avg_sq` of the parameter at `index`; none where it has had no update.
    ///
    /// # Errors
    /// A tensor that cannot be read or has not `len` elements.
    pub(super) fn moment(&self, index: usize, kind: &str, len: usize) -> Result<Option<Vec<f32>>> {
        let name = self.numbers.get(index).map(|number| format!("state.{number}.{kind}"));
        let Some(&place) = name.and_then(|name| self.places.get(&name)) else { return Ok(None) };
        let tensor = self.optimizer.read(place)?.to_dtype(DType::F32)?;
        if tensor.elem_count() != len {
            let name = &self.optimizer.tensors()[place].name;
            let reason = format!("has {} elements, its parameter {len}", tensor.elem_count());
            return Err(Error::tensor(name, reason));
        }
        Ok(Some(tensor.flatten_all()?.to_vec1()?))
    }
}

/// Finished epochs, from the number of the last one.
pub(super) fn finished(rest: &Json) -> Option<u64> {
    u64::try_from(rest["epoch"].as_i64()?.checked_add(1)?).ok()
}

/// The settings in a group of torch's AdamW; what of them we do not do.
fn adam(group: &Json) -> Result<AdamWConfig, String> {
    for key in ["amsgrad", "maximize"] {
        if group[key] == true {
            return Err(format!("has {key} set, which fmq does not do"));
        }
    }
    let number = |value: &Json| value.as_f64().filter(|value| value.is_finite() && *value >= 0.0);
    let (betas, eps) = (&group["betas"], number(&group["eps"]));
    match (number(&betas[0]), number(&betas[1]), eps, number(&group["weight_decay"])) {
        (Some(beta1), Some(beta2), Some(eps), Some(weight_decay)) if beta1 < 1.0 && beta2 < 1.0 => {
            let betas = (beta1, beta2);
            Ok(AdamWConfig { betas, eps, weight_decay, ema_decay: None })
        }
        _ => Err("lacks betas, eps or weight_decay; it is not AdamW".into()),
    }
}

/// The updates that the average has seen.
fn num_updates(path: &Path) -> Result<u64> {
    let whole = Source::open_whole(path, &Choice::default())?;
    let place = whole.tensors().iter().position(|info| info.name == "num_updates");
    let read = place.map(|place| whole.read(place)).transpose()?;
    let count = read.and_then(|tensor| tensor.flatten_all().ok()?.to_vec1::<i64>().ok());
    let count = count.and_then(|count| u64::try_from(*count.first()?).ok());
    count.ok_or_else(|| Error::file(path, "an average, but no tensor `num_updates` that counts"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::torch::save_object;

    /// The result of opening a checkpoint with these entries beside one weight.
    fn found(entries: Vec<(&str, Object)>) -> Result<Option<FoundCheckpoint>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint.pth");
        let model = Object::Ordered(vec![("w".into(), Object::Tensor(DType::F32, vec![1]))]);
        let object = dict([("model", model)].into_iter().chain(entries));
        save_object(&path, &object, [Ok(vec![0; 4])]).unwrap();
        FoundCheckpoint::open(&path)
    }

    #[test]
    fn weights_alone_are_no_run() {
        assert!(found(vec![]).unwrap().is_none());
        assert!(found(vec![("epoch", Object::Int(3))]).unwrap().is_none());
        assert!(found(vec![("optimizer", dict([]))]).unwrap().is_none());
    }

    #[test]
    fn a_run_that_cannot_go_on_says_why() {
        let optimizer = |group: &[(&'static str, Object)]| {
            let group = dict(group.iter().cloned());
            dict([("param_groups", Object::List(vec![group])), ("state", dict([]))])
        };
        let schedule =
            || Object::from(&Schedule::new(&super::super::TrainConfig::default()).state(4));
        let why = |epoch, schedule, group: &[(&'static str, Object)]| {
            let entries = vec![
                ("optimizer", optimizer(group)),
                ("epoch", Object::Int(epoch)),
                ("lr_schedule", schedule),
            ];
            found(entries).err().unwrap().to_string()
        };
        assert!(why(-2, schedule(), &[]).contains("epoch is -2"));
        assert!(why(3, dict([]), &[]).contains("lr_schedule is neither"));
        assert!(why(3, schedule(), &[]).contains("is not AdamW"));
        let amsgrad = [("amsgrad", Object::Bool(true))];
        assert!(why(3, schedule(), &amsgrad).contains("has amsgrad set"));
    }
}
