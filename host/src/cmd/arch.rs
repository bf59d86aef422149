//! `--arch`: a preset's name or a JSON file with upstream's fields.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use fm_candle::model::UNetConfig;

/// The configuration that `--arch` names.
pub(crate) fn named(arch: &str) -> Result<UNetConfig> {
    if !UNetConfig::PRESETS.contains(&arch) && Path::new(arch).is_file() {
        let json = fs::read_to_string(arch).with_context(|| format!("reading `{arch}`"))?;
        return UNetConfig::from_json(&json).with_context(|| format!("`{arch}`"));
    }
    Ok(UNetConfig::preset(arch).context("--arch takes a preset or an existing JSON file")?)
}
