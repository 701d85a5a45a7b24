//! The notation of the schemas that refusals show, `"name" := string (optional)`, as JSON Schema.
//! Pure.

use serde_json::{Map, Value, json};

/// The schema of a body.
pub(super) fn schema(text: &str) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, rule) in members(text) {
        if !outside_braces(rule).contains("(optional") {
            required.push(Value::from(name));
        }
        properties.insert(name.to_owned(), member(rule));
    }
    json!({"type": "object", "properties": properties, "required": required})
}

/// Without what is said of members of members.
fn outside_braces(rule: &str) -> String {
    let mut depth = 0_u32;
    let is_outside = |c: &char| {
        match *c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    };
    rule.chars().filter(is_outside).collect()
}

/// Names of members, and what follows their `:=`.
fn members(text: &str) -> Vec<(&str, &str)> {
    let starts: Vec<(usize, usize)> = text
        .match_indices(" := ")
        .filter_map(|(at, sign)| Some((name_before(text, at)?, at + sign.len())))
        .collect();
    let ends = starts.iter().skip(1).map(|(name, _)| *name).chain([text.len()]);
    starts
        .iter()
        .zip(ends)
        .filter_map(|((name, value), end)| {
            let name = text.get(*name..*value)?.split('"').nth(1)?;
            Some((name, text.get(*value..end)?))
        })
        .collect()
}

/// Where the quoted name begins that ends before `at`.
fn name_before(text: &str, at: usize) -> Option<usize> {
    let before = text.get(..at)?.strip_suffix('"')?;
    before.rfind('"')
}

fn member(rule: &str) -> Value {
    let rule = rule.trim();
    let (kind, remark) = match rule.split_once(" (") {
        // A description of a type by its members has such words, too.
        Some((kind, remark)) if !kind.contains('{') => (kind, remark),
        _ => (rule, ""),
    };
    let mut schema = of_kind(kind.trim().trim_end_matches([',', '}', '\n', ' ']));
    let remark = remark.split(')').next().unwrap_or_default();
    let remark = remark.strip_prefix("optional").unwrap_or(remark);
    let remark = remark.trim_start_matches([',', ' ']);
    if let Some((low, high)) = range(remark) {
        schema["minimum"] = low.into();
        schema["maximum"] = high.into();
    }
    if !remark.is_empty() {
        schema["description"] = remark.into();
    }
    schema
}

fn of_kind(kind: &str) -> Value {
    let list = |of: Value| json!({"type": "array", "items": of});
    let word = kind.split(' ').next().unwrap_or_default();
    match word.trim_end_matches(',') {
        "string" => json!({"type": "string"}),
        "int" => json!({"type": "integer"}),
        "number" | "double" => json!({"type": "number"}),
        "bool" => json!({"type": "boolean"}),
        "object" => json!({"type": "object"}),
        "[string]" => list(json!({"type": "string"})),
        "[number]" | "[double]" => list(json!({"type": "number"})),
        "[object]" => list(json!({"type": "object"})),
        _ if kind.starts_with('"') => {
            let names: Vec<&str> = kind.split('"').skip(1).step_by(2).collect();
            json!({"type": "string", "enum": names})
        }
        // A choice of objects, in the notation itself.
        _ => {
            let text = kind.split_whitespace().collect::<Vec<_>>().join(" ");
            json!({"type": "object", "description": text})
        }
    }
}

fn range(remark: &str) -> Option<(i64, i64)> {
    let (low, high) = remark.split_once(" to ")?;
    let high = high.split([',', ' ', ';']).next()?;
    Some((low.trim().parse().ok()?, high.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_member_is_read() {
        let text = r#"
  {
   "name" := string,
   "kind" := "a" | "b c" (optional, a),
   "weight" := int (optional, 1 to 100),
   "tags" := [string] (optional), "cache" := bool (optional, true),
   "of" := {"x": int (optional), "y": string}
           | {"z": int},
   "last" := number
  }
"#;
        let schema = schema(text);
        assert_eq!(schema["required"], json!(["name", "of", "last"]));
        let of = |name: &str| schema["properties"][name].clone();
        assert_eq!(of("name"), json!({"type": "string"}));
        assert_eq!(of("kind")["enum"], json!(["a", "b c"]));
        assert_eq!(of("weight")["maximum"], 100);
        assert_eq!(of("tags")["items"]["type"], "string");
        assert_eq!(of("cache")["type"], "boolean");
        assert_eq!(of("of")["type"], "object");
        assert!(of("of")["description"].as_str().unwrap().contains("\"z\": int"));
        assert_eq!(of("last")["type"], "number");
        assert_eq!(super::schema("\n  {}\n")["properties"], json!({}));
    }
}
