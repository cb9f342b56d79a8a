//! What was measured, as a person reads it: tables on the terminal and in Markdown.

use std::fmt::Write;

use crate::sample::{Series, micros};

/// A figure that the project wants to reach, and whether it does.
pub(crate) struct Verdict {
    what: String,
    measured: String,
    bar: String,
    holds: bool,
}

impl Verdict {
    /// A figure that may be at most `bar`.
    pub(crate) fn at_most(what: impl Into<String>, measured: f64, bar: f64, unit: &str) -> Self {
        Self::new(what, measured, ("≤", bar), unit, measured <= bar)
    }

    /// A figure that must be at least `bar`.
    pub(crate) fn at_least(what: impl Into<String>, measured: f64, bar: f64, unit: &str) -> Self {
        Self::new(what, measured, ("≥", bar), unit, measured >= bar)
    }

    fn new(
        what: impl Into<String>,
        measured: f64,
        (sign, bar): (&str, f64),
        unit: &str,
        holds: bool,
    ) -> Self {
        let measured = format!("{} {unit}", number(measured));
        let bar = format!("{sign} {} {unit}", number(bar));
        Self { what: what.into(), measured, bar, holds }
    }

    fn cells(&self) -> Vec<String> {
        let word = if self.holds { "holds" } else { "missed" };
        vec![self.what.clone(), self.measured.clone(), self.bar.clone(), word.into()]
    }
}

/// One case: a table and what it says about the bars.
pub(crate) struct Section {
    title: String,
    table: Table,
    verdicts: Vec<Verdict>,
}

impl Section {
    /// A section whose table has these columns.
    pub(crate) fn new(title: &str, columns: &[&str]) -> Self {
        let header = columns.iter().map(ToString::to_string).collect();
        Self { title: title.into(), table: Table(vec![header]), verdicts: Vec::new() }
    }

    /// A section about contenders that took turns; the first is what the others are compared with.
    pub(crate) fn of_contenders(title: &str) -> Self {
        Self::new(title, &["", "calls/s", "p50 µs", "p99 µs", "CPU µs/call", "CPU to bare"])
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.table.0.push(cells.into_iter().collect());
    }

    /// Adds contenders, of which `bare` is the yardstick.
    pub(crate) fn contenders(&mut self, all: &[Series], bare: &Series) {
        for series in all {
            let cpu = |sample: &crate::sample::Sample| micros(sample.cpu_per_call());
            self.row([
                series.name.clone(),
                number(series.median(crate::sample::Sample::rate)),
                number(series.median(|sample| micros(sample.quantile(0.5)))),
                number(series.median(|sample| micros(sample.quantile(0.99)))),
                number(series.median(cpu)),
                format!("{:.2} ×", series.ratio(bare, cpu)),
            ]);
        }
    }

    /// Adds a figure that has a bar.
    pub(crate) fn judge(&mut self, verdict: Verdict) {
        self.verdicts.push(verdict);
    }

    /// The table for a terminal.
    pub(crate) fn as_text(&self) -> String {
        self.table.as_text()
    }
}

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Report {
    sections: Vec<Section>,
}

impl Report {
    /// Adds a case.
    pub(crate) fn add(&mut self, section: Section) {
        self.sections.push(section);
    }

    /// Every bar and what came of it, for a terminal.
    pub(crate) fn verdicts(&self) -> String {
        self.bars().as_text()
    }

    /// The whole report.
    pub(crate) fn as_markdown(&self, conditions: &str) -> String {
        let mut text = format!("{conditions}\n{}", self.bars().as_markdown());
        for section in &self.sections {
            let table = section.table.as_markdown();
            // Writing to a string cannot fail.
            let _ = write!(text, "\n### {}\n\n{table}", section.title);
        }
        text
    }

    fn bars(&self) -> Table {
        let header = ["figure", "measured", "bar", ""].map(str::to_owned).to_vec();
        let verdicts = self.sections.iter().flat_map(|section| &section.verdicts);
        Table([header].into_iter().chain(verdicts.map(Verdict::cells)).collect())
    }
}

/// Rows of cells; the first is the header.
struct Table(Vec<Vec<String>>);

impl Table {
    fn as_text(&self) -> String {
        let widths = self.widths();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate();
            let cells = cells.map(|(column, (cell, &width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            cells.collect::<Vec<_>>().join("  ") + "\n"
        };
        self.0.iter().map(line).collect()
    }

    fn as_markdown(&self) -> String {
        let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
        let mut lines: Vec<String> = self.0.iter().map(line).collect();
        let columns = self.widths().len();
        lines.insert(1, format!("|---|{}\n", "---:|".repeat(columns - 1)));
        lines.concat()
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.0[0].len();
        let width = |column: usize| self.0.iter().map(|row| row[column].chars().count()).max();
        (0..columns).map(|column| width(column).unwrap_or(0)).collect()
    }
}

/// Three digits or more: `0.12`, `1.23`, `45.6`, `789`, `12345`.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_written_for_people_and_for_markdown() {
        let mut section = Section::new("Title", &["", "p50"]);
        section.row(["bare".into(), number(12.345)]);
        assert_eq!(section.as_text(), "       p50\nbare  12.3\n");
        section.judge(Verdict::at_most("bare p50", 12.3, 10.0, "µs"));
        let mut report = Report::default();
        report.add(section);
        let markdown = report.as_markdown("Here.\n");
        assert!(markdown.contains("| bare p50 | 12.3 µs | ≤ 10.0 µs | missed |\n"), "{markdown}");
        assert!(markdown.contains("### Title\n\n|  | p50 |\n|---|---:|\n| bare | 12.3 |\n"));
    }
}
