//! Both sides over real sockets, and strangers between them.

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpListener;

use super::*;
use crate::handoff::preface::Step;
use crate::handoff::{ActivatorSide, WorkerSide};
use crate::proof::{Exchange, Purpose};

const PATIENCE: Duration = Duration::from_secs(5);
const LOCAL: &str = "127.0.0.1:0";
/// An address of another machine (RFC 5737).
const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn secret() -> Secret {
    Secret::new("a secret of this test")
}

/// Both ends of a connection; the accepting side takes its peer for `peer`.
async fn pair(dialing: Encryption, accepting: Encryption, peer: IpAddr) -> (io::Result<PeerSocket>, PeerSocket) {
    let listener = TcpListener::bind(LOCAL).await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = async { Protection::from(accepting).accept(listener.accept().await.unwrap().0, peer).await };
    let dialed = async {
        let mut socket = Protection::from(dialing).dial(address, PATIENCE).await.unwrap();
        // A side that dials speaks first.
        socket.write_all(b"hello").await.unwrap();
        socket.flush().await.unwrap();
        socket
    };
    tokio::join!(accepted, dialed)
}

async fn encrypted() -> (PeerSocket, PeerSocket) {
    let (accepted, dialed) = pair(Encryption::On, Encryption::On, ELSEWHERE).await;
    let mut accepted = accepted.unwrap();
    let mut hello = [0; 5];
    accepted.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
    (accepted, dialed)
}

fn is_tls(socket: &PeerSocket) -> bool {
    matches!(socket, PeerSocket::Tls(_))
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[tokio::test]
async fn plain_connection_is_accepted_where_the_setting_allows_it() {
    let here = IpAddr::from([127, 0, 0, 1]);
    let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
    for (dialing, accepting, peer, expected) in [
        (Encryption::Auto, Encryption::Auto, here, Some(false)),
        (Encryption::Auto, Encryption::Auto, mapped, Some(false)),
        (Encryption::Auto, Encryption::Auto, ELSEWHERE, None),
        (Encryption::Off, Encryption::On, here, None),
        (Encryption::Off, Encryption::Off, ELSEWHERE, Some(false)),
        (Encryption::On, Encryption::Off, ELSEWHERE, Some(true)),
        (Encryption::On, Encryption::Auto, here, Some(true)),
    ] {
        let (accepted, dialed) = pair(dialing, accepting, peer).await;
        let row = format!("{dialing:?}, {accepting:?}, {peer}");
        assert_eq!(accepted.as_ref().ok().map(is_tls), expected, "{row}");
        assert_eq!(is_tls(&dialed), dialing == Encryption::On, "{row}");
        let refused = accepted.err().map(|error| error.kind());
        assert_eq!(refused, expected.is_none().then_some(io::ErrorKind::PermissionDenied), "{row}");
    }
    assert!(Encryption::Auto.encrypts(ELSEWHERE));
}

#[tokio::test]
async fn every_byte_arrives_in_order_both_ways_and_across_runtimes() {
    let (mut accepted, mut dialed) = encrypted().await;
    let (one, other) = (pattern(3 << 20), pattern(2_500_001));
    for round in 0..2 {
        let (mut reading, mut writing) = tokio::io::split(accepted);
        let (mut reading_too, mut writing_too) = tokio::io::split(dialed);
        let (mut came, mut came_too) = (vec![0; other.len()], vec![0; one.len()]);
        let all = tokio::join!(
            async { (writing.write_all(&one).await, writing.flush().await) },
            async { (writing_too.write_all(&other).await, writing_too.flush().await) },
            reading.read_exact(&mut came),
            reading_too.read_exact(&mut came_too),
        );
        assert!(all.2.is_ok() && all.3.is_ok(), "{all:?}");
        assert!(came == other && came_too == one, "round {round}");
        (accepted, dialed) = (reading.unsplit(writing), reading_too.unsplit(writing_too));
        // Bytes that have come before a connection moves are found after it.
        accepted.write_all(b"before").await.unwrap();
        let PeerSocket::Tls(tls) = dialed else { panic!("not encrypted") };
        dialed = tls.detach().unwrap().attach().unwrap().into();
        let mut before = [0; 6];
        dialed.read_exact(&mut before).await.unwrap();
        assert_eq!(&before, b"before");
    }
    drop(accepted);
    assert!(matches!(dialed.read(&mut [0; 8]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn secret_is_the_same_at_both_ends_of_one_connection_alone() {
    let (accepted, dialed) = encrypted().await;
    let ours = bound_secret(&secret(), &accepted).unwrap();
    assert!(ours == bound_secret(&secret(), &dialed).unwrap());
    assert!(ours != secret());
    let (elsewhere, _dialed) = encrypted().await;
    assert!(ours != bound_secret(&secret(), &elsewhere).unwrap());
    let (plain, _dialed) = pair(Encryption::Off, Encryption::Off, ELSEWHERE).await;
    assert!(bound_secret(&secret(), &plain.unwrap()).unwrap() == secret());
}

/// A worker and an activator, and between them a stranger that has ended TLS on both sides: their ends of the stranger's connections.
async fn intercepted() -> (PeerSocket, PeerSocket) {
    let (theirs, worker) = encrypted().await;
    let (activator, theirs_too) = encrypted().await;
    tokio::spawn(async move {
        let (mut one, mut other) = (theirs, theirs_too);
        let _ = copy_bidirectional(&mut one, &mut other).await;
    });
    (worker, activator)
}

#[tokio::test]
async fn proofs_that_a_stranger_in_the_middle_relays_are_refused() {
    let (mut worker, mut activator) = intercepted().await;
    let ours = bound_secret(&secret(), &worker).unwrap();
    let theirs = bound_secret(&secret(), &activator).unwrap();

    let call = Exchange { purpose: Purpose::Join, caller: [1; 32], challenge: [2; 32], activator: "a-1".into() };
    assert!(call.judge_caller(&ours, &call.caller_proof(&ours)).is_ok());
    assert!(call.judge_caller(&theirs, &call.caller_proof(&ours)).is_err());
    assert!(call.judge_activator(&ours, &call.activator_proof(&theirs)).is_err());
    assert_eq!(call.open(&theirs, call.seal(&ours, b"a key".to_vec())), None);

    // The preface, over the stranger's wires.
    let (_, hello) = WorkerSide::told(&ours, [3; 16], [4; 32], [5; 32]);
    worker.write_all(&hello).await.unwrap();
    worker.flush().await.unwrap();
    let mut came = vec![0; hello.len()];
    activator.read_exact(&mut came).await.unwrap();
    assert_eq!(came, hello, "the stranger has relayed it");
    let judged = ActivatorSide::new(&theirs, [5; 32]).handle(&came);
    assert!(matches!(judged.step, Step::Failed(_)), "{judged:?}");
    assert!(matches!(ActivatorSide::new(&ours, [5; 32]).handle(&came).step, Step::Done(_)), "without the stranger");
}

#[tokio::test]
async fn wire_shows_nothing_of_what_is_said() {
    let listener = TcpListener::bind(LOCAL).await.unwrap();
    let tap = TcpListener::bind(LOCAL).await.unwrap();
    let (address, tapped) = (listener.local_addr().unwrap(), tap.local_addr().unwrap());
    let recorded = tokio::spawn(async move {
        let (mut from, _) = tap.accept().await.unwrap();
        let mut to = TcpStream::connect(address).await.unwrap();
        let (mut from_reads, mut from_writes) = from.split();
        let (mut to_reads, mut to_writes) = to.split();
        let forth = async {
            let (mut all, mut bytes) = (Vec::new(), [0; 4096]);
            while let Ok(read @ 1..) = from_reads.read(&mut bytes).await {
                all.extend_from_slice(&bytes[..read]);
                to_writes.write_all(&bytes[..read]).await.unwrap();
            }
            to_writes.shutdown().await.unwrap();
            all
        };
        let back = tokio::io::copy(&mut to_reads, &mut from_writes);
        tokio::join!(forth, back).0
    });
    let accepted =
        async { Protection::from(Encryption::On).accept(listener.accept().await.unwrap().0, ELSEWHERE).await.unwrap() };
    let on = Protection::from(Encryption::On);
    let (mut accepted, dialed) = tokio::join!(accepted, on.dial(tapped, PATIENCE));
    let mut dialed = dialed.unwrap();
    let said = b"rtmp://a/live/a-key-of-somebody".repeat(100);
    dialed.write_all(&said).await.unwrap();
    dialed.shutdown().await.unwrap();
    let mut heard = Vec::new();
    accepted.read_to_end(&mut heard).await.unwrap();
    drop((accepted, dialed));
    assert!(heard == said);
    let wire = recorded.await.unwrap();
    assert!(wire.len() > said.len());
    assert!(!wire.windows(4).any(|bytes| bytes == b"rtmp" || bytes == b"key-"));
}

#[tokio::test]
async fn stranger_that_speaks_other_tls_or_leaves_is_an_error() {
    let listener = TcpListener::bind(LOCAL).await.unwrap();
    let address = listener.local_addr().unwrap();
    for bytes in [&b""[..], &[TLS_HANDSHAKE], &[TLS_HANDSHAKE, 3, 1, 0, 4, 1, 0, 0, 0]] {
        let left = async {
            let mut stranger = TcpStream::connect(address).await.unwrap();
            stranger.write_all(bytes).await.unwrap();
            stranger.shutdown().await.unwrap();
            stranger
        };
        let accepted =
            async { Protection::from(Encryption::Auto).accept(listener.accept().await.unwrap().0, ELSEWHERE).await };
        let (_stranger, accepted) = tokio::join!(left, accepted);
        assert!(accepted.is_err(), "{bytes:?}");
    }
}
