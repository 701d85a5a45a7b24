//! Cells to lines of a table. Pure.

use comfy_table::{CellAlignment, Table, presets};

use clipper_domain::printable::is_deceptive;

/// How a row is to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineLevel {
    /// The name of a table and of its columns.
    Head,
    /// In order.
    Good,
    Bad,
}

/// One line of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub text: String,
    /// How to show it.
    pub level: LineLevel,
}

impl Line {
    pub(super) fn new(level: LineLevel, text: impl Into<String>) -> Self {
        Self { text: text.into(), level }
    }
}

/// An empty line, the heads, and the rows. `left` are the columns of words.
pub(super) fn table(
    heads: &[&str],
    left: &[usize],
    rows: Vec<(Vec<String>, LineLevel)>,
) -> Vec<Line> {
    let levels = std::iter::once(LineLevel::Head).chain(rows.iter().map(|(_, level)| *level));
    let levels: Vec<LineLevel> = levels.collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heads.iter().copied());
    for (cells, _) in rows {
        table.add_row(cells);
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        let is_left = left.contains(&at);
        column.set_cell_alignment(if is_left { CellAlignment::Left } else { CellAlignment::Right });
        column.set_padding((0, 2));
    }
    let lines = table.lines().zip(levels).map(|(text, level)| Line::new(level, text.trim_end()));
    std::iter::once(Line::new(LineLevel::Good, "")).chain(lines).collect()
}

/// Without characters that move the cursor or turn the direction of writing.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if is_deceptive(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// About three digits; `-` for nothing.
pub(super) fn number(value: Option<f64>) -> String {
    let Some(value) = value.filter(|value| value.is_finite()) else { return "-".to_owned() };
    let text = match value.abs() {
        large if large >= 99.95 => format!("{value:.0}"),
        middle if middle >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{} %", number(Some(share * 100.0))))
}
