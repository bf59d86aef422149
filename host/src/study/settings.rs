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

/// The first setting of `there` that is another one `here`, in words; none if all are the same.
pub(super) fn difference(there: &Map<String, Value>, here: &Map<String, Value>) -> Option<String> {
    let short = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "none".to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let names = here.keys().chain(there.keys());
    let (name, old, new) = names
        .map(|name| (name, there.get(name), here.get(name)))
        .find(|(_, old, new)| old != new)?;
    Some(format!("its {name} is {}, not {}", short(old), short(new)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_that_differs_is_named() {
        let map = |value: Value| value.as_object().cloned().unwrap();
        let old = map(json!({"n": 256, "seed": 1, "quantizer options": null}));
        assert_eq!(difference(&old, &old), None);
        let new = map(json!({"n": 256, "seed": 2, "quantizer options": null}));
        assert_eq!(difference(&old, &new).unwrap(), "its seed is 1, not 2");
        let new = map(json!({"n": 256, "seed": 1, "quantizer options": "granularity tensor"}));
        let told = difference(&old, &new).unwrap();
        assert_eq!(told, "its quantizer options is none, not granularity tensor");
        let more = map(json!({"n": 256, "seed": 1, "quantizer options": null, "x": 2}));
        assert_eq!(difference(&more, &old).unwrap(), "its x is 2, not none");
    }
}
