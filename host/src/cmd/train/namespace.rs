//! The command line as upstream keeps it: in `args.json` and in its checkpoints.

use fm_candle::model::{UNetConfig, config};
use fm_candle::process_group::Rank;
use serde_json::{Map, Value, json};

use super::args::Args;
use crate::args::common::Common;

/// Upstream's flags by their names, in its order, then ours.
pub(super) fn namespace(
    args: &Args,
    common: &Common,
    net: &UNetConfig,
    rank: Rank,
) -> Map<String, Value> {
    let ode_options = args.ode_options.json();
    let net: Value = serde_json::from_str(&config::to_json(net)).unwrap_or_default();
    let flags = json!({
        "batch_size": args.batch_size,
        "epochs": args.epochs,
        "accum_iter": args.accum_iter,
        "lr": args.lr,
        "optimizer_betas": args.optimizer_betas,
        "decay_lr": args.decay_lr,
        "class_drop_prob": args.class_drop_prob,
        "skewed_timesteps": args.skewed_timesteps,
        "edm_schedule": args.edm_schedule,
        "use_ema": args.use_ema,
        "dataset": args.dataset.name(),
        "data_path": args.data_path.to_string_lossy(),
        "output_dir": args.output_dir.to_string_lossy(),
        "ode_method": args.ode_method.name(),
        "ode_options": ode_options,
        "cfg_scale": args.cfg_scale,
        "device": common.device_name(),
        "seed": common.seed,
        "resume": args.resume,
        "start_epoch": args.start_epoch.unwrap_or(0),
        "eval_only": args.eval_only,
        "eval_frequency": args.eval_frequency,
        "compute_fid": args.compute_fid,
        "fid_samples": args.fid_samples,
        "save_fid_samples": args.save_fid_samples,
        "test_run": args.test_run,
        "discrete_flow_matching": args.discrete_flow_matching,
    });
    let ours = json!({
        "arch": args.arch,
        "image_size": args.image_size,
        "skip_bad": args.skip_bad,
        "cache_mib": args.cache_mib,
        "no_flip": args.no_flip,
        "precision": args.precision,
        "gradient_checkpointing": args.gradient_checkpointing,
        "steps": args.count.given(),
        "net": net,
    });
    let launcher = Value::Object(args.launcher.attributes());
    let together = match rank.size {
        1 => json!({}),
        size => json!({ "world_size": size, "distributed": true }),
    };
    let parts = [flags, launcher, together, ours].into_iter();
    parts
        .filter_map(|part| if let Value::Object(map) = part { Some(map) } else { None })
        .flatten()
        .collect()
}
