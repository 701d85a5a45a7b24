//! Rows of numbers to tables of text. Pure.

use std::cmp::Ordering;
use std::fmt::Write as _;

pub use super::cells::{Line, LineLevel};
use super::cells::{number, percent, printable, table};
use super::rollouts;
use super::view::{ApplicationRow, ModelRow, ReplicaRow, View};

/// Share of default outputs above which an application is in trouble.
const DEFAULTS_BAD: f64 = 0.01;
/// Share of its time above which a replica has no room left.
const BUSY_BAD: f64 = 0.9;

/// What the tables are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// Names, ascending.
    #[default]
    Name,
    /// Queries a second, most first.
    Rate,
    /// 99th percentiles, longest first; replicas by their busy share.
    Latency,
    /// Defaults, errors and queues, most first.
    Trouble,
}

impl Sort {
    /// Its name on the screen.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Rate => "queries/s",
            Self::Latency => "latency",
            Self::Trouble => "trouble",
        }
    }
}

#[must_use]
pub fn lines(view: &View, sort: Sort, reversed: bool) -> Vec<Line> {
    let mut lines = vec![Line::new(LineLevel::Head, summary(view))];
    if let Some(error) = &view.management_error {
        lines.push(Line::new(LineLevel::Bad, format!("no definitions: {}", printable(error))));
    }
    lines.extend(applications(&view.applications, sort, reversed));
    lines.extend(choices(&view.applications, sort, reversed));
    lines.extend(rollouts::rollouts(&view.applications));
    lines.extend(models(&view.models, sort, reversed));
    lines.extend(replicas(&view.replicas, sort, reversed));
    lines
}

/// [`lines`] as one text without trailing spaces.
#[must_use]
pub fn text(view: &View) -> String {
    let lines = lines(view, Sort::Name, false);
    let lines: Vec<&str> = lines.iter().map(|line| line.text.trim_end()).collect();
    lines.join("\n")
}

fn summary(view: &View) -> String {
    let server = &view.server;
    let mut text = format!("clipper {}", server.version.as_deref().unwrap_or("of unknown version"));
    if let Some(seconds) = server.uptime_s {
        let _ = write!(text, "  up {}", duration(seconds));
    }
    let _ = write!(text, "  {} queries/s", number(server.queries_per_second));
    if let Some(bytes) = server.resident_bytes {
        let _ = write!(text, "  {:.0} MiB", bytes / f64::from(1 << 20));
    }
    let _ = write!(text, "  {} containers", number(server.container_connections));
    match server.redis_connected {
        Some(true) => text.push_str("  Redis connected"),
        Some(false) => text.push_str("  REDIS AWAY"),
        None => {}
    }
    text
}

fn applications(rows: &[ApplicationRow], sort: Sort, reversed: bool) -> Vec<Line> {
    let rows = sorted(rows, reversed, |row| match sort {
        Sort::Name => None,
        Sort::Rate => row.queries_per_second,
        Sort::Latency => row.p99_ms,
        Sort::Trouble => row.default_share,
    });
    let heads = [
        "APPLICATION",
        "MODEL",
        "QUERIES/S",
        "P50 MS",
        "P99 MS",
        "SLO MS",
        "DEFAULTS",
        "WHY",
        "REJECTED/S",
    ];
    let cells = rows.into_iter().map(|row| {
        let late = row.p99_ms.zip(row.objective_ms).is_some_and(|(p99, slo)| p99 > slo);
        let defaults = row.default_share.is_some_and(|share| share > DEFAULTS_BAD);
        let cells = vec![
            printable(&row.name),
            printable(&row.linked_models.join(",")),
            number(row.queries_per_second),
            number(row.p50_ms),
            number(row.p99_ms),
            number(row.objective_ms),
            percent(row.default_share),
            reasons(row),
            number(row.rejected_per_second),
        ];
        (cells, if late || defaults { LineLevel::Bad } else { LineLevel::Good })
    });
    table(&heads, &[0, 1, 7], cells.collect())
}

/// `late 2.5/s, shed 1/s`, the most frequent first.
fn reasons(row: &ApplicationRow) -> String {
    let mut reasons: Vec<_> = row.defaults_per_second.iter().collect();
    reasons.sort_by(|a, b| b.1.total_cmp(a.1));
    let texts = reasons.into_iter().map(|(why, rate)| format!("{why} {}/s", number(Some(*rate))));
    let texts: Vec<String> = texts.collect();
    if texts.is_empty() { "-".to_owned() } else { printable(&texts.join(", ")) }
}

/// The models of applications with a policy; no table where there is none.
fn choices(rows: &[ApplicationRow], sort: Sort, reversed: bool) -> Vec<Line> {
    let mut cells = Vec::new();
    for app in rows {
        let rows = sorted(&app.choices, reversed, |row| match sort {
            Sort::Name | Sort::Latency => None,
            Sort::Rate => row.asked_per_second,
            Sort::Trouble => row.loss.or(row.left_out_share),
        });
        for row in rows {
            let policy = app.policy.as_deref().unwrap_or("-");
            let cell = vec![
                printable(&app.name),
                printable(policy),
                printable(&row.model),
                percent(row.weight),
                number(row.asked_per_second),
                percent(row.left_out_share),
                number(row.loss),
                percent(row.agreement),
            ];
            let is_missed = row.left_out_share.is_some_and(|share| share > DEFAULTS_BAD);
            cells.push((cell, if is_missed { LineLevel::Bad } else { LineLevel::Good }));
        }
    }
    let heads =
        ["CHOOSES", "BY", "MODEL", "WEIGHT", "ASKED/S", "LEFT OUT", "LOSS", "IS THE ANSWER"];
    if cells.is_empty() { Vec::new() } else { table(&heads, &[0, 1, 2], cells) }
}

fn models(rows: &[ModelRow], sort: Sort, reversed: bool) -> Vec<Line> {
    let rows = sorted(rows, reversed, |row| match sort {
        Sort::Name => None,
        Sort::Rate => row.queries_per_second,
        Sort::Latency => row.batch_p99_ms,
        Sort::Trouble => Some(row.errors_per_second.unwrap_or(0.0) + row.queue.unwrap_or(0.0)),
    });
    let heads = [
        "MODEL",
        "REPLICAS",
        "QUERIES/S",
        "BATCH",
        "P50 MS",
        "P99 MS",
        "QUEUE",
        "WAIT P99 MS",
        "CACHE HITS",
        "ERRORS/S",
        "RETRIED/S",
    ];
    let cells = rows.into_iter().map(|row| {
        let current = row.current == Some(true);
        let name = printable(&format!("{}:{}", row.model, row.version));
        let cells = vec![
            if current { format!("{name} *") } else { name },
            number(row.replicas),
            number(row.queries_per_second),
            number(row.batch_mean),
            number(row.batch_p50_ms),
            number(row.batch_p99_ms),
            number(row.queue),
            number(row.wait_p99_ms),
            percent(row.cache_hit_share),
            number(row.errors_per_second),
            number(row.retried_per_second),
        ];
        let alone = current && row.replicas.is_none_or(|replicas| replicas < 0.5);
        let failing = row.errors_per_second.is_some_and(|errors| errors > 0.0);
        (cells, if alone || failing { LineLevel::Bad } else { LineLevel::Good })
    });
    table(&heads, &[0], cells.collect())
}

fn replicas(rows: &[ReplicaRow], sort: Sort, reversed: bool) -> Vec<Line> {
    let rows = sorted(rows, reversed, |row| match sort {
        Sort::Name => None,
        Sort::Rate => row.queries_per_second,
        Sort::Latency | Sort::Trouble => row.busy_share,
    });
    let cells = rows.into_iter().map(|row| {
        let cells = vec![
            printable(&format!("{}:{}:{}", row.model, row.version, row.replica)),
            number(row.queries_per_second),
            number(row.batch_mean),
            percent(row.busy_share),
        ];
        let full = row.busy_share.is_some_and(|share| share > BUSY_BAD);
        (cells, if full { LineLevel::Bad } else { LineLevel::Good })
    });
    table(&["REPLICA", "QUERIES/S", "BATCH", "BUSY"], &[0], cells.collect())
}

/// By `key`, largest first and what has none last; as they are where no row has one.
fn sorted<T>(rows: &[T], reversed: bool, key: impl Fn(&T) -> Option<f64>) -> Vec<&T> {
    let mut rows: Vec<&T> = rows.iter().collect();
    rows.sort_by(|a, b| match (key(a), key(b)) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    });
    if reversed {
        rows.reverse();
    }
    rows
}

/// `3 d 4 h`, `5 min 6 s`, `7 s`.
fn duration(seconds: f64) -> String {
    let whole = std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e9)).as_secs();
    let (days, hours) = (whole / 86_400, whole / 3_600 % 24);
    let (minutes, seconds) = (whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::view::{ChoiceRow, ServerRow};

    fn app(name: &str, rate: f64, p99_ms: f64, share: f64) -> ApplicationRow {
        ApplicationRow {
            name: name.to_owned(),
            linked_models: vec!["net".to_owned()],
            objective_ms: Some(20.0),
            queries_per_second: Some(rate),
            p50_ms: Some(1.25),
            p99_ms: Some(p99_ms),
            default_share: Some(share),
            defaults_per_second: [("late".to_owned(), 1.5), ("shed".to_owned(), 3.0)].into(),
            rejected_per_second: None,
            policy: None,
            choices: vec![],
            rollout: None,
        }
    }

    fn view() -> View {
        View {
            server: ServerRow { version: Some("1.2.3".to_owned()), ..ServerRow::default() },
            applications: vec![app("a", 10.0, 19.0, 0.0), app("longer", 2_000.0, 21.0, 0.5)],
            ..View::default()
        }
    }

    fn names(sort: Sort, reversed: bool) -> Vec<String> {
        let lines = lines(&view(), sort, reversed);
        let rows = lines.iter().skip(3).take(2);
        rows.map(|line| line.text.split(' ').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn a_table_is_aligned_and_says_why() {
        let text = text(&view());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("clipper 1.2.3  - queries/s"), "{text}");
        assert!(lines[2].starts_with("APPLICATION  MODEL  QUERIES/S  P50 MS  P99 MS"), "{text}");
        let expected = "longer       net         2000    1.25      21      20      50 %  \
                        shed 3/s, late 1.5/s           -";
        assert_eq!(lines[4], expected, "{text}");
    }

    #[test]
    fn the_models_of_a_policy_have_a_table() {
        let mut view = view();
        let choice = |model: &str, weight, left_out| ChoiceRow {
            model: model.to_owned(),
            weight: Some(weight),
            left_out_share: Some(left_out),
            ..ChoiceRow::default()
        };
        view.applications[0].policy = Some("exp3".to_owned());
        view.applications[0].choices = vec![choice("m", 0.25, 0.0), choice("net", 0.75, 0.5)];
        let lines = lines(&view, Sort::Name, false);
        let start = lines.iter().position(|line| line.text.starts_with("CHOOSES")).unwrap();
        let rows: Vec<&str> = lines[start + 1..=start + 2].iter().map(|l| &*l.text).collect();
        assert_eq!(rows[0], "a        exp3  m        25 %        -       0 %     -              -");
        assert!(rows[1].starts_with("a        exp3  net      75 %"), "{rows:?}");
        assert_eq!(lines[start + 2].level, LineLevel::Bad);
    }

    #[test]
    fn rows_are_sorted_and_trouble_is_marked() {
        assert_eq!(names(Sort::Name, false), ["a", "longer"]);
        assert_eq!(names(Sort::Rate, false), ["longer", "a"]);
        assert_eq!(names(Sort::Trouble, true), ["a", "longer"]);
        let levels: Vec<LineLevel> =
            lines(&view(), Sort::Name, false).iter().map(|line| line.level).collect();
        assert_eq!(levels[2..5], [LineLevel::Head, LineLevel::Good, LineLevel::Bad]);
    }

    #[test]
    fn numbers_have_three_digits_and_nothing_is_a_dash() {
        let cases = [
            (0.0, "0"),
            (0.004, "0"),
            (1.0, "1"),
            (1.256, "1.26"),
            (9.999, "10"),
            (12.34, "12.3"),
            (100.0, "100"),
            (12_345.6, "12346"),
        ];
        for (value, text) in cases {
            assert_eq!(number(Some(value)), text);
        }
        assert_eq!((number(None), number(Some(f64::NAN))), ("-".to_owned(), "-".to_owned()));
        assert_eq!(percent(Some(0.125)), "12.5 %");
        let durations = [(5.0, "5 s"), (65.0, "1 min 5 s"), (3_660.0, "1 h 1 min")];
        for (seconds, text) in durations {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(duration(90_000.0), "1 d 1 h");
        assert_eq!(duration(-1.0), "0 s");
    }

    #[test]
    fn no_name_moves_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
    }
}
