//! The model's own logits, as many rows of them as a request asks for, to be given out.

/// Rows of logits that wait to be given out.
#[derive(Debug)]
pub(crate) struct RawLogits {
    /// How many tokens there are.
    vocabulary: usize,
    /// Those of the token to come.
    seen: Vec<f32>,
    /// The rows that wait, one behind the other.
    rows: Vec<f32>,
    /// How many rows came before them.
    given: usize,
}

/// Some rows of logits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RawRows<'a> {
    /// How many tokens there are.
    pub(crate) vocabulary: usize,
    /// The rows, one behind the other.
    pub(crate) values: &'a [f32],
}

impl RawLogits {
    /// No rows yet.
    pub(crate) fn new(vocabulary: usize) -> Self {
        Self { vocabulary, seen: Vec::new(), rows: Vec::new(), given: 0 }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, logits: &[f32]) {
        self.rows.extend_from_slice(logits);
    }

    /// Remembers the logits of the token to come.
    pub(crate) fn see(&mut self, logits: &[f32]) {
        self.seen.clear();
        self.seen.extend_from_slice(logits);
    }

    /// Adds what was seen, since the token came.
    pub(crate) fn note(&mut self) {
        self.rows.extend_from_slice(&self.seen);
    }

    /// The rows that wait, up to the row with number `end`.
    pub(crate) fn waiting(&self, end: usize) -> RawRows<'_> {
        let end = end.saturating_sub(self.given) * self.vocabulary;
        RawRows { vocabulary: self.vocabulary, values: &self.rows[..end.min(self.rows.len())] }
    }

    /// Forgets the rows up to the one with number `end`, which were given out.
    pub(crate) fn forget(&mut self, end: usize) {
        let waiting = self.waiting(end).values.len();
        self.rows.drain(..waiting);
        self.given = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_given_once_and_those_behind_the_end_stay() {
        let mut logits = RawLogits::new(2);
        for row in [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]] {
            logits.see(&row);
            logits.note();
        }
        assert_eq!(logits.waiting(2).values, [1.0, 2.0, 3.0, 4.0]);
        logits.forget(2);
        assert_eq!(logits.waiting(2).values, [0.0; 0]);
        assert_eq!(logits.waiting(9).values, [5.0, 6.0]);
        logits.push(&[7.0, 8.0]);
        assert_eq!(logits.waiting(4).values, [5.0, 6.0, 7.0, 8.0]);
    }
}
