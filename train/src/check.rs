//! Range checks of configuration values. Each error names the key and the allowed range.

use anyhow::bail;

/// Checks that counts are at least 1.
pub(crate) fn at_least_one(values: &[(&str, usize)]) -> anyhow::Result<()> {
    match values.iter().find(|(_, value)| *value == 0) {
        Some((key, _)) => bail!("{key} is 0; it must be at least 1"),
        None => Ok(()),
    }
}

/// Checks that values are 0 to 1.
pub(crate) fn shares(values: &[(&str, f64)]) -> anyhow::Result<()> {
    each(values, |value| (0.0..=1.0).contains(&value), "0 to 1")
}

/// Checks that values are finite and above 0.
pub(crate) fn above_zero(values: &[(&str, f64)]) -> anyhow::Result<()> {
    each(values, |value| value > 0.0 && value.is_finite(), "above 0")
}

/// Checks that values are finite and not negative.
pub(crate) fn not_negative(values: &[(&str, f64)]) -> anyhow::Result<()> {
    each(
        values,
        |value| value >= 0.0 && value.is_finite(),
        "0 or above",
    )
}

fn each(values: &[(&str, f64)], allowed: fn(f64) -> bool, range: &str) -> anyhow::Result<()> {
    match values.iter().find(|(_, value)| !allowed(*value)) {
        Some((key, value)) => bail!("{key} is {value}; it must be {range}"),
        None => Ok(()),
    }
}
