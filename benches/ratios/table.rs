//! Tables with numbers, for people and as JSON.

use std::fmt;

use serde::Serialize;

/// One table of a case.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    case: &'static str,
    columns: Vec<String>,
    rows: Vec<Row>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    values: Vec<Option<f64>>,
}

impl Table {
    pub(crate) fn new(case: &'static str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { case, columns, rows: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn row(&mut self, name: impl Into<String>, values: &[f64]) {
        let values = values.iter().map(|value| value.is_finite().then_some(*value)).collect();
        self.rows.push(Row { name: name.into(), values });
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name_width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(12);
        write!(f, "\n{:<name_width$}", self.case)?;
        for column in &self.columns {
            write!(f, "  {column:>10}")?;
        }
        writeln!(f)?;
        for row in &self.rows {
            write!(f, "{:<name_width$}", row.name)?;
            for (value, column) in row.values.iter().zip(&self.columns) {
                let width = column.len().max(10);
                match value {
                    Some(value) if value.abs() >= 1_000.0 => write!(f, "  {value:>width$.0}")?,
                    Some(value) => write!(f, "  {value:>width$.2}")?,
                    None => write!(f, "  {:>width$}", "-")?,
                }
            }
            writeln!(f)?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        Ok(())
    }
}

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get(sorted.len().saturating_sub(1) / 2), sorted.get(sorted.len() / 2)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => f64::NAN,
    }
}
