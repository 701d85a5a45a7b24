//! Prometheus text to samples, as far as our own server writes it. Pure.

use std::collections::BTreeMap;

/// Names and values of a sample's labels, sorted by name.
pub type LabelPairs = Vec<(String, String)>;

/// A histogram's cumulative buckets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Buckets {
    /// Upper bound, and how many values up to it; ascending, the last bound is infinite.
    pub counts: Vec<(f64, f64)>,
}

/// All samples of one scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    values: BTreeMap<String, BTreeMap<LabelPairs, f64>>,
    buckets: BTreeMap<String, BTreeMap<LabelPairs, Buckets>>,
}

impl Samples {
    /// Reads a scrape. Lines that are none of the format are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut samples = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, mut labels, value)) = sample(line) else { continue };
            let bound = labels.iter().position(|(name, _)| name == "le");
            match (name.strip_suffix("_bucket"), bound) {
                (Some(histogram), Some(at)) => {
                    let Ok(bound) = labels.remove(at).1.parse() else { continue };
                    let family = samples.buckets.entry(histogram.to_owned()).or_default();
                    family.entry(labels).or_default().counts.push((bound, value));
                }
                _ => {
                    samples.values.entry(name.to_owned()).or_default().insert(labels, value);
                }
            }
        }
        samples
    }

    /// Labels and value of each sample of a name.
    pub fn of(&self, name: &str) -> impl Iterator<Item = (&LabelPairs, f64)> {
        self.values.get(name).into_iter().flatten().map(|(labels, value)| (labels, *value))
    }

    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.values.get(name)?.get(&owned(labels)).copied()
    }

    /// The buckets of one histogram.
    #[must_use]
    pub fn buckets(&self, name: &str, labels: &[(&str, &str)]) -> Option<&Buckets> {
        self.buckets.get(name)?.get(&owned(labels))
    }
}

fn owned(labels: &[(&str, &str)]) -> LabelPairs {
    let mut owned: LabelPairs =
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    owned.sort();
    owned
}

/// A label of a sample.
#[must_use]
pub fn label<'l>(labels: &'l LabelPairs, name: &str) -> Option<&'l str> {
    labels.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

impl Buckets {
    /// What came between `before` and this; all of this if the counts have started anew.
    #[must_use]
    pub fn since(&self, before: Option<&Self>) -> Self {
        let Some(before) = before.filter(|before| {
            before.counts.len() == self.counts.len()
                && before.counts.iter().zip(&self.counts).all(|(then, now)| then.1 <= now.1)
        }) else {
            return self.clone();
        };
        let pairs = self.counts.iter().zip(&before.counts);
        Self { counts: pairs.map(|((bound, now), (_, then))| (*bound, now - then)).collect() }
    }

    /// The value below which the share `q` of all values lies, by a straight line inside its
    /// bucket, as Prometheus does it; the highest finite bound for what lies above that. `None`
    /// without values.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.counts.last()?.1;
        if total <= 0.0 {
            return None;
        }
        let rank = q * total;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in &self.counts {
            if *count >= rank && *count > below {
                if bound.is_infinite() {
                    return Some(lower);
                }
                return Some(lower + (bound - lower) * (rank - below) / (count - below));
            }
            if bound.is_finite() {
                lower = *bound;
            }
            below = *count;
        }
        Some(lower)
    }
}

/// `name{label="value",...} value`
fn sample(line: &str) -> Option<(&str, LabelPairs, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => label_list(inside)?,
        None => (LabelPairs::new(), rest),
    };
    // A time may follow the value.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((name, labels, value))
}

/// What stands behind the `{`, and what follows the `}`.
fn label_list(mut text: &str) -> Option<(LabelPairs, &str)> {
    let mut labels = LabelPairs::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            labels.sort();
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let (value, rest) = quoted(rest)?;
        labels.push((name.to_owned(), value));
        text = rest;
    }
}

/// A label's value up to its closing quote, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(counts: &[(f64, f64)]) -> Buckets {
        Buckets { counts: counts.to_vec() }
    }

    #[test]
    fn labels_values_and_buckets_are_read() {
        let samples = Samples::parse(
            r#"# HELP a b
# TYPE a counter
a{y="2",x="1"} 3
a{x="}\" \\,",y="\n"} 4.5
plain 7 1700000000000
h_bucket{app="q",le="0.5"} 1
h_bucket{app="q",le="+Inf"} 2
h_sum{app="q"} 9
broken{ 1
broken
nan NaN
"#,
        );
        assert_eq!(samples.value("a", &[("x", "1"), ("y", "2")]), Some(3.0));
        assert_eq!(samples.value("a", &[("y", "\n"), ("x", "}\" \\,")]), Some(4.5));
        assert_eq!(samples.value("plain", &[]), Some(7.0));
        assert_eq!(samples.value("h_sum", &[("app", "q")]), Some(9.0));
        let expected = buckets(&[(0.5, 1.0), (f64::INFINITY, 2.0)]);
        assert_eq!(samples.buckets("h", &[("app", "q")]), Some(&expected));
        assert_eq!(samples.of("a").count(), 2);
        assert_eq!(samples.of("broken").count(), 0);
        assert_eq!(label(samples.of("h_sum").next().unwrap().0, "app"), Some("q"));
    }

    #[test]
    fn quantiles_lie_on_a_line_inside_their_bucket() {
        let counts = buckets(&[(1.0, 0.0), (2.0, 10.0), (4.0, 20.0), (f64::INFINITY, 20.0)]);
        assert_eq!(counts.quantile(0.5), Some(2.0));
        assert_eq!(counts.quantile(0.25), Some(1.5));
        assert_eq!(counts.quantile(0.75), Some(3.0));
        let slow = buckets(&[(1.0, 1.0), (f64::INFINITY, 100.0)]);
        assert_eq!(slow.quantile(0.99), Some(1.0), "at least that");
        assert_eq!(buckets(&[(1.0, 0.0), (f64::INFINITY, 0.0)]).quantile(0.5), None);
        assert_eq!(buckets(&[]).quantile(0.5), None);
    }

    #[test]
    fn what_came_since_is_the_difference_unless_counting_started_anew() {
        let before = buckets(&[(1.0, 5.0), (f64::INFINITY, 9.0)]);
        let now = buckets(&[(1.0, 6.0), (f64::INFINITY, 12.0)]);
        assert_eq!(now.since(Some(&before)), buckets(&[(1.0, 1.0), (f64::INFINITY, 3.0)]));
        assert_eq!(before.since(Some(&now)), before);
        assert_eq!(now.since(None), now);
    }
}
