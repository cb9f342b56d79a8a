//! What leaves together, and that nothing is lost or comes out of order.

use std::future::poll_fn;

use bytes::Bytes;
use tokio::io::DuplexStream;

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
async fn look(coalesced: &mut Coalesced<Wire>, frames: &[&[u8]]) {
    poll_fn(|context| {
        let read = Pin::new(&mut *coalesced).poll_read(context, &mut ReadBuf::new(&mut [0; 8]));
        assert!(read.is_pending());
        Poll::Ready(())
    })
    .await;
    for frame in frames {
        let mut rest = *frame;
        while !rest.is_empty() {
            let (head, body) = rest.split_at(rest.len().min(9));
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            let write =
                poll_fn(|context| Pin::new(&mut *coalesced).poll_write_vectored(context, &parts));
            rest = &rest[write.await.unwrap()..];
        }
    }
    poll_fn(|context| Pin::new(&mut *coalesced).poll_flush(context)).await.unwrap();
}

/// Lets others join flushes until these wait for them.
async fn crowd(coalesced: &mut Coalesced<Wire>) {
    while coalesced.phase != Phase::Waiting {
        look(coalesced, &[b"."]).await;
    }
    look(coalesced, &[b"."]).await;
    coalesced.connection.writes.clear();
}

#[tokio::test]
async fn a_lone_caller_is_not_kept_waiting() {
    let mut coalesced = Coalesced::new(Wire::new(usize::MAX, 0));
    look(&mut coalesced, &[b"a head and", b" a body"]).await;
    assert_eq!(coalesced.connection.writes, [b"a head and a body"]);
    look(&mut coalesced, &[b"next"]).await;
    assert_eq!(coalesced.connection.writes.len(), 2);
}

#[tokio::test]
async fn what_others_write_leaves_in_the_same_write() {
    let mut coalesced = Coalesced::new(Wire::new(usize::MAX, 0));
    crowd(&mut coalesced).await;
    look(&mut coalesced, &[b"one "]).await;
    assert!(coalesced.connection.writes.is_empty());
    look(&mut coalesced, &[b"two ", b"ten"]).await;
    assert_eq!(coalesced.connection.writes, [b"one two ten"]);
}

#[tokio::test]
async fn the_answers_of_one_turn_leave_in_one_write() {
    let turns = Turns::default();
    let mut coalesced = Coalesced::in_turns(Wire::new(usize::MAX, 0), turns.clone());
    for turn in 0..3 {
        coalesced.connection.writes.clear();
        turns.begin();
        for answer in [&b"one "[..], b"two ", b"ten "] {
            turns.note_answer();
            look(&mut coalesced, &[answer]).await;
        }
        assert!(turns.take_wish() && !turns.take_wish());
        turns.begin();
        look(&mut coalesced, &[]).await;
        assert_eq!(coalesced.connection.writes.concat(), b"one two ten ");
        // In the first the second call shows that they come together.
        assert_eq!(coalesced.connection.writes.len(), if turn == 0 { 2 } else { 1 });
    }
}

#[tokio::test]
async fn the_task_is_woken_to_flush_what_waits() {
    let mut coalesced = Coalesced::new(Wire::new(usize::MAX, 0));
    crowd(&mut coalesced).await;
    let mut looks = 0;
    // Nobody else wakes it.
    poll_fn(|context| {
        looks += 1;
        let mut connection = Pin::new(&mut coalesced);
        let read = connection.as_mut().poll_read(context, &mut ReadBuf::new(&mut [0; 8]));
        assert!(read.is_pending());
        if looks == 1 {
            assert!(connection.as_mut().poll_write(context, b"frame").is_ready());
        }
        assert!(connection.as_mut().poll_flush(context).is_ready());
        if connection.held.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    assert_eq!(looks, 2);
    assert_eq!(coalesced.connection.writes, [b"frame"]);
}

#[tokio::test]
async fn more_than_is_held_leaves_without_waiting() {
    let mut coalesced = Coalesced::new(Wire::new(usize::MAX, 0));
    crowd(&mut coalesced).await;
    let large = vec![1; LIMIT / 2 + 1];
    look(&mut coalesced, &[&large, &large]).await;
    assert!(coalesced.connection.writes == [&*large]);
    look(&mut coalesced, &[]).await;
    coalesced.connection.writes.clear();
    let larger = vec![2; 2 * LIMIT];
    look(&mut coalesced, &[&larger]).await;
    assert!(coalesced.connection.writes.concat().len() >= LIMIT);
    look(&mut coalesced, &[]).await;
    assert!(coalesced.connection.writes.concat() == larger);
    assert!(coalesced.held.capacity() <= KEPT);
}

#[tokio::test]
async fn what_waits_leaves_before_the_end() {
    let mut coalesced = Coalesced::new(Wire::new(usize::MAX, 0));
    crowd(&mut coalesced).await;
    look(&mut coalesced, &[b"last words"]).await;
    poll_fn(|context| Pin::new(&mut coalesced).poll_shutdown(context)).await.unwrap();
    assert_eq!(coalesced.connection.writes, [b"last words"]);
    assert!(coalesced.connection.is_shut);
}

#[tokio::test]
async fn nothing_is_lost_or_comes_out_of_order_where_the_connection_is_slow() {
    for (takes, full_every) in [(999, 2), (7_000, 3), (100_000, 2), (5_000, 0), (usize::MAX, 2)] {
        let mut coalesced = Coalesced::new(Wire::new(takes, full_every));
        let mut sent = Vec::new();
        for number in 0..120_usize {
            // Up to more than is held at all.
            let frame = vec![u8::try_from(number).unwrap(); number.pow(3) % (LIMIT + LIMIT / 2)];
            look(&mut coalesced, &[&frame]).await;
            sent.extend_from_slice(&frame);
        }
        poll_fn(|context| Pin::new(&mut coalesced).poll_shutdown(context)).await.unwrap();
        assert!(coalesced.connection.writes.concat() == sent, "{takes} bytes at once");
    }
}

#[tokio::test]
async fn a_connection_that_takes_nothing_is_an_error() {
    let mut coalesced = Coalesced::new(Wire::new(0, 0));
    poll_fn(|context| Pin::new(&mut coalesced).poll_write(context, b"frame")).await.unwrap();
    let flushed = poll_fn(|context| Pin::new(&mut coalesced).poll_flush(context)).await;
    assert_eq!(flushed.unwrap_err().kind(), ErrorKind::WriteZero);
}

/// Answers each request of `server` with its own body, after having read all of it.
async fn echo(mut server: h2::server::Connection<Coalesced<DuplexStream>, Bytes>) {
    while let Some(request) = server.accept().await {
        let (request, mut respond) = request.unwrap();
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut whole = Vec::new();
            while let Some(chunk) = body.data().await {
                let chunk = chunk.unwrap();
                body.flow_control().release_capacity(chunk.len()).unwrap();
                whole.extend_from_slice(&chunk);
            }
            let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
            stream.send_data(whole.into(), true).unwrap();
        });
    }
}

#[tokio::test]
async fn http_2_says_all_of_it_in_both_directions_through_a_narrow_pipe() {
    let (near, far) = tokio::io::duplex(777);
    let client = h2::client::Builder::new().handshake::<_, Bytes>(Coalesced::new(near));
    let (sender, connection) = client.await.unwrap();
    // Its greeting leaves when its task looks at the connection.
    let client = tokio::spawn(connection);
    let server =
        h2::server::Builder::new().max_frame_size(LARGEST_FRAME).handshake(Coalesced::new(far));
    let server = tokio::spawn(echo(server.await.unwrap()));
    let calls = (0..40_usize).map(|number| {
        let sender = sender.clone();
        async move {
            let body = vec![u8::try_from(number).unwrap(); number.pow(3)];
            let mut sender = sender.ready().await.unwrap();
            let request = http::Request::new(());
            let (response, mut stream) = sender.send_request(request, false).unwrap();
            stream.send_data(body.clone().into(), true).unwrap();
            let mut answer = response.await.unwrap().into_body();
            let mut whole = Vec::new();
            while let Some(chunk) = answer.data().await {
                let chunk = chunk.unwrap();
                answer.flow_control().release_capacity(chunk.len()).unwrap();
                whole.extend_from_slice(&chunk);
            }
            assert!(whole == body, "body {number}");
        }
    });
    futures::future::join_all(calls).await;
    // Without a sender the connection ends by itself, on both sides.
    drop(sender);
    client.await.unwrap().unwrap();
    server.await.unwrap();
}
