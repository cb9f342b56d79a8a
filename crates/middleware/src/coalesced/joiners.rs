//! Whether a flush is worth a wait for others: a wait costs the processor some microseconds, which a
//! caller who is alone on the connection would spend for nothing.

use crate::turns::Turns;

/// How many flushes wait after one that others have joined.
const CREDIT: u32 = 16;

/// Of the flushes that nobody is likely to join, every so many-th waits, to see whether that holds.
const TRY_EVERY: u32 = 16;

/// What a connection has seen of those who join a flush.
#[derive(Debug)]
pub(super) struct Joiners {
    /// What is written in the same turn is of one look at the calls, and belongs together anyway.
    pub(super) turns: Turns,
    /// The turn in which the flush began that waits.
    flushed_in: u32,
    /// How many more flushes are likely to be joined.
    credit: u32,
    /// How many flushes have not waited since one did.
    spared: u32,
}

impl Joiners {
    /// Nobody seen yet, on a connection that is looked at in these turns.
    pub(super) fn new(turns: Turns) -> Self {
        Self { turns, flushed_in: 0, credit: 0, spared: 0 }
    }

    /// Whether others are likely to join the flush that begins now.
    pub(super) fn are_likely(&mut self) -> bool {
        self.flushed_in = self.turns.number();
        // Answered by the connection's task, one after another.
        if self.turns.take_several() {
            self.credit = CREDIT;
        }
        if self.credit > 0 {
            self.credit -= 1;
            return true;
        }
        self.spared = (self.spared + 1) % TRY_EVERY;
        self.spared == 0
    }

    /// Whether the connection's task has another turn since the flush began that waits, which it has
    /// once others have had theirs.
    pub(super) fn have_had_their_turn(&self) -> bool {
        self.turns.number() != self.flushed_in
    }

    /// Notes that something is written while a flush waits.
    pub(super) fn note_write(&mut self) {
        if self.have_had_their_turn() {
            self.credit = CREDIT;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many flushes wait, each joined by another write or by none.
    fn waits(joiners: &mut Joiners, flushes: u32, is_joined: bool) -> u32 {
        let mut waits = 0;
        for _ in 0..flushes {
            joiners.turns.begin();
            if joiners.are_likely() {
                waits += 1;
                joiners.note_write();
                if is_joined {
                    joiners.turns.begin();
                    joiners.note_write();
                }
            }
        }
        waits
    }

    #[test]
    fn flushes_wait_while_others_join_them_and_are_tried_otherwise() {
        let mut joiners = Joiners::new(Turns::default());
        assert_eq!(waits(&mut joiners, 10 * TRY_EVERY, false), 10);
        assert_eq!(waits(&mut joiners, TRY_EVERY + 100, true), 101);
        assert_eq!(waits(&mut joiners, CREDIT + 10 * TRY_EVERY, false), CREDIT + 10);
    }

    #[test]
    fn the_answers_of_one_turn_are_waited_for() {
        let mut joiners = Joiners::new(Turns::default());
        joiners.turns.begin();
        joiners.turns.note_answer();
        assert!(!joiners.are_likely());
        joiners.turns.note_answer();
        assert!(joiners.are_likely());
        assert!(!joiners.have_had_their_turn());
        joiners.turns.begin();
        assert!(joiners.have_had_their_turn());
    }
}
