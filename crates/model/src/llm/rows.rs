//! Which sequence lies in which row of a shared cache, and what every row holds.

use std::ops::Range;

use super::adapters::AdapterId;
use super::decoder::{Slot, Token};

/// The fewest tokens worth taking over from another row: fewer are computed sooner than copied.
pub(super) const FEWEST_REUSED: usize = 8;

/// The rows of a cache. A row without a sequence keeps its contents until another needs it.
#[derive(Debug)]
pub(crate) struct Rows {
    contents: Vec<Contents>,
    /// The row of each slot that has one.
    of_slot: Vec<Option<usize>>,
    /// Counts releases, to tell which contents are the oldest.
    clock: u64,
    /// Whether a step begins with the first row, wherever the sequences lie.
    begins_at_first: bool,
}

#[derive(Debug, Default)]
struct Contents {
    owner: Option<Slot>,
    /// The tokens whose keys and values it holds.
    tokens: Vec<Token>,
    /// What they were computed with.
    adapter: AdapterId,
    released_at: u64,
}

/// Contents to copy from one row to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    /// Where they are.
    pub(crate) from: usize,
    /// Where they go.
    pub(crate) to: usize,
    /// How many tokens, from the first.
    pub(crate) tokens: usize,
}

impl Rows {
    /// So many empty rows, each with room for `context` tokens, and whether every step is to begin
    /// with the first, so that there are few that differ.
    pub(crate) fn new(rows: usize, context: usize, begins_at_first: bool) -> Self {
        let row = || Contents { tokens: Vec::with_capacity(context), ..Contents::default() };
        Self {
            contents: std::iter::repeat_with(row).take(rows).collect(),
            of_slot: vec![None; rows],
            clock: 0,
            begins_at_first,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.contents.len()
    }

    /// The row that a slot has.
    pub(crate) fn row(&self, slot: Slot) -> Option<usize> {
        self.of_slot[slot]
    }

    /// What a row holds.
    pub(crate) fn tokens(&self, row: usize) -> &[Token] {
        &self.contents[row].tokens
    }

    /// Notes that tokens were fed to a row.
    pub(crate) fn extend(&mut self, row: usize, tokens: &[Token]) {
        self.contents[row].tokens.extend_from_slice(tokens);
    }

    /// Gives a slot the row that is best for its prompt, and what is to be copied there so that
    /// the row holds as much of the prompt as any that was computed with the same adapter; `None`
    /// when every row is taken.
    ///
    /// The last token of a prompt is never taken over: its logits are yet to be computed.
    pub(crate) fn begin(
        &mut self,
        slot: Slot,
        prompt: &[Token],
        adapter: AdapterId,
    ) -> Option<(usize, Option<Copy>)> {
        self.release(slot);
        let most = prompt.len().saturating_sub(1);
        let shared = |row: &Contents| {
            if row.adapter == adapter { common(&row.tokens, &prompt[..most]) } else { 0 }
        };
        let (from, tokens) = (0..self.len())
            .map(|row| (row, shared(&self.contents[row])))
            .max_by_key(|(row, tokens)| (*tokens, self.contents[*row].owner.is_none()))
            .filter(|(_, tokens)| *tokens >= FEWEST_REUSED)
            .unwrap_or((0, 0));
        let is_free = |row: usize| self.contents[row].owner.is_none();
        let to = if tokens > 0 && is_free(from) { from } else { self.oldest()? };
        let copy = Copy { from, to, tokens };
        if from == to {
            self.contents[to].tokens.truncate(tokens);
        } else {
            self.note_copy(copy);
        }
        let row = &mut self.contents[to];
        (row.owner, row.adapter) = (Some(slot), adapter);
        self.of_slot[slot] = Some(to);
        Some((tokens, (from != to && tokens > 0).then_some(copy)))
    }

    /// Takes the row from a slot; it keeps what it holds.
    pub(crate) fn release(&mut self, slot: Slot) {
        if let Some(row) = self.of_slot[slot].take() {
            self.clock += 1;
            let contents = &mut self.contents[row];
            (contents.owner, contents.released_at) = (None, self.clock);
        }
    }

    /// Moves the last of some slots' rows into a free row between them, when there is one; gives
    /// what is to be copied. Called until it gives nothing, it leaves no gap.
    pub(crate) fn close_gap(
        &mut self,
        slots: &(impl Iterator<Item = Slot> + Clone),
    ) -> Option<Copy> {
        let range = self.span(slots);
        let to = range.clone().find(|row| self.contents[*row].owner.is_none())?;
        let from = range.end - 1;
        let slot = self.contents[from].owner.take()?;
        let adapter = self.contents[from].adapter;
        let row = &mut self.contents[to];
        (row.owner, row.adapter) = (Some(slot), adapter);
        self.of_slot[slot] = Some(to);
        let copy = Copy { from, to, tokens: self.contents[from].tokens.len() };
        self.note_copy(copy);
        Some(copy)
    }

    /// The rows of a step: from the first to the last that some slots have, or from the very first.
    pub(crate) fn span(&self, slots: &(impl Iterator<Item = Slot> + Clone)) -> Range<usize> {
        let rows = || slots.clone().filter_map(|slot| self.of_slot[slot]);
        let end = rows().max().map_or(0, |last| last + 1);
        let start = if self.begins_at_first { None } else { rows().min() };
        start.unwrap_or(0)..end
    }

    /// The free row whose contents are the oldest, next to the taken ones where it can be: a run
    /// over neighbours computes nothing in vain.
    fn oldest(&self) -> Option<usize> {
        let is_taken = |row: usize| self.contents.get(row).is_some_and(|row| row.owner.is_some());
        let is_beside = |row: usize| is_taken(row + 1) || row.checked_sub(1).is_some_and(is_taken);
        let free = (0..self.len()).filter(|row| !is_taken(*row));
        // At the front, rows that are beside others only fill what would be moved up anyway.
        let is_joined = |row: usize| is_beside(row) || self.begins_at_first && row == 0;
        free.min_by_key(|row| (!is_joined(*row), self.contents[*row].released_at))
    }

    fn note_copy(&mut self, copy: Copy) {
        let mut tokens = std::mem::take(&mut self.contents[copy.to].tokens);
        tokens.clear();
        tokens.extend_from_slice(&self.contents[copy.from].tokens[..copy.tokens]);
        self.contents[copy.to].tokens = tokens;
    }
}

/// How many tokens two texts have in common at their beginnings.
pub(super) fn common(left: &[Token], right: &[Token]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: u32) -> Vec<Token> {
        (0..length).collect()
    }

    #[test]
    fn a_prompt_goes_where_its_beginning_is() {
        let mut rows = Rows::new(3, 64, false);
        assert_eq!(rows.begin(0, &text(20), None), Some((0, None)));
        rows.extend(0, &text(20));
        // Another has it: the beginning is copied, all but the token whose logits are wanted.
        let copy = Copy { from: 0, to: 1, tokens: 19 };
        assert_eq!(rows.begin(1, &text(20), None), Some((19, Some(copy))));
        // Nobody has it any more: the row is taken as it is, and what does not fit is forgotten.
        rows.release(0);
        rows.release(1);
        let other = [text(12), vec![99; 5]].concat();
        assert_eq!(rows.begin(2, &other, None), Some((12, None)));
        let row = rows.row(2).unwrap();
        assert_eq!(rows.tokens(row), text(12));
    }

    #[test]
    fn a_short_beginning_is_not_worth_it() {
        let mut rows = Rows::new(2, 64, false);
        rows.begin(0, &text(20), None);
        rows.extend(0, &text(20));
        assert_eq!(rows.begin(1, &text(FEWEST_REUSED as u32), None), Some((0, None)));
    }

    #[test]
    fn every_slot_has_a_row_of_its_own_and_none_is_left_over() {
        let mut rows = Rows::new(3, 8, false);
        let begun: Vec<_> = (0..3).map(|slot| rows.begin(slot, &[1], None).is_some()).collect();
        assert_eq!(begun, [true; 3]);
        let mut taken: Vec<_> = (0..3).filter_map(|slot| rows.row(slot)).collect();
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2]);
    }

    #[test]
    fn the_last_row_moves_into_a_gap() {
        let mut rows = Rows::new(4, 64, false);
        for slot in 0..4 {
            rows.begin(slot, &[slot as Token], None);
            rows.extend(rows.row(slot).unwrap(), &[slot as Token]);
        }
        let held = |rows: &Rows, slot| rows.tokens(rows.row(slot).unwrap()).to_vec();
        let gap = rows.row(1).unwrap();
        rows.release(1);
        let left = [0, 2, 3];
        let copy = rows.close_gap(&left.into_iter());
        assert!(copy.is_none_or(|copy| copy.to == gap && copy.tokens == 1));
        assert_eq!(rows.close_gap(&left.into_iter()), None);
        assert_eq!(rows.span(&left.into_iter()).len(), 3);
        for slot in left {
            assert_eq!(held(&rows, slot), [slot as Token]);
        }
    }

    #[test]
    fn what_another_adapter_computed_is_not_taken_over() {
        let mut rows = Rows::new(3, 64, false);
        rows.begin(0, &text(20), Some(0));
        rows.extend(rows.row(0).unwrap(), &text(20));
        assert_eq!(rows.begin(1, &text(20), None), Some((0, None)));
        assert_eq!(rows.begin(2, &text(20), Some(0)).unwrap().0, 19);
        rows.release(0);
        rows.release(1);
        rows.release(2);
        assert_eq!(rows.begin(0, &text(20), Some(1)), Some((0, None)));
    }

    #[test]
    fn a_row_that_moves_keeps_its_adapter() {
        let mut rows = Rows::new(2, 64, true);
        for (slot, adapter) in [(0, Some(0)), (1, Some(1))] {
            rows.begin(slot, &text(20), adapter);
            rows.extend(rows.row(slot).unwrap(), &text(20));
        }
        let last = (0..2).find(|slot| rows.row(*slot) == Some(1)).unwrap();
        rows.release(1 - last);
        assert!(rows.close_gap(&std::iter::once(last)).is_some());
        rows.release(last);
        assert_eq!(rows.begin(0, &text(20), Some(last)), Some((19, None)));
        assert_eq!(rows.begin(1, &text(20), Some(1 - last)), Some((0, None)));
    }

    #[test]
    fn where_steps_begin_with_the_first_row_sequences_move_to_the_front() {
        let mut rows = Rows::new(4, 64, true);
        for slot in 0..4 {
            rows.begin(slot, &[slot as Token], None);
            rows.extend(rows.row(slot).unwrap(), &[slot as Token]);
        }
        let last = (0..4).find(|slot| rows.row(*slot) == Some(3)).unwrap();
        (0..4).filter(|slot| *slot != last).for_each(|slot| rows.release(slot));
        let left = std::iter::once(last);
        assert_eq!(rows.close_gap(&left), Some(Copy { from: 3, to: 0, tokens: 1 }));
        assert_eq!(rows.close_gap(&left), None);
        assert_eq!(rows.span(&left), 0..1);
        assert_eq!(rows.tokens(0), [last as Token]);
        rows.release(last);
        rows.begin(1, &[9], None);
        assert_eq!(rows.row(1), Some(0));
    }

    #[test]
    fn the_oldest_contents_go_first() {
        let mut rows = Rows::new(2, 64, false);
        for slot in 0..2 {
            rows.begin(slot, &[7 + slot as Token], None);
            rows.extend(rows.row(slot).unwrap(), &text(30));
        }
        let first = rows.row(0).unwrap();
        rows.release(0);
        rows.release(1);
        rows.begin(0, &[9], None);
        assert_eq!(rows.row(0), Some(first));
    }
}
