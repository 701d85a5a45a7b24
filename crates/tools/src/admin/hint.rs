//! Names close to one that does not exist. Pure.

/// Longest list of names that an error shows.
const NAMES_SHOWN_MAX: usize = 10;

/// How alike two names have to be, from 0 to 1, for one to be meant by the other.
const ALIKE: f64 = 0.7;

/// What to say to somebody who asked for `name`, where there are `known`.
#[must_use]
pub fn hint(name: &str, known: &[String], list_with: &str) -> String {
    let alike = |other: &&String| strsim::jaro_winkler(name, other) >= ALIKE;
    let mut near: Vec<&String> = known.iter().filter(alike).collect();
    near.sort_by(|a, b| {
        let alike = |other: &str| strsim::jaro_winkler(name, other);
        alike(b).total_cmp(&alike(a))
    });
    near.dedup();
    let quoted = |names: &[&String]| {
        names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
    };
    if known.is_empty() {
        return "There is none yet".to_owned();
    }
    if !near.is_empty() {
        near.truncate(3);
        return format!("Did you mean {}?", quoted(&near));
    }
    let mut all: Vec<&String> = known.iter().collect();
    all.dedup();
    if all.len() > NAMES_SHOWN_MAX {
        return format!("There are {}; `{list_with}` shows them", all.len());
    }
    format!("There is {}", quoted(&all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_names_what_is_near_or_what_there_is() {
        let known: Vec<String> = ["digits", "spam", "diggers"].map(str::to_owned).to_vec();
        let hint = |name| hint(name, &known, "clipper admin apps list");
        assert!(hint("digit").starts_with("Did you mean 'digits'"));
        assert_eq!(hint("qqq"), "There is 'digits', 'spam', 'diggers'");
        assert_eq!(super::hint("x", &[], "l"), "There is none yet");
        let many: Vec<String> = (0..50).map(|n| format!("{n}")).collect();
        assert_eq!(super::hint("x", &many, "l"), "There are 50; `l` shows them");
    }
}
