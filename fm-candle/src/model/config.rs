//! The net's configuration as JSON, with upstream's field names.

use quant_core::net::UNetConfig;

use crate::error::{Error, Result};
use crate::json;

/// Reads a configuration from JSON.
///
/// # Errors
/// Text that is no JSON object; a misspelt field (the message lists the right ones); a configuration that
/// makes no net.
pub fn from_json(json: &str) -> Result<UNetConfig> {
    let config = serde_json::from_str(json::object(json).map_err(fault)?);
    let config = config.map_err(|error| {
        let due = if error.is_data() { "" } else { "must be JSON with upstream's field names: " };
        fault(format!("{due}{error}"))
    })?;
    check(&config)?;
    Ok(config)
}

/// A net of one level for grey images of 8 x 8, for tests.
#[cfg(test)]
pub(crate) fn tiny() -> UNetConfig {
    UNetConfig {
        in_channels: 1,
        out_channels: 1,
        model_channels: 32,
        num_res_blocks: 1,
        attention_resolutions: [].into(),
        channel_mult: [1.0].into(),
        image_size: Some(8),
        ..UNetConfig::default()
    }
}

/// Writes a configuration as JSON.
pub fn to_json(config: &UNetConfig) -> String {
    serde_json::to_string(config).unwrap_or_default()
}

/// Fails for a configuration that makes no net.
///
/// # Errors
/// The first field at fault, its value, and what would be right.
pub fn check(config: &UNetConfig) -> Result<()> {
    config.check().and_then(|()| config.check_groups()).map_err(fault)
}

pub(super) fn fault(error: impl core::fmt::Display) -> Error {
    Error::Config(format!("net configuration: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UNet;

    #[test]
    fn presets_are_valid_and_survive_both_stored_forms() {
        for name in UNetConfig::PRESETS {
            let config = UNetConfig::preset(name).unwrap();
            assert_eq!(from_json(&to_json(&config)).unwrap(), config);
            let packed = UNetConfig::parse(&config.emit().unwrap()).unwrap();
            assert_eq!(packed, UNetConfig { dropout: f64::from(config.dropout as f32), ..config });
        }
    }

    #[test]
    fn json_is_what_upstream_reads() {
        let json = to_json(&UNetConfig::default());
        let expected = concat!(
            r#"{"in_channels":3,"model_channels":128,"out_channels":3,"num_res_blocks":2,"#,
            r#""attention_resolutions":[1,2,2,2],"dropout":0.0,"channel_mult":[1.0,2.0,4.0,8.0],"#,
            r#""conv_resample":true,"dims":2,"num_classes":null,"use_checkpoint":false,"#,
            r#""num_heads":1,"num_head_channels":-1,"num_heads_upsample":-1,"#,
            r#""use_scale_shift_norm":false,"resblock_updown":false,"#,
            r#""use_new_attention_order":false,"with_fourier_features":false,"#,
            r#""ignore_time":false,"input_projection":true,"image_size":-1}"#
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn the_net_takes_the_parameters_of_its_configuration() {
        let odd = UNetConfig {
            channel_mult: [0.7, 1.4].into(),
            model_channels: 320,
            attention_resolutions: [1].into(),
            ignore_time: true,
            with_fourier_features: true,
            ..UNetConfig::default()
        };
        let bare = UNetConfig { num_res_blocks: 0, ..UNetConfig::default() };
        let presets = UNetConfig::PRESETS.map(|name| UNetConfig::preset(name).unwrap());
        for config in presets.into_iter().chain([odd, bare]) {
            let taken = UNet::shapes(&config).unwrap().into_iter();
            let taken: Vec<_> = taken.map(|(_, shape)| shape).collect();
            assert_eq!(taken, config.shapes(), "{}", to_json(&config));
        }
    }

    #[test]
    fn a_misspelt_field_is_named_with_the_right_ones() {
        let error = from_json(r#"{"chanel_mult": [1]}"#).unwrap_err().to_string();
        assert!(error.contains("chanel_mult") && error.contains("channel_mult"), "{error}");
    }

    #[test]
    fn a_list_is_no_net_and_a_byte_order_mark_no_fault() {
        for list in ["[]", "[1, 32, 1]"] {
            let error = from_json(list).unwrap_err().to_string();
            assert_eq!(error, "net configuration: found a list, a JSON object is due");
        }
        let config = from_json("\u{feff}{\"num_heads\": 2}").unwrap();
        assert_eq!(config, UNetConfig { num_heads: 2, ..UNetConfig::default() });
    }

    #[test]
    fn upstreams_own_name_of_its_class_is_ignored() {
        let config = from_json(r#"{"_target_": "lib.X", "num_heads": 2}"#).unwrap();
        assert_eq!(config, UNetConfig { num_heads: 2, ..UNetConfig::default() });
        assert!(!to_json(&config).contains("_target_"));
    }

    #[test]
    fn what_makes_no_net_is_refused_by_name() {
        for (json, right) in [
            (r#"{"num_head_channels": -2}"#, "num_head_channels = -2 must be -1"),
            (r#"{"num_heads_upsample": -2}"#, "num_heads_upsample = -2 must be -1"),
            (r#"{"image_size": 0}"#, "image_size = 0 must be -1"),
            (r#"{"image_size": 65537}"#, "image_size is 65537: must be 1 to 65536"),
            (r#"{"dims": 3}"#, "dims = 3 must be 2"),
            (r#"{"num_heads": 0}"#, "num_heads is 0"),
            (r#"{"in_channels": 65537}"#, "in_channels is 65537: must be 1 to 65536"),
            (r#"{"dropout": 1}"#, "dropout: must be at least 0, below 1"),
            (r#"{"channel_mult": []}"#, "length of channel_mult is 0: must be 1 to 8"),
            (
                r#"{"channel_mult": [1,1,1,1,1,1,1,1,1]}"#,
                "a list of at most 8 numbers for channel_mult",
            ),
            (r#"{"attention_resolutions": [0]}"#, "attention_resolutions is 0: must be 1"),
            (
                r#"{"model_channels": 40}"#,
                "is 40: must be a multiple of 32, the groups of GroupNorm(32)",
            ),
            (
                r#"{"patch": 2, "with_fourier_features": true}"#,
                "with_fourier_features of a net with patches",
            ),
        ] {
            let error = from_json(json).unwrap_err().to_string();
            assert!(error.starts_with("net configuration: ") && error.contains(right), "{error}");
        }
    }
}
