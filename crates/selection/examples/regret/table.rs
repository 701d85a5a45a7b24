//! Regrets as a table.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::game::{ARMS, GAP, Game};
use crate::play::{LEARNERS, bound, regret};

/// Whose policy of that name played the same rounds, and its regrets.
pub type Other = Option<(String, Vec<f64>)>;

/// How much worse than another library's a policy may be.
const WORSE_MAX: f64 = 1.05;
/// Standard errors that the difference of two means may have by chance.
const CHANCE: f64 = 2.0;

#[derive(Debug)]
struct Row {
    policy: &'static str,
    game: Game,
    regrets: Regret,
    bound: Option<f64>,
    other: Option<(String, Regret)>,
}

#[derive(Debug)]
pub struct Table {
    rounds: u64,
    seeds: u64,
    rows: Vec<Row>,
}

impl Table {
    /// All policies on all games.
    pub fn of(rounds: u64, seeds: u64, jobs: u64, others: impl Fn(&str, Game) -> Other) -> Self {
        let all: Vec<(Game, &str)> =
            Game::ALL.into_iter().flat_map(|game| LEARNERS.map(|policy| (game, policy))).collect();
        let plays = all.iter().flat_map(|it| (1..=seeds).map(move |seed| (*it, seed)));
        let regrets = in_parallel(jobs, &plays.collect::<Vec<_>>(), |((game, policy), seed)| {
            regret(policy, *game, rounds, *seed)
        });
        let each = usize::try_from(seeds).unwrap_or(usize::MAX);
        let row = |((game, policy), regrets): ((Game, &'static str), &[f64])| {
            let other = others(policy, game).map(|(by, regrets)| (by, Regret::of(&regrets)));
            let bound = bound(policy, game, rounds);
            Row { policy, game, regrets: Regret::of(regrets), bound, other }
        };
        Self { rounds, seeds, rows: all.into_iter().zip(regrets.chunks(each)).map(row).collect() }
    }

    /// Whether every policy keeps its bound, and none is worse than another library's.
    pub fn is_within(&self) -> bool {
        self.rows.iter().all(|Row { regrets, bound, other, .. }| {
            bound.is_none_or(|bound| regrets.mean <= bound)
                && other.as_ref().is_none_or(|(_, other)| !regrets.is_worse_than(other))
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, seeds, rows } = self;
        writeln!(
            f,
            "{rounds} rounds, {ARMS} models, gap {GAP}; means of {seeds} seeds (medians)\n"
        )?;
        write!(f, "| losses | policy | regret | theory's bound | other library | its regret |")?;
        writeln!(f, " more than that |")?;
        write!(f, "|---|---|---|---|---|---|---|")?;
        for Row { policy, game, regrets, bound, other } in rows {
            let bound = bound.map_or("-".to_owned(), |bound| format!("{bound:.0}"));
            write!(f, "\n| {} | `{policy}` | {regrets} | {bound} |", game.name())?;
            match other {
                Some((by, other)) => write!(f, " {by} | {other} | {} |", regrets.compared(other))?,
                None => write!(f, " - | - | - |")?,
            }
        }
        Ok(())
    }
}

/// What `job` makes of each.
fn in_parallel<T: Sync>(jobs: u64, all: &[T], job: impl Fn(&T) -> f64 + Sync) -> Vec<f64> {
    let next = AtomicUsize::new(0);
    let made = Mutex::new(vec![f64::NAN; all.len()]);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = all.get(index) else { return };
                    let value = job(one);
                    if let Ok(mut made) = made.lock() {
                        made[index] = value;
                    }
                }
            });
        }
    });
    made.into_inner().unwrap_or_default()
}

/// Of several seeds.
#[derive(Debug)]
struct Regret {
    mean: f64,
    /// Its standard error; unknown of one seed.
    error: Option<f64>,
    median: f64,
}

impl Regret {
    fn of(values: &[f64]) -> Self {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let freedom = values.len().saturating_sub(1) as f64;
        let error = (freedom > 0.0).then(|| (squares / freedom / values.len() as f64).sqrt());
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = [(sorted.len().max(1) - 1) / 2, sorted.len() / 2];
        let [low, high] = middle.map(|at| sorted.get(at).copied().unwrap_or(f64::NAN));
        Self { mean, error, median: f64::midpoint(low, high) }
    }

    /// Whether it is worse by more than is allowed, and by more than chance explains.
    fn is_worse_than(&self, other: &Self) -> bool {
        let errors = self.error.unwrap_or(0.0).hypot(WORSE_MAX * other.error.unwrap_or(0.0));
        self.mean - WORSE_MAX * other.mean > CHANCE * errors
    }

    /// How much more it is than another, as a part of that.
    fn compared(&self, other: &Self) -> String {
        let ratio = self.mean / other.mean;
        let part = |mean: &Self| mean.error.map(|error| error / mean.mean);
        let error = part(self).zip(part(other)).map(|(own, its)| ratio * own.hypot(its));
        let error = error.map(|error| format!(" ± {:.0}", error * 100.0)).unwrap_or_default();
        format!("{:+.0}{error} %", (ratio - 1.0) * 100.0)
    }
}

impl fmt::Display for Regret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}", self.mean)?;
        match self.error {
            Some(error) => write!(f, " ± {error:.0} ({:.0})", self.median),
            None => Ok(()),
        }
    }
}
