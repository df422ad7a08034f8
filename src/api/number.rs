//! Numbers as users write them: the CRD says `number` where the program means an integer.

use serde::{Deserialize, Deserializer, de};

/// Reads an optional integer from any JSON number with a whole value (`5`, `5.0`).
///
/// # Errors
/// A fraction, or a value outside `i64`, is refused with a message that names the value.
pub fn optional_int<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Option::<f64>::deserialize(deserializer)?.map(whole).transpose()
}

/// Reads an integer as [`optional_int`] does.
///
/// # Errors
/// As [`optional_int`].
pub fn int<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    whole(f64::deserialize(deserializer)?)
}

/// Reads a list of integers as [`optional_int`] does.
///
/// # Errors
/// As [`optional_int`].
pub fn ints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i64>, D::Error> {
    Option::<Vec<f64>>::deserialize(deserializer)?.unwrap_or_default().into_iter().map(whole).collect()
}

fn whole<E: de::Error>(value: f64) -> Result<i64, E> {
    // 2^53: every whole number up to here is exact in a float.
    if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 {
        Ok(value as i64)
    } else {
        Err(E::custom(format!("{value} is not a whole number")))
    }
}
