//! Whether two versions say the same.

use serde_json::Value;

/// By how much numbers may differ, as a part of the greater one: a model's last digits depend on
/// the batch that a query was in.
const TOLERANCE: f64 = 1e-6;

/// Whether two outputs, as JSON texts, say the same: equal texts, or equal values with numbers that
/// differ by rounding.
#[must_use]
pub fn agree(one: &[u8], other: &[u8]) -> bool {
    if one == other {
        return true;
    }
    let parse = |json: &[u8]| serde_json::from_slice::<Value>(json).ok();
    match (parse(one), parse(other)) {
        (Some(one), Some(other)) => agree_values(&one, &other),
        _ => false,
    }
}

fn agree_values(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => match (one.as_f64(), other.as_f64()) {
            (Some(one), Some(other)) => {
                (one - other).abs() <= TOLERANCE * one.abs().max(other.abs())
            }
            _ => one == other,
        },
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| agree_values(a, b))
        }
        (Value::Object(one), Value::Object(other)) => {
            let same = |(key, value): (&String, &Value)| {
                other.get(key).is_some_and(|other| agree_values(value, other))
            };
            one.len() == other.len() && one.iter().all(same)
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_agree_up_to_rounding() {
        let same = [
            ("1", "1.0"),
            ("[0.25,0.75]", "[0.25, 0.75000001]"),
            ("{\"a\":1,\"b\":\"x\"}", "{\"b\":\"x\",\"a\":1}"),
            ("no json", "no json"),
        ];
        for (one, other) in same {
            assert!(agree(one.as_bytes(), other.as_bytes()), "{one} {other}");
        }
        let different = [
            ("1", "2"),
            ("1", "\"1\""),
            ("[1]", "[1,1]"),
            ("[0.25,0.75]", "[0.26,0.74]"),
            ("{\"a\":1}", "{\"b\":1}"),
            ("no json", "nor this"),
        ];
        for (one, other) in different {
            assert!(!agree(one.as_bytes(), other.as_bytes()), "{one} {other}");
        }
    }
}
