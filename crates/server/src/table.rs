//! The table of every model, version and state that is logged once the models are loaded.

use std::fmt::Write;

use consort_repository::{IndexEntry, State};

const HEADS: [&str; 3] = ["Model", "Version", "Status"];

/// The widest status, so that a row fits a terminal beside a name of some length.
const STATUS_WIDTH: usize = 72;

/// The most lines that a status has: enough for a sentence or two, and every model still in view.
const STATUS_LINES: usize = 4;

/// The last of them where there is more to say.
const CUT: &str = "… (in full in the repository index)";

/// A version of a model, with its status in lines.
struct Row {
    name: String,
    version: String,
    status: Vec<String>,
}

/// The table, framed as Triton's.
pub(crate) fn of(index: &[IndexEntry]) -> String {
    let rows: Vec<Row> = index.iter().map(row).collect();
    let widest = |head: &str, cells: &mut dyn Iterator<Item = &String>| {
        cells.map(|cell| cell.chars().count()).chain([head.len()]).max().unwrap_or(0)
    };
    let widths = [
        widest(HEADS[0], &mut rows.iter().map(|row| &row.name)),
        widest(HEADS[1], &mut rows.iter().map(|row| &row.version)),
        widest(HEADS[2], &mut rows.iter().flat_map(|row| &row.status)),
    ];
    let rule = widths.map(|width| "-".repeat(width + 2)).join("+");
    let mut table = format!("\n+{rule}+\n");
    let line = |table: &mut String, cells: [&str; 3]| {
        for (cell, width) in cells.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(table, "| {cell:<width$} ");
        }
        table.push_str("|\n");
    };
    line(&mut table, HEADS);
    let _ = writeln!(table, "+{rule}+");
    for Row { name, version, status } in &rows {
        for (index, status) in status.iter().enumerate() {
            let [name, version] = if index == 0 { [name.as_str(), version] } else { [""; 2] };
            line(&mut table, [name, version, status]);
        }
    }
    table + &format!("+{rule}+")
}

fn row(entry: &IndexEntry) -> Row {
    let version = entry.version.map_or_else(|| "-".to_owned(), |version| version.to_string());
    let state = entry.state.name();
    let is_told = entry.state != State::Ready && !entry.reason.is_empty();
    let status = if is_told { format!("{state}: {}", entry.reason) } else { state.to_owned() };
    Row { name: entry.name.to_string(), version, status: fold(&status) }
}

/// The first line of a text in lines that fit; the last one says so where something is left out.
fn fold(text: &str) -> Vec<String> {
    let mut parts = text.lines();
    let mut lines = wrap(parts.next().unwrap_or_default());
    if lines.len() > STATUS_LINES || parts.next().is_some() {
        lines.truncate(STATUS_LINES - 1);
        lines.push(CUT.to_owned());
    }
    lines
}

/// A text in lines that fit, broken between words where that is possible.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut width = 0;
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        for piece in letters.chunks(STATUS_WIDTH) {
            let gap = usize::from(width > 0);
            if width + gap + piece.len() > STATUS_WIDTH {
                lines.push(String::new());
                width = 0;
            }
            // There is a line from the beginning.
            let Some(line) = lines.last_mut() else { continue };
            if width > 0 {
                line.push(' ');
                width += 1;
            }
            line.extend(piece);
            width += piece.len();
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(version: Option<u64>, state: State, reason: &str) -> IndexEntry {
        IndexEntry { name: "m".into(), version, state, reason: reason.into() }
    }

    #[test]
    fn a_row_says_why_a_model_is_unavailable() {
        let index = [
            entry(Some(1), State::Ready, "not what its files are"),
            entry(None, State::Unavailable, "no file"),
            entry(None, State::Unknown, ""),
        ];
        let table = of(&index);
        assert!(table.contains("| m     | 1       | READY                |"), "{table}");
        assert!(table.contains("| m     | -       | UNAVAILABLE: no file |"), "{table}");
        assert!(table.contains("| m     | -       |                      |"), "{table}");
    }

    #[test]
    fn a_long_reason_is_told_in_lines_that_fit_and_no_more_of_them_than_can_be_read() {
        let path = "/models/".repeat(12);
        let sentence = "the file cannot be read because it does not lie there ";
        for (reason, last) in [
            (sentence.repeat(3), "there"),
            (format!("no such file: {path}"), "els/"),
            (sentence.repeat(20), CUT),
            (format!("{path}\nand another mistake"), CUT),
        ] {
            let table = of(&[entry(None, State::Unavailable, &reason)]);
            let lines: Vec<&str> = table.lines().skip(4).collect();
            let rows = &lines[..lines.len() - 1];
            assert!((2..=STATUS_LINES).contains(&rows.len()), "{table}");
            assert!(rows[0].starts_with("| m     | -       | UNAVAILABLE: "), "{table}");
            assert!(rows[1].starts_with("|       |         | "), "{table}");
            assert!(rows[rows.len() - 1].trim_end_matches(['|', ' ']).ends_with(last), "{table}");
            let widths: Vec<_> = lines.iter().map(|line| line.chars().count()).collect();
            assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
            assert!(widths[0] <= STATUS_WIDTH + 23, "{table}");
        }
    }
}
