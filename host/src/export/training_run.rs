//! The facts of a training run, from the files in its folder: `args.json` and `log.txt`.

use std::fs;
use std::path::Path;

use fm_candle::checkpoint::{Catalogue, MeasuredFid};
use fm_candle::json;
use fm_candle::model::{UNetConfig, config};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::net_difference::difference;
use crate::args::command_line::shell_word;

/// Flags of `fmq train` that the weights depend on, in the order in which they are written.
const FLAGS: [&str; 16] = [
    "dataset",
    "data_path",
    "arch",
    "image_size",
    "skip_bad",
    "no_flip",
    "batch_size",
    "epochs",
    "accum_iter",
    "lr",
    "optimizer_betas",
    "decay_lr",
    "class_drop_prob",
    "skewed_timesteps",
    "use_ema",
    "precision",
];

/// A training run: its command line and what was logged of each epoch.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrainingRun {
    /// The flags by their names, ours and upstream's.
    args: Map<String, Value>,
    epochs: Vec<Epoch>,
}

/// What was logged of an epoch.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Epoch {
    /// Its number, from 0.
    #[serde(rename = "epoch")]
    pub(crate) number: u64,
    /// Mean loss.
    #[serde(rename = "train_loss")]
    pub(crate) loss: Option<f64>,
    /// FID after it.
    #[serde(rename = "eval_fid")]
    pub(crate) fid: Option<f64>,
    /// Samples that it was measured on.
    #[serde(rename = "eval_fid_samples")]
    fid_samples: Option<u64>,
}

impl TrainingRun {
    /// The run in the folder `dir`; none where there are no `args.json` and `log.txt` of one.
    pub(crate) fn open(dir: &Path) -> Option<Self> {
        let args = json::read(&dir.join("args.json")).ok()?;
        Self::parse(&args, &fs::read_to_string(dir.join("log.txt")).ok()?)
    }

    fn parse(args: &str, log: &str) -> Option<Self> {
        let args: Map<String, Value> = serde_json::from_str(args).ok()?;
        args.get("dataset")?;
        let mut epochs: Vec<Epoch> = Vec::new();
        for entry in log.lines().filter_map(|line| serde_json::from_str::<Epoch>(line).ok()) {
            epochs.retain(|earlier| earlier.number != entry.number);
            epochs.push(entry);
        }
        Some(Self { args, epochs })
    }

    /// Returns false if the run says that it trained another net.
    pub(crate) fn is_of(&self, net: &UNetConfig) -> bool {
        let own = self.args.get("net").map(|json| config::from_json(&json.to_string()));
        own.is_none_or(|own| own.is_ok_and(|own| difference(&own, net).is_none()))
    }

    /// The run as it was after so many epochs, where they are known.
    pub(crate) fn up_to(mut self, epochs: Option<u64>) -> Self {
        self.epochs.retain(|entry| epochs.is_none_or(|epochs| entry.number < epochs));
        self
    }

    /// Returns true if the run evaluates with the moving average of its weights.
    pub(crate) fn averages(&self) -> bool {
        self.args.get("use_ema") == Some(&Value::Bool(true))
    }

    /// What was logged, an entry for each epoch.
    pub(crate) fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }

    /// Data set, epochs, loss and FID after the last of them.
    pub(crate) fn catalogue(&self) -> Catalogue {
        let last = self.epochs.last();
        Catalogue {
            dataset: self.text("dataset").map(Into::into),
            epochs: last.map(|last| last.number + 1),
            loss: last.and_then(|last| last.loss),
            fid: last.and_then(|last| self.fid(last)),
            license: None,
        }
    }

    /// The FID after an epoch, where it was measured.
    fn fid(&self, entry: &Epoch) -> Option<MeasuredFid> {
        Some(MeasuredFid {
            name: "FID".into(),
            value: entry.fid?,
            error: None,
            features: "inception, resize: torchmetrics".into(),
            samples: entry.fid_samples,
            reference: format!("{} train", self.text("dataset")?),
            sampler: self.sampler()?,
        })
    }

    /// The solver of the samples, in words.
    fn sampler(&self) -> Option<String> {
        let mut sampler = vec![self.text("ode_method")?.to_string()];
        match (self.args.get("steps"), self.args.get("ode_options")) {
            (Some(Value::Number(steps)), _) => sampler.push(format!("{steps} steps")),
            (_, Some(options)) => sampler.push(options.to_string()),
            _ => {}
        }
        if self.args.get("edm_schedule") == Some(&Value::Bool(true)) {
            sampler.push("EDM time grid".into());
        }
        let scale = self.args.get("cfg_scale").and_then(Value::as_f64);
        sampler
            .extend(scale.filter(|&scale| scale != 0.0).map(|scale| format!("guidance {scale}")));
        Some(sampler.join(", "))
    }

    /// The command that trains the same net, with every flag that matters, so that no default does; `DIR`
    /// stands for the folder of the data set, `config.json` for a net that is no preset. None for a run
    /// of another program.
    pub(crate) fn command(&self) -> Option<String> {
        self.args.get("net")?;
        let mut words = vec!["fmq train".to_string()];
        if let Some(processes) = self.args.get("world_size").and_then(Value::as_u64)
            && processes > 1
        {
            words.insert(0, format!("mpirun -n {processes}"));
        }
        for flag in FLAGS {
            let value = match (flag, self.args.get(flag)) {
                (_, None | Some(Value::Null | Value::Bool(false))) => continue,
                (_, Some(Value::Bool(true))) => String::new(),
                ("data_path", _) => " DIR".into(),
                ("arch", Some(Value::String(arch)))
                    if !UNetConfig::PRESETS.contains(&arch.as_str()) =>
                {
                    " config.json".into()
                }
                (_, Some(Value::String(text))) => format!(" {}", shell_word(text)),
                (_, Some(Value::Array(values))) => {
                    let values: Vec<_> = values.iter().map(Value::to_string).collect();
                    format!(" {}", values.join(" "))
                }
                (_, Some(value)) => format!(" {value}"),
            };
            words.push(format!("--{flag}{value}"));
        }
        words.extend(self.args.get("seed").map(|seed| format!("--seed {seed}")));
        Some(words.join(" "))
    }

    fn text(&self, flag: &str) -> Option<&str> {
        self.args.get(flag)?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGS: &str = r#"{
        "batch_size": 5, "epochs": 3, "lr": 0.001, "optimizer_betas": [0.9, 0.95], "decay_lr": false,
        "use_ema": true, "dataset": "mnist", "data_path": "/home/me/mnist", "output_dir": "run",
        "ode_method": "midpoint", "ode_options": {"step_size": 0.1}, "cfg_scale": 0.2, "seed": 7,
        "arch": "my net.json", "image_size": null, "net": {"num_heads": 2}
    }"#;

    const LOG: &str = "{\"train_loss\": 0.5, \"epoch\": 0}\n{\"train_loss\": 0.4, \"epoch\": 1, \
        \"eval_fid\": 9.5, \"eval_fid_samples\": 70}\n{\"train_loss\": 0.3, \"epoch\": 2}\nnoise\n";

    #[test]
    fn the_command_has_every_flag_that_matters_and_no_path() {
        let run = TrainingRun::parse(ARGS, LOG).unwrap();
        assert_eq!(
            run.command().unwrap(),
            "fmq train --dataset mnist --data_path DIR --arch config.json --batch_size 5 --epochs 3 \
             --lr 0.001 --optimizer_betas 0.9 0.95 --use_ema --seed 7"
        );
        let together = ARGS.replace("\"seed\"", "\"world_size\": 2, \"seed\"");
        let run = TrainingRun::parse(&together, LOG).unwrap();
        assert!(run.command().unwrap().starts_with("mpirun -n 2 fmq train --dataset"));
        let upstream = ARGS.replace("\"net\"", "\"other\"");
        assert_eq!(TrainingRun::parse(&upstream, LOG).unwrap().command(), None);
    }

    #[test]
    fn facts_are_those_after_the_last_epoch_of_the_checkpoint() {
        let run = TrainingRun::parse(ARGS, LOG).unwrap();
        let facts = run.catalogue();
        assert_eq!((facts.epochs, facts.loss, facts.fid), (Some(3), Some(0.3), None));
        let facts = run.up_to(Some(2)).catalogue();
        assert_eq!((facts.epochs, facts.loss), (Some(2), Some(0.4)));
        let fid = facts.fid.unwrap();
        assert_eq!((fid.value, fid.samples, &*fid.reference), (9.5, Some(70), "mnist train"));
        assert_eq!(fid.sampler, r#"midpoint, {"step_size":0.1}, guidance 0.2"#);
    }

    #[test]
    fn other_files_of_the_same_names_say_nothing() {
        assert!(TrainingRun::parse("{}", LOG).is_none());
        assert!(TrainingRun::parse("[1]", LOG).is_none());
    }

    #[test]
    fn a_run_of_another_net_is_told() {
        let run = TrainingRun::parse(ARGS, LOG).unwrap();
        let net = UNetConfig { num_heads: 2, ..UNetConfig::default() };
        assert!(run.is_of(&net));
        assert!(!run.is_of(&UNetConfig { num_heads: 4, ..net }));
    }
}
