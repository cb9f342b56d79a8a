//! The turns of a connection's task: each time that it looks at its connection is one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Counts the turns of one connection's task, for all who do something in them; its clones share it.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    number: AtomicU32,
    /// Calls that were answered in this turn by the task itself.
    answers: AtomicU32,
    /// Whether there was a turn with several since that was last asked.
    has_had_several: AtomicBool,
    /// Whether something waits for the next turn.
    is_wished: AtomicBool,
}

impl Turns {
    /// The task looks at its connection.
    pub fn begin(&self) {
        self.0.number.store(self.number().wrapping_add(1), Relaxed);
        self.0.answers.store(0, Relaxed);
    }

    /// The turn that it is.
    pub fn number(&self) -> u32 {
        self.0.number.load(Relaxed)
    }

    /// Notes that a call was answered in this turn.
    pub fn note_answer(&self) {
        if self.0.answers.fetch_add(1, Relaxed) > 0 {
            self.0.has_had_several.store(true, Relaxed);
        }
    }

    /// Asks for another turn, once others have had theirs.
    pub(crate) fn wish(&self) {
        self.0.is_wished.store(true, Relaxed);
    }

    /// Whether another turn is asked for. The task wakes itself for it.
    pub fn take_wish(&self) -> bool {
        self.0.is_wished.swap(false, Relaxed)
    }

    /// Whether several calls were answered in one turn since this was last asked.
    pub(crate) fn take_several(&self) -> bool {
        self.0.has_had_several.swap(false, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_answers_are_those_of_one_turn() {
        let turns = Turns::default();
        for answers in [0, 1, 1, 3, 1] {
            let before = turns.number();
            turns.begin();
            assert_ne!(turns.number(), before);
            (0..answers).for_each(|_| turns.note_answer());
            assert_eq!(turns.take_several(), answers > 1);
            assert!(!turns.take_several());
        }
    }
}
