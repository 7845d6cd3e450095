//! Figures for people: in columns, with as many digits as count.

use crate::statistics::Spread;

/// Three digits that count, more or less.
#[must_use]
pub fn number(figure: f64) -> String {
    let decimals = match figure.abs() {
        0.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{figure:.decimals$}")
}

/// The middle, with its quartiles in brackets.
#[must_use]
pub fn with_spread(spread: Spread) -> String {
    let Spread { lower, median, upper } = spread;
    format!("{} [{} {}]", number(median), number(lower), number(upper))
}

/// Rows of as many cells, the first aligned to the left, the others to the right.
///
/// # Panics
/// If there is no row.
#[must_use]
pub fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..rows[0].len()).filter_map(width).collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<_> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}
