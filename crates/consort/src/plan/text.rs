//! A plan for reading in a terminal.

use std::fmt::Write;

use super::outline::{Box, BoxIndex, Line, Outline, Port};

/// The plan in lines.
pub(super) fn print(outline: &Outline) -> String {
    let mut text = Text::default();
    let remarks = outline.remarks.iter().map(|remark| format!(", {remark}"));
    text.line(&format!("ensemble {}{}", outline.name, remarks.collect::<String>()));
    text.line("");
    text.line("request");
    text.table(&outline.boxes[0].outputs.iter().map(given).collect::<Vec<_>>());
    for wave in &outline.waves {
        text.line("");
        match wave.as_slice() {
            [_] => text.line("then"),
            _ => text.line("then, side by side"),
        }
        for step in wave {
            text.step(outline, step + 1);
        }
    }
    let last = outline.boxes.len() - 1;
    text.line("");
    text.line(&headed(&outline.boxes[last]));
    text.table(&taken(outline, last));
    text.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{}", line.trim_end());
    }

    fn step(&mut self, outline: &Outline, index: BoxIndex) {
        let step = &outline.boxes[index];
        self.line(&format!("  step {}", headed(step)));
        let mut rows = taken(outline, index);
        let lines = |port: usize| {
            let from = outline.lines.iter().filter(move |line| line.from == (index, port));
            from.map(|line| line.tensor.as_str()).next().unwrap_or_default()
        };
        for (port, output) in step.outputs.iter().enumerate() {
            let [name, kind, remark] = given(output);
            rows.push([format!("{name} -> {}", lines(port)), kind, remark]);
        }
        self.table(&rows);
    }

    /// Rows with their columns under one another.
    fn table(&mut self, rows: &[[String; 3]]) {
        let width = |column: usize| {
            rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let (first, second) = (width(0), width(1));
        for [name, kind, remark] in rows {
            self.line(&format!("      {name:first$}  {kind:second$}  {remark}"));
        }
    }
}

/// A box's title with what is worth saying of it.
fn headed(of: &Box) -> String {
    let remarks = of.remarks.join(", ");
    if remarks.is_empty() { of.title.clone() } else { format!("{} ({remarks})", of.title) }
}

fn given(port: &Port) -> [String; 3] {
    let remark = if port.is_optional { "optional" } else { "" };
    [port.name.clone(), port.kind.clone(), remark.to_owned()]
}

/// What a box takes, each with the tensor it comes from.
fn taken(outline: &Outline, index: BoxIndex) -> Vec<[String; 3]> {
    let lines = outline.lines.iter().filter(|line| line.to.0 == index);
    let row = |line: &Line| {
        let port = &outline.boxes[index].inputs[line.to.1];
        let mut remarks: Vec<&str> = line.flow.remark().into_iter().collect();
        remarks.extend(batching(line));
        [format!("{} <- {}", port.name, line.tensor), port.kind.clone(), remarks.join(", ")]
    };
    lines.map(row).collect()
}

/// What becomes of the batch dimension on the way, when anything does.
pub(super) fn batching(line: &Line) -> Option<&'static str> {
    match line.is_batched {
        (false, true) => Some("gains a batch dimension"),
        (true, false) => Some("loses a batch of one"),
        _ => None,
    }
}
