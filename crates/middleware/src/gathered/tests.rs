//! What leaves together, and that nothing is lost or comes out of order.

use std::future::poll_fn;

use super::*;

/// A connection that keeps each write, takes at most so many bytes at once, and is full now and then.
#[derive(Debug)]
struct Wire {
    writes: Vec<Vec<u8>>,
    takes: usize,
    /// Every so many-th write finds it full; 0 for none.
    full_every: usize,
    asked: usize,
    is_shut: bool,
}

impl Wire {
    fn new(takes: usize, full_every: usize) -> Self {
        Self { writes: Vec::new(), takes, full_every, asked: 0, is_shut: false }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        self.asked += 1;
        if self.full_every > 0 && self.asked.is_multiple_of(self.full_every) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let taken = bytes.len().min(self.takes);
        self.writes.push(bytes[..taken].to_vec());
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.is_shut = true;
        Poll::Ready(Ok(()))
    }
}

/// Looks at the connection once, as HTTP/2 does: reads, writes these frames, flushes.
async fn look(gathered: &mut Gathered<Wire>, frames: &[&[u8]]) {
    poll_fn(|context| {
        let read = Pin::new(&mut *gathered).poll_read(context, &mut ReadBuf::new(&mut [0; 8]));
        assert!(read.is_pending());
        Poll::Ready(())
    })
    .await;
    for frame in frames {
        let mut rest = *frame;
        while !rest.is_empty() {
            let write = poll_fn(|context| Pin::new(&mut *gathered).poll_write(context, rest));
            rest = &rest[write.await.unwrap()..];
        }
    }
    poll_fn(|context| Pin::new(&mut *gathered).poll_flush(context)).await.unwrap();
}

/// Lets others join flushes until they wait for them.
async fn crowd(gathered: &mut Gathered<Wire>) {
    while gathered.phase != Phase::Waiting {
        look(gathered, &[b"."]).await;
    }
    look(gathered, &[b"."]).await;
    yield_now().await;
    look(gathered, &[]).await;
    gathered.connection.writes.clear();
}

#[tokio::test]
async fn a_lone_caller_is_not_kept_waiting() {
    let mut gathered = Gathered::new(Wire::new(usize::MAX, 0));
    look(&mut gathered, &[b"head", b"body"]).await;
    assert_eq!(gathered.connection.writes, [b"headbody"]);
    look(&mut gathered, &[b"next"]).await;
    assert_eq!(gathered.connection.writes.len(), 2);
}

#[tokio::test]
async fn what_many_write_in_one_turn_leaves_in_one_write() {
    let mut gathered = Gathered::new(Wire::new(usize::MAX, 0));
    crowd(&mut gathered).await;
    for frame in [b"one ", b"two ", b"ten "] {
        look(&mut gathered, &[frame]).await;
        assert!(gathered.connection.writes.is_empty());
    }
    yield_now().await;
    look(&mut gathered, &[]).await;
    assert_eq!(gathered.connection.writes, [b"one two ten "]);
}

#[tokio::test]
async fn the_task_is_woken_to_flush_what_waits() {
    let mut gathered = Gathered::new(Wire::new(usize::MAX, 0));
    crowd(&mut gathered).await;
    look(&mut gathered, &[b"frame"]).await;
    let mut looks = 0;
    // Nobody else wakes it.
    poll_fn(|context| {
        looks += 1;
        assert!(Pin::new(&mut gathered).poll_flush(context).is_ready());
        if gathered.held.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    assert_eq!(looks, 2);
    assert_eq!(gathered.connection.writes, [b"frame"]);
}

#[tokio::test]
async fn more_than_is_gathered_leaves_without_waiting() {
    let mut gathered = Gathered::new(Wire::new(usize::MAX, 0));
    crowd(&mut gathered).await;
    let large = vec![1; LIMIT / 2 + 1];
    look(&mut gathered, &[&large, &large]).await;
    assert_eq!(gathered.connection.writes, [&*large]);
    let larger = vec![2; LIMIT + 1];
    look(&mut gathered, &[&larger]).await;
    assert_eq!(gathered.connection.writes, [large.clone(), large, larger]);
    assert!(gathered.held.capacity() <= KEPT);
}

#[tokio::test]
async fn what_waits_leaves_before_the_end() {
    let mut gathered = Gathered::new(Wire::new(usize::MAX, 0));
    crowd(&mut gathered).await;
    look(&mut gathered, &[b"last words"]).await;
    poll_fn(|context| Pin::new(&mut gathered).poll_shutdown(context)).await.unwrap();
    assert_eq!(gathered.connection.writes, [b"last words"]);
    assert!(gathered.connection.is_shut);
}

#[tokio::test]
async fn nothing_is_lost_or_comes_out_of_order_where_the_connection_is_slow() {
    for (takes, full_every) in [(1, 2), (7, 3), (100, 2), (5_000, 0), (usize::MAX, 2)] {
        let mut gathered = Gathered::new(Wire::new(takes, full_every));
        let mut sent = Vec::new();
        for number in 0..200_usize {
            let frame = vec![u8::try_from(number).unwrap(); number * number % 977];
            look(&mut gathered, &[&frame]).await;
            sent.extend_from_slice(&frame);
            if number % 5 == 0 {
                yield_now().await;
            }
        }
        poll_fn(|context| Pin::new(&mut gathered).poll_shutdown(context)).await.unwrap();
        assert_eq!(gathered.connection.writes.concat(), sent, "{takes} bytes at once");
    }
}

#[tokio::test]
async fn a_connection_that_takes_nothing_is_an_error() {
    let mut gathered = Gathered::new(Wire::new(0, 0));
    poll_fn(|context| Pin::new(&mut gathered).poll_write(context, b"frame")).await.unwrap();
    let flushed = poll_fn(|context| Pin::new(&mut gathered).poll_flush(context)).await;
    assert_eq!(flushed.unwrap_err().kind(), ErrorKind::WriteZero);
}
