//! Counts in formulas.

#[allow(clippy::cast_precision_loss, reason = "counts above 2^53 lose their last digits only")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}
