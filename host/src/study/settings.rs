//! The settings that a study was made with: rows made with other settings never stand in the same
//! table.

use anyhow::Result;
use fm_candle::fingerprint;
use fm_candle::model::config;
use serde_json::{Map, Value, json};

use super::Study;
use crate::args::net::NetPrecision;

/// Everything that a row depends on but its scheme and bits, by name.
pub(super) fn of(study: &Study) -> Result<Map<String, Value>> {
    let settings = json!({
        "fmq": env!("CARGO_PKG_VERSION"),
        "packed format": quant_core::format::VERSION,
        "net": serde_json::from_str::<Value>(&config::to_json(&study.config))?,
        "weights": fingerprint::of_weights(&study.tensors)?,
        "quantizer options": study.policy.differences(),
        "n": study.n,
        "seed": study.seed,
        "seeds": study.seeds,
        "sampler": format!("{:?}", study.sampler),
        "features": study.features_name,
        "distance": study.fid_label,
        "reference images": study.reference.images,
        "real images": fingerprint::of_images(&study.real, study.real.n, |_| {})?,
        "analyses": study.analyses,
        "unit range": study.unit_range,
    });
    match settings {
        Value::Object(mut settings) => {
            // As before there was a choice, where it is the default.
            if study.dtype != NetPrecision::F32 {
                settings.insert("dtype".into(), study.dtype.name().into());
            }
            Ok(settings)
        }
        _ => Ok(Map::new()),
    }
}
