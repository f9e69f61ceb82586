//! Both listeners over real sockets, with the worker's side of the preface.

use std::time::Duration;

use liveedgecast_common::encryption::Encryption;
use liveedgecast_common::handoff::preface::TOKEN_BYTES;
use liveedgecast_common::handoff::{Frame, WorkerSide};
use liveedgecast_common::listen;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::*;

const SECRET: &str = "a secret of this test";

fn open() -> HandoffListener {
    open_with(Encryption::Auto)
}

fn open_with(encryption: Encryption) -> HandoffListener {
    let link = listen::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    HandoffListener::open(link, encryption.into(), Secret::new(SECRET)).unwrap()
}

async fn unix(listener: &HandoffListener) -> UnixStream {
    let address = std_unix::SocketAddr::from_abstract_name(listener.socket_name()).unwrap();
    let stream = std_unix::UnixStream::connect_addr(&address).unwrap();
    stream.set_nonblocking(true).unwrap();
    UnixStream::from_std(stream).unwrap()
}

async fn link(listener: &HandoffListener) -> TcpStream {
    TcpStream::connect(("127.0.0.1", listener.link_port())).await.unwrap()
}

/// Proves itself as a worker does, `piece` bytes at a time; `None` when it is refused.
async fn present<S>(stream: &mut S, secret: &str, token: [u8; TOKEN_BYTES], piece: usize) -> Option<(Reader, Writer)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let side = WorkerSide::new(&Secret::new(secret), token, random::bytes());
    present_as(stream, side, piece).await
}

/// The same, for a worker that knows our nonce from the offer.
async fn present_told<S>(stream: &mut S, told: Token, piece: usize) -> Option<(Reader, Writer)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let side = WorkerSide::told(&Secret::new(SECRET), told.presented, random::bytes(), told.challenge);
    present_as(stream, side, piece).await
}

async fn present_as<S>(
    stream: &mut S,
    (mut side, mut output): (WorkerSide, Vec<u8>),
    piece: usize,
) -> Option<(Reader, Writer)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        for bytes in output.chunks(piece) {
            stream.write_all(bytes).await.ok()?;
            tokio::task::yield_now().await;
        }
        let mut input = [0; 256];
        let read = stream.read(&mut input).await.ok().filter(|read| *read > 0)?;
        let progress = side.handle(&input[..read]);
        output = progress.output;
        match progress.step {
            Step::More => {}
            Step::Failed(_) => return None,
            Step::Done(keys) => {
                let (mut reader, writer) = keys.worker_end();
                reader.buffer().extend_from_slice(&input[progress.used..read]);
                return Some((reader, writer));
            }
        }
    }
}

/// The connection that is expected, once the end of its preface has been written, as the handoff does with the assignment.
async fn came(expected: ExpectedWorker) -> HandoffConnection {
    let mut connection = expected.await;
    connection.wire.write_all(&connection.preface).await.unwrap();
    connection
}

/// Tells whether the other end has closed.
async fn is_closed<S: AsyncRead + Unpin>(stream: &mut S) -> bool {
    !matches!(stream.read(&mut [0; 64]).await, Ok(1..))
}

#[tokio::test]
async fn expected_worker_is_let_in_by_both_listeners_in_any_pieces() {
    let listener = open();
    for (number, piece) in [(1, 1), (2, 7), (3, 1000)] {
        let token = [number; TOKEN_BYTES];
        let expected = listener.expect(Token::of(token));
        let mut stream = unix(&listener).await;
        let (ours, connection) = tokio::join!(present(&mut stream, SECRET, token, piece), came(expected));
        assert!(ours.is_some() && connection.wire.is_unix());

        let expected = listener.expect(Token::of(token));
        let mut stream = link(&listener).await;
        let (ours, connection) = tokio::join!(present(&mut stream, SECRET, token, piece), came(expected));
        assert!(ours.is_some() && !connection.wire.is_unix());

        let expected = listener.expect(Token::of(token));
        let mut stream = unix(&listener).await;
        let (ours, connection) = tokio::join!(present_told(&mut stream, Token::of(token), piece), came(expected));
        assert!(ours.is_some() && connection.wire.is_unix());
    }
    assert!(listener.shared.expected().is_empty());
}

#[tokio::test]
async fn worker_on_an_encrypted_link_proves_the_secret_of_its_own_connection_alone() {
    let listener = open_with(Encryption::On);
    let address = ([127, 0, 0, 1], listener.link_port()).into();
    let dial = || async { Protection::from(Encryption::On).dial(address, Duration::from_secs(5)).await.unwrap() };
    let token = [1; TOKEN_BYTES];
    let expected = listener.expect(Token::of(token));
    let of_another = bound_secret(&Secret::new(SECRET), &dial().await).unwrap();
    for wrong in [SECRET, of_another.expose()] {
        assert!(present(&mut dial().await, wrong, token, 1000).await.is_none());
    }
    assert!(present(&mut link(&listener).await, SECRET, token, 1000).await.is_none(), "a plain connection");
    let mut stream = dial().await;
    let bound = bound_secret(&Secret::new(SECRET), &stream).unwrap();
    let (ours, connection) = tokio::join!(present(&mut stream, bound.expose(), token, 7), came(expected));
    assert!(ours.is_some() && matches!(connection.wire, PeerSocket::Tls(_)));
}

#[tokio::test]
async fn nonce_of_an_offer_is_good_for_one_session() {
    let listener = open();
    let token = Token::of([6; TOKEN_BYTES]);
    let expected = listener.expect(token);
    // Somebody has seen the offer, and has not the secret: the worker's proof is good all the same.
    let mut thief = link(&listener).await;
    assert!(present(&mut thief, "another secret", token.presented, 100).await.is_none());
    let side = || WorkerSide::told(&Secret::new(SECRET), token.presented, [1; NONCE_BYTES], token.challenge);
    let mut worker = link(&listener).await;
    let (ours, _connection) = tokio::join!(present_as(&mut worker, side(), 100), came(expected));
    assert!(ours.is_some());
    // The same bytes once more: they are good for another nonce than ours.
    let mut replay = link(&listener).await;
    assert!(present_as(&mut replay, side(), 100).await.is_none());
}

#[tokio::test]
async fn frames_behind_the_preface_are_read() {
    let listener = open();
    let token = [5; TOKEN_BYTES];
    let expected = listener.expect(Token::of(token));
    let mut stream = unix(&listener).await;
    let (mut side, hello) = WorkerSide::new(&Secret::new(SECRET), token, [0; 32]);
    stream.write_all(&hello).await.unwrap();
    let mut input = [0; 256];
    let read = stream.read(&mut input).await.unwrap();
    let proof = side.handle(&input[..read]).output;
    stream.write_all(&proof).await.unwrap();
    let HandoffConnection { wire, preface, mut reader, .. } = expected.await;
    let PeerSocket::Unix(mut theirs) = wire else { panic!("not by the socket") };
    theirs.write_all(&preface).await.unwrap();
    let read = stream.read(&mut input).await.unwrap();
    let Step::Done(keys) = side.handle(&input[..read]).step else { panic!("not done") };
    let mut bytes = Vec::new();
    keys.worker_end().1.write(&mut bytes, &Frame::Accepted).unwrap();
    stream.write_all(&bytes).await.unwrap();
    let frame = loop {
        if let Some(frame) = reader.next().unwrap() {
            break frame;
        }
        theirs.read_buf(reader.buffer()).await.unwrap();
    };
    assert_eq!(frame, Frame::Accepted);
}

#[tokio::test]
async fn peer_without_token_or_secret_is_refused() {
    let listener = open();
    let token = [9; TOKEN_BYTES];
    let mut stranger = link(&listener).await;
    // The proof is right, and nobody expects the token: the connection ends without a frame.
    if present(&mut stranger, SECRET, token, 100).await.is_some() {
        assert!(is_closed(&mut stranger).await);
    }
    let forgotten = listener.expect(Token::of(token));
    drop(forgotten);
    assert!(listener.shared.expected().is_empty());

    let expected = listener.expect(Token::of(token));
    let mut guesser = link(&listener).await;
    assert!(present(&mut guesser, "another secret", token, 100).await.is_none());
    // The expected worker still gets the stream, once.
    let mut stream = link(&listener).await;
    let (ours, _connection) = tokio::join!(present(&mut stream, SECRET, token, 100), came(expected));
    assert!(ours.is_some());
    let mut second = link(&listener).await;
    if present(&mut second, SECRET, token, 100).await.is_some() {
        assert!(is_closed(&mut second).await);
    }
}

#[tokio::test]
async fn token_belongs_to_the_last_task_that_expects_it() {
    let listener = open();
    let token = [3; TOKEN_BYTES];
    let first = listener.expect(Token::of(token));
    let second = listener.expect(Token::of(token));
    drop(first);
    let mut stream = unix(&listener).await;
    let (ours, _connection) = tokio::join!(present(&mut stream, SECRET, token, 100), came(second));
    assert!(ours.is_some());
}

#[tokio::test(start_paused = true)]
async fn silent_peer_is_closed_after_the_preface_time() {
    let listener = open();
    let mut silent = link(&listener).await;
    let mut slow = unix(&listener).await;
    slow.write_all(b"L").await.unwrap();
    let started = tokio::time::Instant::now();
    assert!(is_closed(&mut silent).await && is_closed(&mut slow).await);
    assert!(started.elapsed() >= PREFACE_TIME && started.elapsed() < PREFACE_TIME + Duration::from_secs(1));
}

#[tokio::test]
async fn strangers_keep_no_worker_out_and_a_closed_listener_drops_them() {
    let listener = open();
    let mut waiting = Vec::new();
    for _ in 0..MAX_GREETINGS {
        waiting.push(link(&listener).await);
    }
    let token = [4; TOKEN_BYTES];
    let expected = listener.expect(Token::of(token));
    let mut worker = link(&listener).await;
    let (ours, _connection) = tokio::join!(present(&mut worker, SECRET, token, 100), came(expected));
    assert!(ours.is_some());
    assert!(is_closed(&mut waiting.remove(0)).await, "the oldest connection made room");
    drop(listener);
    for mut stream in waiting {
        assert!(is_closed(&mut stream).await);
    }
}
