//! A connection on which what several calls write at the same time leaves in one write.
//!
//! HTTP/2 writes every frame as soon as it is there. When a batch of requests is answered, each
//! answer would be a system call, a wake-up of whoever reads it, and the next step's call another.
//! Here a flush waits until whatever else is ready to run on its thread has run and put its frames
//! beside it, as long as there are others who do.

mod joiners;

use std::io::{ErrorKind, IoSlice, Result};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;
use tonic::transport::server::Connected;

use self::joiners::Joiners;

/// What is gathered at most, in bytes; more than that does not wait.
const LIMIT: usize = 128 << 10;

/// The memory that a connection keeps for what comes next, in bytes.
const KEPT: usize = 16 << 10;

/// A connection that gathers what is written to it, for a task that flushes whenever it is woken, as
/// the connections of HTTP/2 do: a flush may say that it is done although it is only arranged. The
/// task is woken then, and its next flush writes.
#[derive(Debug)]
pub struct Gathered<S> {
    connection: S,
    held: Vec<u8>,
    /// How much of it is written.
    written: usize,
    phase: Phase,
    joiners: Joiners,
    turn: Arc<Turn>,
    /// Says that the turn is over.
    waker: Waker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody has flushed what is held.
    Gathering,
    /// It leaves when the turn is over.
    Waiting,
    /// It leaves as fast as the connection takes it.
    Leaving,
}

/// The wait for whatever else is ready to run.
#[derive(Debug, Default)]
struct Turn {
    is_over: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.is_over.store(true, Release);
        self.task.wake();
    }
}

impl<S> Gathered<S> {
    /// Gathers what is written to `connection`.
    pub fn new(connection: S) -> Self {
        let turn = Arc::<Turn>::default();
        Self {
            connection,
            held: Vec::new(),
            written: 0,
            phase: Phase::Gathering,
            joiners: Joiners::default(),
            waker: turn.clone().into(),
            turn,
        }
    }

    /// Whether what is held may leave now; else the task is woken when it may.
    fn may_leave(&mut self, context: &Context<'_>) -> bool {
        match self.phase {
            Phase::Leaving => true,
            Phase::Waiting => {
                self.turn.task.register(context.waker());
                self.turn.is_over.load(Acquire)
            }
            Phase::Gathering => {
                if !self.joiners.are_likely() {
                    return true;
                }
                self.phase = Phase::Waiting;
                self.turn.is_over.store(false, Release);
                self.turn.task.register(context.waker());
                // Whatever is ready on this thread runs before, and no other thread is woken for it.
                let turn = &mut Context::from_waker(&self.waker);
                pin!(yield_now()).poll(turn).is_ready()
            }
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        if self.phase == Phase::Waiting {
            self.joiners.note_write();
        }
        self.held.extend_from_slice(bytes);
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
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
        self.held.shrink_to(KEPT);
        self.written = 0;
        self.phase = Phase::Gathering;
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

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        self.joiners.note_read();
        Pin::new(&mut self.connection).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
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

impl<S: Connected> Connected for Gathered<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.connection.connect_info()
    }
}

#[cfg(test)]
mod tests;
