//! The table of every model, version and state that is logged once the models are loaded.

use std::fmt::Write;

use consort_repository::{IndexEntry, State};

const HEADS: [&str; 3] = ["Model", "Version", "Status"];

/// The table, framed as Triton's.
pub(crate) fn of(index: &[IndexEntry]) -> String {
    let rows: Vec<[String; 3]> = index.iter().map(row).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEADS[column].len()]).max().unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    let rule = widths.map(|width| "-".repeat(width + 2)).join("+");
    let mut table = format!("+{rule}+\n");
    let mut line = |cells: [&str; 3]| {
        for (cell, width) in cells.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(table, "| {cell:<width$} ");
        }
        table.push_str("|\n");
    };
    line(HEADS);
    for row in &rows {
        line([&row[0], &row[1], &row[2]]);
    }
    table.insert(0, '\n');
    table + &format!("+{rule}+")
}

fn row(entry: &IndexEntry) -> [String; 3] {
    let version = entry.version.map_or_else(|| "-".to_owned(), |version| version.to_string());
    let status = match (entry.state, entry.reason.lines().next()) {
        (State::Ready, _) | (_, None) => entry.state.name().to_owned(),
        (_, Some(reason)) => format!("{}: {reason}", entry.state.name()),
    };
    [entry.name.to_string(), version, status]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_why_a_model_is_unavailable() {
        let entry = |version, state, reason: &str| IndexEntry {
            name: "m".into(),
            version,
            state,
            reason: reason.into(),
        };
        let index =
            [entry(Some(1), State::Ready, ""), entry(None, State::Unavailable, "no file\nmore")];
        let table = of(&index);
        assert!(table.contains("| m     | 1       | READY                |"), "{table}");
        assert!(table.contains("| m     | -       | UNAVAILABLE: no file |"), "{table}");
    }
}
