//! Where everything goes in the picture of a plan: boxes in columns, lines through lanes between.

use super::outline::{Box, BoxIndex, Outline};

/// The height of a box's row for one input and one output.
pub(super) const ROW: f64 = 20.0;
/// The height of the line for a title, and of each remark below it.
pub(super) const TITLE: f64 = 26.0;
pub(super) const REMARK: f64 = 15.0;
/// The space around everything, and between what stands in one column.
const MARGIN: f64 = 24.0;
const GAP: f64 = 28.0;
/// The height of a lane, through which a line passes a column.
const LANE: f64 = 14.0;
/// The least space between two columns, in which lines turn.
const TURN: f64 = 80.0;
/// The space above the boxes, for the ensemble's own title.
const HEAD: f64 = 44.0;
/// The width of a character, in the sizes that titles and everything else are written in.
const TITLE_CHAR: f64 = 8.2;
pub(super) const CHAR: f64 = 6.4;
/// How often the columns are put in order of their neighbours; more changes nothing visible.
const SWEEPS: usize = 8;

/// A point of the picture.
pub(super) type Point = (f64, f64);

/// Where everything goes.
pub(super) struct Layout {
    pub(super) width: f64,
    pub(super) height: f64,
    /// The place of each box.
    pub(super) boxes: Vec<Place>,
    /// The way of each line: points in pairs, straight within a pair and curved between them.
    pub(super) ways: Vec<Vec<Point>>,
}

/// A rectangle.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// The height of a box above its first row.
pub(super) fn head(of: &Box) -> f64 {
    TITLE + REMARK * of.remarks.len() as f64 + 6.0
}

/// The middle of a row, from the top of its box.
pub(super) fn row(of: &Box, port: usize) -> f64 {
    head(of) + ROW * (port as f64 + 0.5)
}

/// Lays out an outline.
pub(super) fn lay_out(outline: &Outline) -> Layout {
    let mut columns = Columns::of(outline);
    for sweep in 0..SWEEPS {
        columns.sweep(sweep % 2 == 0);
    }
    columns.sweep(true);
    columns.finish()
}

/// What stands in a column.
struct Node {
    what: What,
    height: f64,
    y: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Box(BoxIndex),
    /// The lane of the lines from this output.
    Lane(BoxIndex, usize),
}

/// The end of a piece of line: a node of a column and how far below its top.
#[derive(Clone, Copy)]
struct End {
    column: usize,
    node: usize,
    below: f64,
}

/// Where a column is: its left side, the width of its boxes, and of the names to their right.
#[derive(Clone, Copy)]
struct Span {
    x: f64,
    width: f64,
    names: f64,
}

struct Columns<'a> {
    outline: &'a Outline,
    /// The column of each box.
    column_of: Vec<usize>,
    stacks: Vec<Vec<Node>>,
}

impl<'a> Columns<'a> {
    fn of(outline: &'a Outline) -> Self {
        let mut column_of = vec![0; outline.boxes.len()];
        for (wave, steps) in outline.waves.iter().enumerate() {
            for step in steps {
                column_of[step + 1] = wave + 1;
            }
        }
        if let Some(last) = column_of.last_mut() {
            *last = outline.waves.len() + 1;
        }
        let mut stacks: Vec<Vec<Node>> = (0..outline.waves.len() + 2).map(|_| Vec::new()).collect();
        for (index, shown) in outline.boxes.iter().enumerate() {
            let rows = shown.inputs.len().max(shown.outputs.len()) as f64;
            let height = head(shown) + ROW * rows + 8.0;
            stacks[column_of[index]].push(Node { what: What::Box(index), height, y: 0.0 });
        }
        for line in &outline.lines {
            let lane = What::Lane(line.from.0, line.from.1);
            let between = column_of[line.from.0] + 1..column_of[line.to.0];
            for stack in &mut stacks[between] {
                if stack.iter().all(|node| node.what != lane) {
                    stack.push(Node { what: lane, height: LANE, y: 0.0 });
                }
            }
        }
        let mut columns = Self { outline, column_of, stacks };
        for column in 0..columns.stacks.len() {
            columns.stack(column, &vec![0.0; columns.stacks[column].len()]);
        }
        columns
    }

    /// Moves every node towards its neighbours on one side, in order.
    fn sweep(&mut self, is_forward: bool) {
        let count = self.stacks.len();
        let order: Vec<usize> =
            if is_forward { (1..count).collect() } else { (0..count - 1).rev().collect() };
        for column in order {
            let wanted = self.wanted(column, is_forward);
            self.stack(column, &wanted);
        }
    }

    /// Where each node of a column would stand to be level with its neighbours on one side.
    fn wanted(&self, column: usize, is_forward: bool) -> Vec<f64> {
        let pieces = self.pieces();
        let wants = |node: usize| {
            let mut tops = Vec::new();
            for (from, to) in &pieces {
                let (own, other) = if is_forward { (to, from) } else { (from, to) };
                if (own.column, own.node) == (column, node) {
                    let level = self.stacks[other.column][other.node].y + other.below;
                    tops.push(level - own.below);
                }
            }
            match tops.len() {
                0 => self.stacks[column][node].y,
                count => tops.iter().sum::<f64>() / count as f64,
            }
        };
        (0..self.stacks[column].len()).map(wants).collect()
    }

    /// Stands the nodes of a column one below the other, as near as can be to where they want.
    fn stack(&mut self, column: usize, wanted: &[f64]) {
        let mut nodes: Vec<(f64, Node)> =
            wanted.iter().copied().zip(self.stacks[column].drain(..)).collect();
        nodes.sort_by(|left, right| left.0.total_cmp(&right.0));
        let mut bottom = f64::NEG_INFINITY;
        let mut pushed = 0.0;
        for (wanted, node) in &mut nodes {
            node.y = wanted.max(bottom);
            pushed += node.y - *wanted;
            let gap = if matches!(node.what, What::Box(_)) { GAP } else { 4.0 };
            bottom = node.y + node.height + gap;
        }
        let back = pushed / nodes.len().max(1) as f64;
        for (_, node) in &mut nodes {
            node.y -= back;
        }
        self.stacks[column] = nodes.into_iter().map(|(_, node)| node).collect();
    }

    /// Every piece of line between two neighbouring columns.
    fn pieces(&self) -> Vec<(End, End)> {
        let stops = (0..self.outline.lines.len()).map(|line| self.stops(line));
        stops
            .flat_map(|stops| stops.windows(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>())
            .collect()
    }

    /// Where a line starts, which lanes it takes, and where it ends.
    fn stops(&self, line: usize) -> Vec<End> {
        let line = &self.outline.lines[line];
        let (from, to) = (line.from, line.to);
        let place = |column: usize, what: What| {
            let node = self.stacks[column].iter().position(|node| node.what == what);
            // Every box and every lane was put into its column at the start.
            node.unwrap_or_default()
        };
        let boxed = |(index, port): (BoxIndex, usize)| {
            let column = self.column_of[index];
            let below = row(&self.outline.boxes[index], port);
            End { column, node: place(column, What::Box(index)), below }
        };
        let lane = What::Lane(from.0, from.1);
        let between = self.column_of[from.0] + 1..self.column_of[to.0];
        let lanes =
            between.map(|column| End { column, node: place(column, lane), below: LANE / 2.0 });
        [boxed(from)].into_iter().chain(lanes).chain([boxed(to)]).collect()
    }

    fn finish(self) -> Layout {
        let nodes = self.stacks.iter().flatten();
        let top = nodes.clone().map(|node| node.y).fold(f64::INFINITY, f64::min);
        let bottom = nodes.map(|node| node.y + node.height).fold(f64::NEG_INFINITY, f64::max);
        let down = HEAD + MARGIN - top;
        let spans = self.spans();
        let mut boxes = vec![Place::default(); self.outline.boxes.len()];
        for (column, span) in self.stacks.iter().zip(&spans) {
            for node in column {
                if let What::Box(index) = node.what {
                    let (y, height) = (node.y + down, node.height);
                    boxes[index] = Place { x: span.x, y, width: span.width, height };
                }
            }
        }
        let way = |line: usize| {
            let stops = self.stops(line);
            let last = stops.len() - 1;
            let points = stops.iter().enumerate().flat_map(|(index, stop)| {
                let Span { x, width, names } = spans[stop.column];
                let y = self.stacks[stop.column][stop.node].y + stop.below + down;
                let right = x + width;
                match index {
                    0 => vec![(right, y), (right + names, y)],
                    _ if index == last => vec![(x, y)],
                    _ => vec![(x, y), (right + names, y)],
                }
            });
            points.collect()
        };
        let right = spans.last().map_or(0.0, |span| span.x + span.width);
        Layout {
            width: right + MARGIN,
            height: bottom + down + MARGIN + ROW,
            ways: (0..self.outline.lines.len()).map(way).collect(),
            boxes,
        }
    }

    fn spans(&self) -> Vec<Span> {
        let mut x = MARGIN;
        let mut spans = Vec::new();
        for column in &self.stacks {
            let boxes = column.iter().filter_map(|node| match node.what {
                What::Box(index) => Some(&self.outline.boxes[index]),
                What::Lane(..) => None,
            });
            let width = boxes.map(width).fold(0.0, f64::max);
            let names = self.widest_name(column);
            spans.push(Span { x, width, names });
            x += width + names + TURN;
        }
        spans
    }

    /// The width of the longest name that is written beside the outputs of a column.
    fn widest_name(&self, column: &[Node]) -> f64 {
        let starts_here = |index: BoxIndex| column.iter().any(|node| node.what == What::Box(index));
        let lines = self.outline.lines.iter().filter(|line| starts_here(line.from.0));
        let named = lines.filter(|line| self.outline.is_renamed(line));
        named.map(|line| line.tensor.chars().count() as f64 * CHAR + 12.0).fold(0.0, f64::max)
    }
}

/// The width that the texts of a box need.
fn width(of: &Box) -> f64 {
    let text = |text: &str, of_char: f64| text.chars().count() as f64 * of_char;
    let remarks = of.remarks.iter().map(|remark| text(remark, CHAR));
    let ports = |ports: &[super::outline::Port]| {
        ports.iter().map(|port| text(&port.text(), CHAR)).fold(0.0, f64::max)
    };
    let (inputs, outputs) = (ports(&of.inputs), ports(&of.outputs));
    let between = if inputs > 0.0 && outputs > 0.0 { 28.0 } else { 0.0 };
    let rows = inputs + outputs + between;
    rows.max(text(&of.title, TITLE_CHAR)).max(remarks.fold(0.0, f64::max)) + 28.0
}
