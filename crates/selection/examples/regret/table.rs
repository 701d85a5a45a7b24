//! Regrets as a table.

use std::fmt;

use crate::game::{ARMS, GAP, Game};
use crate::play::{LEARNERS, bound, regret};

/// Whose policy of that name played the same rounds, and its regrets.
pub type Other = Option<(String, Vec<f64>)>;

/// How much worse than another library's a policy may be.
const WORSE_MAX: f64 = 1.05;

#[derive(Debug)]
struct Row {
    policy: &'static str,
    game: Game,
    regrets: Vec<f64>,
    bound: Option<f64>,
    other: Other,
}

#[derive(Debug)]
pub struct Table {
    rounds: u64,
    seeds: u64,
    rows: Vec<Row>,
}

impl Table {
    /// All policies on all games.
    pub fn of(rounds: u64, seeds: u64, others: impl Fn(&str, Game) -> Other) -> Self {
        let row = |(game, policy)| {
            let regrets = (1..=seeds).map(|seed| regret(policy, game, rounds, seed)).collect();
            let (bound, other) = (bound(policy, game, rounds), others(policy, game));
            Row { policy, game, regrets, bound, other }
        };
        let all = Game::ALL.into_iter().flat_map(|game| LEARNERS.map(|policy| (game, policy)));
        Self { rounds, seeds, rows: all.map(row).collect() }
    }

    /// Whether every policy keeps its bound, and none is worse than another library's.
    pub fn is_within(&self) -> bool {
        self.rows.iter().all(|row| {
            let mean = mean(&row.regrets);
            row.bound.is_none_or(|bound| mean <= bound)
                && row.other.as_ref().is_none_or(|(_, other)| mean <= WORSE_MAX * self::mean(other))
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, seeds, rows } = self;
        writeln!(f, "{rounds} rounds, {ARMS} models, gap {GAP}; mean of {seeds} seeds\n")?;
        writeln!(f, "| losses | policy | regret | theory's bound | other library | its regret |")?;
        write!(f, "|---|---|---|---|---|---|")?;
        for Row { policy, game, regrets, bound, other } in rows {
            let bound = bound.map_or("-".to_owned(), |bound| format!("{bound:.0}"));
            let game = game.name();
            write!(f, "\n| {game} | `{policy}` | {} | {bound} |", with_error(regrets))?;
            match other {
                Some((by, regrets)) => write!(f, " {by} | {} |", with_error(regrets))?,
                None => write!(f, " - | - |")?,
            }
        }
        Ok(())
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The mean, and the standard error of it.
fn with_error(values: &[f64]) -> String {
    let mean = mean(values);
    if values.len() < 2 {
        return format!("{mean:.0}");
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let error = (squares / (values.len() - 1) as f64 / values.len() as f64).sqrt();
    format!("{mean:.0} ± {error:.0}")
}
