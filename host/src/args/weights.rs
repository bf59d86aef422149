//! The options that choose the weights of a CHECKPOINT, shared by all commands that read one.

use std::path::Path;

use anyhow::{Context, Result};
use fm_candle::checkpoint::{Choice, LeftOut, NetInfo, Source, TensorInfo, identify, order};
use fm_candle::json;
use fm_candle::model::{UNetConfig, config};

use crate::progress::Reporter;

/// Most tensors that a line names.
const MAX_NAMED: usize = 3;

/// Which weights of a file are taken, and for which net.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct WeightsArgs {
    /// The net, where the file does not say: a preset or a JSON file with upstream's fields
    #[arg(long, value_name = "NAME|FILE.json")]
    pub(crate) arch: Option<String>,
    /// Take the raw weights although the file has an average (EMA)
    #[arg(long)]
    pub(crate) raw_weights: bool,
    /// Take the net under this key, where the file holds several, such as `ema_model`; `inspect`
    /// lists them
    #[arg(long, value_name = "KEY")]
    pub(crate) checkpoint_key: Option<String>,
}

/// The part of a file that is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One net.
    Net,
    /// All nets, under the file's own names.
    Whole,
}

impl WeightsArgs {
    /// Opens a file: of several nets in it the one that was asked for, or that is known.
    pub(crate) fn open(&self, path: &Path, scope: Scope) -> Result<Source> {
        let config = self.arch.as_deref().map(config_named).transpose()?;
        let fits = |tensors: &[TensorInfo]| match &config {
            Some(config) => order(config, tensors).is_ok(),
            None => identify(tensors).is_ok(),
        };
        let (raw_weights, key) = (self.raw_weights, self.checkpoint_key.as_deref());
        let choice = Choice { raw_weights, key, fits: Some(&fits) };
        Ok(match scope {
            Scope::Net => Source::open_net(path, &choice)?,
            Scope::Whole => Source::open_whole(path, &choice)?,
        })
    }

    /// Warns of `--raw-weights` for a file that has no others.
    pub(crate) fn say_unused(&self, source: &Source, path: &Path, progress: Reporter) {
        if self.raw_weights && !source.nets().iter().any(|net| net.average) {
            let path = path.display();
            progress.line(&format!(
                "warning: --raw-weights has no effect: `{path}` has no average (EMA)"
            ));
        }
    }
}

/// Says what was taken of a file where that is not all, a line for each kind.
pub(crate) fn say_taken(source: &Source, path: &Path, progress: Reporter) {
    let path = path.display();
    let (taken, others): (Vec<_>, Vec<_>) = source.nets().iter().partition(|net| net.taken);
    match (taken.as_slice(), others.as_slice()) {
        ([], _) | ([_], []) => {}
        ([net], others) => progress.line(&format!(
            "`{path}` holds several nets: taking {}, not {} (--checkpoint-key)",
            named_net(net),
            list(others)
        )),
        (all, _) => progress.line(&format!(
            "`{path}` holds nets that have nothing in common: taking {} together \
             (--checkpoint-key takes one)",
            list(all)
        )),
    }
    if !source.prefix().is_empty() {
        progress
            .line(&format!("`{path}`: the prefix `{}.` of all names is left off", source.prefix()));
    }
    let left_out = source.left_out();
    if !left_out.is_empty() {
        let named = left_out.iter().take(MAX_NAMED);
        let named = named.map(|LeftOut { name, reason }| format!("`{name}` {reason}"));
        progress.line(&format!(
            "`{path}`: {} left out: {}{}",
            if left_out.len() == 1 {
                "1 tensor is".into()
            } else {
                format!("{} tensors are", left_out.len())
            },
            named.collect::<Vec<_>>().join("; "),
            if left_out.len() > MAX_NAMED { "; ..." } else { "" }
        ));
    }
}

fn list(nets: &[&NetInfo]) -> String {
    nets.iter().map(|net| named_net(net)).collect::<Vec<_>>().join(", ")
}

/// A net, for people.
pub(crate) fn named_net(net: &NetInfo) -> String {
    let average = if net.average { " (averaged)" } else { "" };
    match net.key.as_str() {
        "" => format!("the whole file{average}"),
        key => format!("`{key}`{average}"),
    }
}

/// The configuration that `--arch` names: a preset, or a JSON file with upstream's fields.
pub(crate) fn config_named(arch: &str) -> Result<UNetConfig> {
    if !UNetConfig::PRESETS.contains(&arch) && Path::new(arch).is_file() {
        let json = json::read(Path::new(arch)).context("--arch")?;
        return config::from_json(&json).with_context(|| format!("--arch `{arch}`"));
    }
    let what = || format!("--arch `{arch}`: must be a preset or an existing JSON file");
    UNetConfig::preset(arch).with_context(what)
}
