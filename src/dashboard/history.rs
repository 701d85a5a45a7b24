//! The history of applications: a ring of points of a fixed size for each. Pure.

use std::collections::BTreeMap;

use clipper_domain::{AppName, Outcome};

use crate::metrics::look::AppLook;

/// What came of an application's queries between two steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Point {
    /// In the order of [`Outcome::ALL`].
    pub outcomes: [u32; Outcome::ALL.len()],
    pub rejected: u32,
    /// Percentiles of the time from arrival to answer, microseconds; 0 without an answer.
    pub p50_us: u32,
    pub p99_us: u32,
}

/// What the configuration promises.
const _: () = assert!(size_of::<Point>() == 40);

impl Point {
    #[must_use]
    pub fn of(since: &AppLook) -> Self {
        let short = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let percentile = |percent| short(since.percentile_us(percent).unwrap_or(0));
        Self {
            outcomes: since.outcomes.map(short),
            rejected: short(since.rejected),
            p50_us: percentile(50),
            p99_us: percentile(99),
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The points of one application. A step's place follows from its number.
#[derive(Debug)]
struct Ring {
    points: Box<[Point]>,
    /// The first step of the application, and the last.
    first: u64,
    last: u64,
}

impl Ring {
    fn new(points: usize, step: u64) -> Self {
        Self { points: vec![Point::default(); points].into(), first: step, last: step }
    }

    fn len(&self) -> u64 {
        self.points.len() as u64
    }

    #[allow(clippy::cast_possible_truncation, reason = "below the length of a slice")]
    fn at(&self, step: u64) -> usize {
        (step % self.len()) as usize
    }

    /// Steps that were left out had nothing.
    fn push(&mut self, step: u64, point: Point) {
        let from = (self.last + 1).max(step.saturating_sub(self.len()));
        for missed in from..step {
            let at = self.at(missed);
            self.points[at] = Point::default();
        }
        let at = self.at(step);
        self.points[at] = point;
        self.last = step;
    }

    fn steps(&self) -> impl Iterator<Item = (u64, &Point)> {
        let oldest = self.first.max((self.last + 1).saturating_sub(self.len()));
        (oldest..=self.last).map(|step| (step, &self.points[self.at(step)]))
    }
}

/// The rings of all applications that have one.
#[derive(Debug)]
pub struct History {
    rings: BTreeMap<AppName, Ring>,
    points: usize,
    applications_max: usize,
}

impl History {
    #[must_use]
    pub fn new(points: usize, applications_max: usize) -> Self {
        Self { rings: BTreeMap::new(), points: points.max(1), applications_max }
    }

    /// What came of an application's queries in this step; nothing is kept before its first.
    pub fn push(&mut self, app: &AppName, step: u64, point: Point) {
        if let Some(ring) = self.rings.get_mut(app) {
            ring.push(step, point);
        } else if !point.is_empty() && self.rings.len() < self.applications_max {
            let mut ring = Ring::new(self.points, step);
            ring.push(step, point);
            self.rings.insert(app.clone(), ring);
        }
    }

    /// Forgets the applications that are not there any more.
    pub fn retain(&mut self, is_there: impl Fn(&AppName) -> bool) {
        self.rings.retain(|app, _| is_there(app));
    }

    /// Steps and points of an application, the oldest first.
    pub fn of(&self, app: &str) -> impl Iterator<Item = (u64, &Point)> {
        self.rings.get(app).into_iter().flat_map(Ring::steps)
    }

    /// Whether an application has one.
    #[must_use]
    pub fn has(&self, app: &str) -> bool {
        self.rings.contains_key(app)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(rejected: u32) -> Point {
        Point { rejected, ..Point::default() }
    }

    fn steps(history: &History, app: &str) -> Vec<(u64, u32)> {
        history.of(app).map(|(step, point)| (step, point.rejected)).collect()
    }

    #[test]
    fn a_ring_begins_with_the_first_query_and_keeps_the_last_points() {
        let mut history = History::new(3, 2);
        let [a, b, c] = ["a", "b", "c"].map(|name| AppName::parse(name).unwrap());
        history.push(&a, 6, point(0));
        assert!(!history.has("a"));
        history.push(&a, 7, point(1));
        history.push(&a, 8, point(0));
        assert_eq!(steps(&history, "a"), [(7, 1), (8, 0)]);
        history.push(&a, 9, point(3));
        history.push(&a, 10, point(4));
        assert_eq!(steps(&history, "a"), [(8, 0), (9, 3), (10, 4)]);
        history.push(&b, 10, point(1));
        history.push(&c, 10, point(1));
        assert!(history.has("b") && !history.has("c"), "two have one, and no more");
        history.retain(|app| *app != a);
        assert!(steps(&history, "a").is_empty());
    }

    #[test]
    fn steps_that_nobody_counted_are_empty() {
        let mut history = History::new(4, 1);
        let app = AppName::parse("a").unwrap();
        for (step, rejected) in [(1, 1), (2, 2), (3, 3), (4, 4), (7, 7)] {
            history.push(&app, step, point(rejected));
        }
        assert_eq!(steps(&history, "a"), [(4, 4), (5, 0), (6, 0), (7, 7)]);
        history.push(&app, 1_000_000_000_000, point(9));
        let last = 1_000_000_000_000;
        assert_eq!(steps(&history, "a"), [(last - 3, 0), (last - 2, 0), (last - 1, 0), (last, 9)]);
    }
}
