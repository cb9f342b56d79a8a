//! Whether a flush is worth a wait for others: a wait costs the processor some microseconds, which a
//! caller who is alone on the connection would spend for nothing.

/// How many flushes wait after one that others have joined.
const CREDIT: u32 = 16;

/// Of the flushes that nobody is likely to join, every so many-th waits, to see whether that holds.
const TRY_EVERY: u32 = 16;

/// What a connection has seen of those who join a flush.
#[derive(Debug, Default)]
pub(super) struct Joiners {
    /// How often the connection was read from. HTTP/2 reads before it writes, so what is written after
    /// the same read is of one look at the calls, and belongs together anyway.
    reads: u32,
    /// The same when the flush began that waits.
    flushed_after: u32,
    /// How many more flushes are likely to be joined.
    credit: u32,
    /// How many flushes have not waited since one did.
    spared: u32,
}

impl Joiners {
    /// Whether others are likely to join the flush that begins now.
    pub(super) fn are_likely(&mut self) -> bool {
        self.flushed_after = self.reads;
        if self.credit > 0 {
            self.credit -= 1;
            return true;
        }
        self.spared = (self.spared + 1) % TRY_EVERY;
        self.spared == 0
    }

    /// Whether the connection has been looked at since the flush began that waits, which its task does
    /// once others have had their turn.
    pub(super) fn have_had_their_turn(&self) -> bool {
        self.reads != self.flushed_after
    }

    /// Notes that the connection is read from.
    pub(super) fn note_read(&mut self) {
        self.reads = self.reads.wrapping_add(1);
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
            joiners.note_read();
            if joiners.are_likely() {
                waits += 1;
                joiners.note_write();
                if is_joined {
                    joiners.note_read();
                    joiners.note_write();
                }
            }
        }
        waits
    }

    #[test]
    fn flushes_wait_while_others_join_them_and_are_tried_otherwise() {
        let mut joiners = Joiners::default();
        assert_eq!(waits(&mut joiners, 10 * TRY_EVERY, false), 10);
        assert_eq!(waits(&mut joiners, TRY_EVERY + 100, true), 101);
        assert_eq!(waits(&mut joiners, CREDIT + 10 * TRY_EVERY, false), CREDIT + 10);
    }
}
