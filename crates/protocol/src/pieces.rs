//! Bytes that come in pieces.

use std::mem;

use bytes::{Bytes, BytesMut};

/// What has come of a body; the only piece of one is not copied.
#[derive(Debug, Default)]
pub struct Pieces {
    /// The only piece so far, as it came.
    pub(crate) first: Bytes,
    /// All of them, once there are several.
    pub(crate) all: BytesMut,
}

impl Pieces {
    /// Adds a piece, where so many bytes are expected in all: 0 while that is not known.
    pub fn add(&mut self, piece: Bytes, expected: usize) {
        // Often the end comes by itself.
        if piece.is_empty() {
            return;
        }
        if self.so_far().is_empty() {
            self.first = piece;
            return;
        }
        if expected > self.all.capacity() {
            // As much as is expected, and not twice as much each time.
            let before = mem::replace(&mut self.all, BytesMut::with_capacity(expected));
            self.all.extend_from_slice(&before);
        }
        self.all.extend_from_slice(&mem::take(&mut self.first));
        self.all.extend_from_slice(&piece);
    }

    /// All that has come.
    pub fn so_far(&self) -> &[u8] {
        if self.all.is_empty() { &self.first } else { &self.all }
    }

    /// The same once it is the whole.
    pub fn whole(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}
