//! Settings that results on disk were made with: results of other settings are never taken for them.

use serde_json::{Map, Value};

/// The first setting of `there` that is another one `here`, in words; none if all are the same.
pub(crate) fn difference(there: &Map<String, Value>, here: &Map<String, Value>) -> Option<String> {
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
    use serde_json::json;

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
