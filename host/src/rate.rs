//! Rates as numbers of JSON: `2` for two bits, `1.58` for three levels.

use quant_core::rate::Rate;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Number;

/// The number of a rate: an integer for a whole number of bits.
pub(crate) fn number(rate: Rate) -> Number {
    let bits = || Number::from_f64(rate.bits());
    let whole = Number::from(rate.code_bits().get());
    if rate.uses_all_codes() { whole } else { bits().unwrap_or(whole) }
}

/// Writes the number.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
pub(crate) fn serialize<S: Serializer>(rate: &Rate, to: S) -> Result<S::Ok, S::Error> {
    number(*rate).serialize(to)
}

/// Reads what [`serialize`] wrote.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Rate, D::Error> {
    let number = Number::deserialize(from)?.to_string();
    number.parse().map_err(|error| D::Error::custom(format!("bits {number}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Serialize, Deserialize)]
    struct Line {
        #[serde(with = "super")]
        bits: Rate,
    }

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for text in [r#"{"bits":2}"#, r#"{"bits":1.58}"#, r#"{"bits":8}"#] {
            let line: Line = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&line).unwrap(), text);
        }
        let error = serde_json::from_str::<Line>(r#"{"bits":1.5}"#).err().unwrap().to_string();
        assert!(error.contains("bits 1.5: must be 1 to 8, or 1.58 for three levels"), "{error}");
    }
}
