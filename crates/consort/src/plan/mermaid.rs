//! A plan as a Mermaid flowchart.

use std::fmt::Write;

use super::outline::{Box, BoxIndex, Flow, Line, Outline};

/// More names than this on one arrow hide the picture.
const MAX_NAMES: usize = 6;

/// The flowchart.
pub(super) fn print(outline: &Outline) -> String {
    let mut text = format!("---\ntitle: {}\n---\nflowchart LR\n", outline.name);
    for (index, shown) in outline.boxes.iter().enumerate() {
        let is_end = index == 0 || index + 1 == outline.boxes.len();
        let label = label(shown);
        // Writing to a string cannot fail.
        let _ = if is_end {
            writeln!(text, "    b{index}([\"{label}\"])")
        } else {
            writeln!(text, "    b{index}[\"{label}\"]")
        };
    }
    for (from, to, flow) in arrows(outline) {
        let of_arrow = |line: &&Line| (line.from.0, line.to.0) == (from, to) && line.flow == flow;
        let names: Vec<&str> =
            outline.lines.iter().filter(of_arrow).map(|line| line.tensor.as_str()).collect();
        let label = shortened(&names, flow);
        let arrow = match flow {
            Flow::Once => "-->",
            Flow::Streaming => "==>",
            Flow::Held => "-.->",
        };
        let _ = writeln!(text, "    b{from} {arrow}|\"{label}\"| b{to}");
    }
    text
}

fn label(shown: &Box) -> String {
    let remarks = shown.remarks.iter().map(|remark| format!("<br/><i>{}</i>", escaped(remark)));
    format!("<b>{}</b>{}", escaped(&shown.title), remarks.collect::<String>())
}

/// Each pair of boxes with lines of one flow between them, in the order of the lines.
fn arrows(outline: &Outline) -> Vec<(BoxIndex, BoxIndex, Flow)> {
    let mut arrows = Vec::new();
    for line in &outline.lines {
        let arrow = (line.from.0, line.to.0, line.flow);
        if !arrows.contains(&arrow) {
            arrows.push(arrow);
        }
    }
    arrows
}

fn shortened(names: &[&str], flow: Flow) -> String {
    let mut lines: Vec<String> = names.iter().take(MAX_NAMES).map(|name| escaped(name)).collect();
    if names.len() > MAX_NAMES {
        lines.push(format!("and {} more", names.len() - MAX_NAMES));
    }
    lines.extend(flow.remark().map(|remark| format!("<i>{remark}</i>")));
    lines.join("<br/>")
}

/// The text with what Mermaid would read as its own.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "#quot;").replace('<', "&lt;").replace('>', "&gt;")
}
