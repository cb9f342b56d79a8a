//! Shows in traces which steps a text's tokens rode in, and who rode along.

use std::sync::Arc;

use consort_telemetry::{batch_span, is_recorded, link, link_to};
use tracing::Span;

use super::sequence::Sequence;

/// The steps of a model, as traces call them.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    model: Arc<str>,
    version: String,
}

impl Steps {
    /// Those of a version of a model.
    pub(crate) fn of(model: Arc<str>, version: u64) -> Self {
        Self { model, version: version.to_string() }
    }

    /// The span of a step over these sequences; nothing for one that no trace shows.
    ///
    /// A trace shows the steps that give its text the second, fourth, eighth token and so on: as
    /// many as a long text has room for in a span's links, and most where a text begins. The step
    /// is linked both ways with the texts that show it, and names every other that is traced.
    pub(crate) fn begin<'a>(
        &self,
        rows: &(impl ExactSizeIterator<Item = &'a Sequence> + Clone),
    ) -> Option<Span> {
        let is_shown = |sequence: &Sequence| sequence.next_token().is_power_of_two();
        let traced = rows.clone().filter_map(|row| Some((row, row.span()?)));
        if !traced.clone().any(|(row, span)| is_shown(row) && is_recorded(span)) {
            return None;
        }
        let count = rows.len() as u64;
        let step = batch_span(&self.model, &self.version, count, count);
        for (row, span) in traced {
            if is_shown(row) {
                link(&step, span);
            } else {
                link_to(&step, span);
            }
        }
        Some(step)
    }
}
