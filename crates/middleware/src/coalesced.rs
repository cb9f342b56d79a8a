//! A connection on which what several calls write at the same time leaves in one write.
//!
//! HTTP/2 writes every frame as soon as it is there. When a batch of requests is answered, each
//! answer would be a system call, a wake-up of whoever reads it, and the next step's call another.
//! Here the task of the connection lets those run first that are ready to run before it, and they put
//! their frames beside its own, as long as there are others who do.

mod joiners;

use std::io::{ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::joiners::Joiners;
use crate::turns::Turns;

/// The largest frame of HTTP/2 on these connections, and the most that is held, in bytes: more than
/// that leaves at once. A larger frame would keep the streams beside it waiting for longer.
pub const LARGEST_FRAME: u32 = 128 << 10;

const LIMIT: usize = LARGEST_FRAME as usize;

/// The memory that a connection keeps for what comes next, in bytes.
const KEPT: usize = 32 << 10;

/// A connection that coalesces what is written to it, for a task that reads, writes and flushes
/// whenever it is woken, as the connections of HTTP/2 do: a flush may say that it is done although it
/// is only arranged. The task is woken then, and its next flush writes.
#[derive(Debug)]
pub struct Coalesced<S> {
    connection: S,
    held: Vec<u8>,
    /// How much of it is written.
    written: usize,
    phase: Phase,
    joiners: Joiners,
    reads_are_turns: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody has flushed what is held.
    Held,
    /// It leaves when the task looks at the connection again.
    Waiting,
    /// It leaves as fast as the connection takes it.
    Leaving,
}

impl<S> Coalesced<S> {
    /// Coalesces what is written to `connection`, of which each read is a turn of its task.
    pub fn new(connection: S) -> Self {
        Self { reads_are_turns: true, ..Self::in_turns(connection, Turns::default()) }
    }

    /// The same for a task that reads more than once in a turn, as one does that begins the calls it
    /// has read. It must [begin](Turns::begin) each of its turns, and have another where one is [wished
    /// for](Turns::take_wish), or what waits would never leave.
    pub fn in_turns(connection: S, turns: Turns) -> Self {
        let (held, phase, reads_are_turns) = (Vec::new(), Phase::Held, false);
        let joiners = Joiners::new(turns);
        Self { connection, held, written: 0, phase, joiners, reads_are_turns }
    }

    /// Whether what is held may leave now; else the task is woken to flush again.
    fn may_leave(&mut self, context: &Context<'_>) -> bool {
        match self.phase {
            Phase::Leaving => true,
            Phase::Waiting => self.joiners.have_had_their_turn(),
            Phase::Held => {
                let is_worth_it = self.joiners.are_likely();
                if is_worth_it {
                    self.phase = Phase::Waiting;
                    if self.reads_are_turns {
                        // A task that wakes itself comes behind those that are ready to run.
                        context.waker().wake_by_ref();
                    } else {
                        self.joiners.turns.wish();
                    }
                }
                !is_worth_it
            }
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        if self.phase == Phase::Waiting {
            self.joiners.note_write();
        }
        let size = self.held.len() + bytes.len();
        if size > KEPT && size > self.held.capacity() {
            // At once as much as there can be, and not twice as much each time.
            self.held.reserve_exact(LIMIT - self.held.len());
        }
        self.held.extend_from_slice(bytes);
    }
}

impl<S: AsyncWrite + Unpin> Coalesced<S> {
    /// Writes what is held to the connection.
    fn write_held(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.phase = Phase::Leaving;
        while let rest @ [_, ..] = &self.held[self.written..] {
            let taken = ready!(Pin::new(&mut self.connection).poll_write(context, rest))?;
            if taken == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.written += taken;
        }
        self.held.clear();
        if self.held.capacity() > KEPT {
            // To make it smaller would copy what is of no use any more.
            self.held = Vec::new();
        }
        self.written = 0;
        self.phase = Phase::Held;
        Poll::Ready(Ok(()))
    }

    /// Makes room for so much more; whether it is little enough to be held at all.
    fn make_room(&mut self, more: usize, context: &mut Context<'_>) -> Poll<Result<bool>> {
        if self.held.len() + more > LIMIT {
            ready!(self.write_held(context))?;
        }
        Poll::Ready(Ok(more <= LIMIT))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Coalesced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        if self.reads_are_turns {
            self.joiners.turns.begin();
        }
        Pin::new(&mut self.connection).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalesced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        if !ready!(self.make_room(bytes.len(), context))? {
            return Pin::new(&mut self.connection).poll_write(context, bytes);
        }
        self.hold(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let size = parts.iter().map(|part| part.len()).sum();
        if !ready!(self.make_room(size, context))? {
            return Pin::new(&mut self.connection).poll_write_vectored(context, parts);
        }
        for part in parts {
            self.hold(part);
        }
        Poll::Ready(Ok(size))
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.held.is_empty() {
            if !self.may_leave(context) {
                return Poll::Ready(Ok(()));
            }
            ready!(self.write_held(context))?;
        }
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.write_held(context))?;
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
