//! A plan as a picture.

use std::fmt::Write;

use super::layout::{CHAR, Layout, Place, Point, REMARK, TITLE, lay_out, row};
use super::outline::{Box, Flow, Line, Outline, Port};
use super::text::batching;

const STYLE: &str = "
  text { font: 11px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #1f2733 }
  .name { font-size: 18px; font-weight: bold }
  .title { font-size: 13px; font-weight: bold }
  .remark { fill: #667085 }
  .kind { fill: #8a94a6 }
  .box { fill: #ffffff; stroke: #c3cad5 }
  .head { fill: #eef2fb }
  .end { fill: #eaf6ef }
  .line { fill: none; stroke: #98a2b3; stroke-width: 1.4 }
  .streaming { stroke: #2563eb; stroke-width: 2.2 }
  .held { stroke: #d97706; stroke-width: 1.6; stroke-dasharray: 6 4 }
  .port { fill: #ffffff; stroke: #667085 }
";

/// Draws an outline.
pub(super) fn draw(outline: &Outline) -> String {
    let layout = lay_out(outline);
    let mut svg = Svg::default();
    let remarks = outline.remarks.join(", ");
    let least = (outline.name.chars().count() + remarks.chars().count()) as f64 * 11.0 + 60.0;
    let (width, height) = (layout.width.max(least).ceil(), layout.height.ceil());
    svg.put(&format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">"#
    ));
    svg.put(&format!("<title>{}</title>", escaped(&outline.name)));
    svg.put(&format!("<style>{STYLE}</style>"));
    svg.put(r##"<rect width="100%" height="100%" fill="#ffffff"/>"##);
    svg.text((24.0, 38.0), "name", &outline.name);
    let beside = 24.0 + outline.name.chars().count() as f64 * 11.0 + 16.0;
    svg.text((beside, 38.0), "remark", &remarks);
    // Lines first, so that a box hides the end of what is behind it and nothing crosses its text.
    for (line, way) in outline.lines.iter().zip(&layout.ways) {
        svg.line(outline, line, way);
    }
    for (index, (shown, place)) in outline.boxes.iter().zip(&layout.boxes).enumerate() {
        let is_end = index == 0 || index + 1 == outline.boxes.len();
        svg.shown(shown, *place, is_end);
    }
    svg.names(outline, &layout);
    svg.legend(outline, height);
    svg.put("</svg>");
    svg.0
}

#[derive(Default)]
struct Svg(String);

impl Svg {
    fn put(&mut self, element: &str) {
        self.0.push_str(element);
        self.0.push('\n');
    }

    fn text(&mut self, (x, y): Point, class: &str, text: &str) {
        if !text.is_empty() {
            let text = escaped(text);
            self.put(&format!(r#"<text x="{x:.1}" y="{y:.1}" class="{class}">{text}</text>"#));
        }
    }

    fn shown(&mut self, shown: &Box, place: Place, is_end: bool) {
        let Place { x, y, width, height } = place;
        let head = TITLE + REMARK * shown.remarks.len() as f64;
        let class = if is_end { "end" } else { "head" };
        self.put(&format!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="7" class="box"/>"#
        ));
        let (right, below) = (x + width - 1.0, y + head);
        self.put(&format!(
            r#"<path d="M{left:.1} {below:.1}V{top:.1}q0-6 6-6H{turn:.1}q6 0 6 6V{below:.1}z" class="{class}"/>"#,
            left = x + 1.0,
            top = y + 7.0,
            turn = right - 6.0,
        ));
        self.text((x + 12.0, y + 18.0), "title", &shown.title);
        for (index, remark) in shown.remarks.iter().enumerate() {
            let y = y + TITLE + REMARK * index as f64 + 6.0;
            self.text((x + 12.0, y), "remark", remark);
        }
        for (port, input) in shown.inputs.iter().enumerate() {
            let at = (x, y + row(shown, port));
            self.port(at, input, (at.0 + 12.0, "start"));
        }
        for (port, output) in shown.outputs.iter().enumerate() {
            let at = (x + width, y + row(shown, port));
            self.port(at, output, (at.0 - 12.0, "end"));
        }
    }

    fn port(&mut self, (x, y): Point, port: &Port, (text_x, anchor): (f64, &str)) {
        let (name, kind) = (escaped(&port.name), escaped(&port.suffix()));
        self.put(&format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" class="port"/>"#));
        self.put(&format!(
            r#"<text x="{text_x:.1}" y="{:.1}" text-anchor="{anchor}">{name}<tspan class="kind" dx="6">{kind}</tspan></text>"#,
            y + 4.0
        ));
    }

    fn line(&mut self, outline: &Outline, line: &Line, way: &[Point]) {
        let mut path = format!("M{:.1} {:.1}", way[0].0, way[0].1);
        for (index, pair) in way.windows(2).enumerate() {
            let ((from_x, from_y), (x, y)) = (pair[0], pair[1]);
            let middle = f64::midpoint(from_x, x);
            // Writing to a string cannot fail.
            let _ = if index % 2 == 1 {
                write!(path, "C{middle:.1} {from_y:.1} {middle:.1} {y:.1} {x:.1} {y:.1}")
            } else {
                write!(path, "H{x:.1}")
            };
        }
        let flow = line.flow.remark().unwrap_or_default();
        let said = escaped(&said(outline, line));
        self.put(&format!(r#"<path d="{path}" class="line {flow}"><title>{said}</title></path>"#));
    }

    /// The tensors' names in the ensemble, beside the outputs they come from.
    fn names(&mut self, outline: &Outline, layout: &Layout) {
        let mut written = Vec::new();
        for (line, way) in outline.lines.iter().zip(&layout.ways) {
            if outline.is_renamed(line) && !written.contains(&line.from) {
                written.push(line.from);
                let (x, y) = way[0];
                self.text((x + 8.0, y - 5.0), "remark", &line.tensor);
            }
        }
    }

    /// What the lines mean, as far as there are such.
    fn legend(&mut self, outline: &Outline, height: f64) {
        let mut x = 24.0;
        for (flow, meaning) in [
            (Flow::Streaming, "with every response of a streaming step"),
            (Flow::Held, "once, then held and given to every response"),
        ] {
            if outline.lines.iter().any(|line| line.flow == flow) {
                let (y, class) = (height - 16.0, flow.remark().unwrap_or_default());
                self.put(&format!(r#"<path d="M{x:.1} {y:.1}h36" class="line {class}"/>"#));
                self.text((x + 44.0, y + 4.0), "remark", meaning);
                x += 44.0 + meaning.chars().count() as f64 * CHAR + 40.0;
            }
        }
    }
}

/// What is said of a line to whoever points at it.
fn said(outline: &Outline, line: &Line) -> String {
    let made = &outline.boxes[line.from.0].outputs[line.from.1];
    let taken = &outline.boxes[line.to.0].inputs[line.to.1];
    let kinds = if made.kind == taken.kind {
        made.kind.clone()
    } else {
        format!("{} to {}", made.kind, taken.kind)
    };
    let remarks = line.flow.remark().into_iter().chain(batching(line));
    let said: Vec<&str> = [kinds.as_str()].into_iter().chain(remarks).collect();
    format!("{}: {}", line.tensor, said.join(", "))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
