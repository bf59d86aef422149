//! Whether two configurations are of one net.

use fm_candle::model::UNetConfig;
use serde_json::{Map, Value};

/// The first field in which two nets differ, with its values of `a` and `b`; none where they are the same.
///
/// Dropout and recomputing are training's; a projection of the embedding is the packed file's own; the
/// side of the images may be unknown.
pub(super) fn difference(a: &UNetConfig, b: &UNetConfig) -> Option<String> {
    let bare = |net: &UNetConfig, other: &UNetConfig| {
        let bare = UNetConfig {
            dropout: 0.0,
            use_checkpoint: false,
            embedding_rank: None,
            image_size: net.image_size.filter(|_| other.image_size.is_some()),
            ..net.clone()
        };
        serde_json::to_value(bare).unwrap_or_default()
    };
    let (a, b) = (bare(a, b), bare(b, a));
    let mut keys = a.as_object().into_iter().chain(b.as_object()).flat_map(Map::keys);
    let key = keys.find(|key| a.get(key) != b.get(key))?;
    let value = |net: &Value| net.get(key).map_or_else(|| "none".into(), Value::to_string);
    Some(format!("{key} {}, not {}", value(&a), value(&b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_packed_file_adds_is_no_difference() {
        let net = UNetConfig { dropout: 0.1, ..UNetConfig::default() };
        let packed = UNetConfig {
            dropout: f64::from(0.1_f32),
            embedding_rank: Some(3),
            image_size: Some(8),
            ..net.clone()
        };
        assert_eq!(difference(&net, &packed), None);
        let classes = UNetConfig { num_classes: Some(10), ..net.clone() };
        assert_eq!(difference(&classes, &net).unwrap(), "num_classes 10, not null");
        let patches = UNetConfig { patch: 2, ..net };
        assert_eq!(difference(&packed, &patches).unwrap(), "patch none, not 2");
        let large = UNetConfig { image_size: Some(16), ..packed.clone() };
        assert_eq!(difference(&packed, &large).unwrap(), "image_size 8, not 16");
    }
}
