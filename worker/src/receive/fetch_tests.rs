//! Fetching from an activator that does everything right, and from one that stops or errs at every step.
#![expect(clippy::disallowed_methods, reason = "tests of a shell: a file in the place of a socket")]

use std::os::fd::AsFd;

use liveedgecast_common::encryption::Encryption;
use liveedgecast_common::handoff::preface::TOKEN_BYTES;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::testkit::{Caller, Desk, assignment, frame, memory, offer, publisher, say, secret, soon};

const TOKEN: [u8; TOKEN_BYTES] = *b"a one-time token";

fn host() -> SocketAddr {
    // The control port: the link's port comes from Welcome.
    SocketAddr::from(([127, 0, 0, 1], 1))
}

async fn desk(transport: Transport) -> Desk {
    match transport {
        Transport::Descriptor => Desk::unix(),
        Transport::Link => Desk::tcp().await,
    }
}

/// Fetches while `activator` plays the activator's side.
async fn fetched<T>(
    transport: Transport,
    secret: &Secret,
    activator: impl AsyncFnOnce(Caller) -> T,
) -> (Result<FetchedStream, FetchError>, T) {
    let desk = desk(transport).await;
    let (welcome, offer) = (desk.welcome(), offer(&assignment("s", "k", transport), TOKEN));
    let activator = async { activator(desk.accept().await).await };
    let (spares, protection) = (SpareRings::default(), Encryption::Auto.into());
    soon(Box::pin(async { tokio::join!(fetch(secret, &protection, host(), &welcome, &offer, &spares), activator) }))
        .await
}

const BOTH: [Transport; 2] = [Transport::Descriptor, Transport::Link];

#[tokio::test]
async fn stream_comes_with_all_that_belongs_to_it_and_the_connection_goes_on() {
    for transport in BOTH {
        let (fetched, (mut activator, client)) =
            fetched(transport, &secret(), async |caller| caller.hand_over(assignment("s", "k", transport)).await).await;
        let fetched = fetched.unwrap();
        assert_eq!(fetched.assignment, assignment("s", "k", transport));
        let FetchedRing::Mapped(ring) = fetched.ring else { panic!("{transport:?}: not mapped") };
        assert_eq!(ring.most(), MIN_RING_BYTES);

        let mut stream = fetched.connection.attach().unwrap();
        say(&mut stream, &Frame::Accepted).await;
        assert_eq!(frame(&mut activator).await.unwrap(), Frame::Accepted);
        say(&mut activator, &Frame::Kick("enough".into())).await;
        assert_eq!(frame(&mut stream).await.unwrap(), Frame::Kick("enough".into()));

        assert_eq!(fetched.publisher.is_some(), client.is_some());
        if let (Some(held), Some(mut client)) = (fetched.publisher, client) {
            let mut held = TcpStream::from_std(held).unwrap();
            client.write_all(b"media").await.unwrap();
            let mut bytes = [0; 5];
            soon(held.read_exact(&mut bytes)).await.unwrap();
            assert_eq!(&bytes, b"media");
        }
        drop(activator);
        assert!(matches!(frame(&mut stream).await, Err(HandoffError::Ended)));
    }
}

#[tokio::test]
async fn token_is_shown_and_a_preface_in_any_pieces_is_read() {
    for transport in BOTH {
        for piece in [1, 2, 31, 77] {
            let (fetched, token) = fetched(transport, &secret(), async |mut caller| {
                let (keys, token) = caller.prove(&secret(), piece).await.unwrap();
                let held = publisher().await.0;
                let memory = memory();
                let fds = [held.as_fd(), memory.as_fd()];
                let fds = if transport == Transport::Descriptor { &fds[..] } else { &[] };
                let frame = Frame::Assign(Box::new(assignment("s", "k", transport)));
                let _open = caller.give(&keys, frame, fds).await;
                token
            })
            .await;
            assert_eq!((fetched.unwrap().assignment.stream_id.as_str(), token), ("s", TOKEN));
        }
    }
}

#[tokio::test]
async fn memory_that_a_stream_of_this_process_has_mapped_is_fetched_unmapped() {
    let memory = memory();
    let mapped = UnmappedRing::check(memory.try_clone().unwrap()).unwrap().map().unwrap();
    let (fetched, _activator) = fetched(Transport::Descriptor, &secret(), async |mut caller| {
        let (keys, _) = caller.prove(&secret(), usize::MAX).await.unwrap();
        let held = publisher().await.0;
        let frame = Frame::Assign(Box::new(assignment("s", "k", Transport::Descriptor)));
        caller.give(&keys, frame, &[held.as_fd(), memory.as_fd()]).await
    })
    .await;
    let FetchedRing::Unmapped(ring) = fetched.unwrap().ring else { panic!("mapped twice") };
    assert!(mapped.is_of(&ring));
    drop(mapped);
    assert!(ring.map().is_ok());
}

#[test]
fn only_root_and_our_own_user_are_trusted() {
    for (user, ours, trusted) in
        [(0, 0, true), (0, 7, true), (7, 7, true), (7, 0, false), (8, 7, false), (u32::MAX, 0, false)]
    {
        assert_eq!(is_trusted(user, ours), trusted, "{user} to {ours}");
    }
}

#[tokio::test]
async fn activator_of_another_secret_is_told_apart() {
    for transport in BOTH {
        let (fetched, proved) = fetched(transport, &Secret::new("another secret"), async |mut caller| {
            caller.prove(&secret(), usize::MAX).await.err()
        })
        .await;
        // The activator finds out first and says nothing more.
        assert!(matches!(fetched, Err(FetchError::Connection(HandoffError::Ended))), "{fetched:?}");
        assert_eq!(proved, Some(PrefaceError::Proof));
    }
}

#[tokio::test]
async fn activator_that_cannot_prove_itself_gets_nothing() {
    for transport in BOTH {
        let (fetched, ()) = fetched(transport, &secret(), async |mut caller| {
            let mut bytes = vec![0; 4096];
            let read = caller.read(&mut bytes).await;
            let mut side = liveedgecast_common::handoff::ActivatorSide::new(&secret(), random::bytes());
            caller.write(&side.handle(&bytes[..read]).output).await;
            let _ = caller.read(&mut bytes).await;
            caller.write(&[0; 32]).await;
        })
        .await;
        assert!(matches!(fetched, Err(FetchError::Preface(PrefaceError::Proof))), "{fetched:?}");
    }
}

#[tokio::test]
async fn activator_that_dies_in_the_middle_of_any_step_leaves_an_error() {
    // Bytes of a whole handoff by link, as the worker sees it.
    let whole = {
        let keys = crate::testkit::keys();
        let (_, mut writer) = keys.activator_end();
        let mut bytes = Vec::new();
        writer.write(&mut bytes, &Frame::Assign(Box::new(assignment("s", "k", Transport::Link)))).unwrap();
        bytes.len()
    };
    for transport in BOTH {
        let steps = [0, 1, 37, 38, 39, 69, 70, 71, 74, 75, 76, 70 + whole / 2, 70 + whole - 1];
        for dies_after in steps {
            let (fetched, ()) = fetched(transport, &secret(), async |caller| {
                let mut dying = Dying { caller, left: dies_after };
                dying.hand_over(transport).await;
            })
            .await;
            let Err(error) = fetched else { panic!("{transport:?}, {dies_after}: fetched") };
            let broken = matches!(error, FetchError::Connection(HandoffError::Ended | HandoffError::Broken(_)));
            assert!(broken, "{transport:?}, {dies_after}: {error:?}");
        }
    }
}

/// An activator that ends after so many bytes.
struct Dying {
    caller: Caller,
    left: usize,
}

impl Dying {
    /// Writes as much as the activator lives to; returns whether it lives on.
    async fn write(&mut self, bytes: &[u8]) -> bool {
        let part = bytes.len().min(self.left);
        self.left -= part;
        self.caller.write(&bytes[..part]).await;
        part == bytes.len()
    }

    async fn hand_over(&mut self, transport: Transport) {
        let mut side = liveedgecast_common::handoff::ActivatorSide::new(&secret(), random::bytes());
        let mut bytes = vec![0; 4096];
        let keys = loop {
            let read = self.caller.read(&mut bytes).await;
            let progress = side.handle(&bytes[..read]);
            if !self.write(&progress.output).await {
                return;
            }
            if let Step::Done(keys) = progress.step {
                break keys;
            }
        };
        let (_, mut writer) = keys.activator_end();
        let mut bytes = Vec::new();
        writer.write(&mut bytes, &Frame::Assign(Box::new(assignment("s", "k", transport)))).unwrap();
        let (held, _client) = publisher().await;
        let memory = memory();
        let part = bytes.len().min(self.left);
        match (&mut self.caller, transport) {
            (Caller::Unix(socket), Transport::Descriptor) if part > 0 => {
                sys::send_with_fds(socket, &bytes[..part], &[held.as_fd(), memory.as_fd()]).await.unwrap();
            }
            _ => {
                self.write(&bytes).await;
            }
        }
    }
}

#[tokio::test]
async fn stream_that_differs_from_its_offer_is_not_taken() {
    type Change = fn(&mut Assignment);
    let changes: [(&str, Change); 3] = [
        ("id", |assignment| assignment.stream_id.0.push('x')),
        ("epoch", |assignment| assignment.epoch += 1),
        ("transport", |assignment| {
            assignment.transport = match assignment.transport {
                Transport::Descriptor => Transport::Link,
                Transport::Link => Transport::Descriptor,
            }
        }),
    ];
    for transport in BOTH {
        for (name, change) in changes {
            let mut other = assignment("s", "k", transport);
            change(&mut other);
            let (fetched, _) = fetched(transport, &secret(), async |mut caller| {
                let (keys, _) = caller.prove(&secret(), usize::MAX).await.unwrap();
                let held = publisher().await.0;
                let memory = memory();
                let fds = [held.as_fd(), memory.as_fd()];
                let fds = if transport == Transport::Descriptor { &fds[..] } else { &[] };
                caller.give(&keys, Frame::Assign(Box::new(other)), fds).await
            })
            .await;
            assert!(matches!(fetched, Err(FetchError::Unexpected(_))), "{transport:?}, {name}: {fetched:?}");
        }
    }
    let (fetched, _) = fetched(Transport::Link, &secret(), async |mut caller| {
        let (keys, _) = caller.prove(&secret(), usize::MAX).await.unwrap();
        caller.give(&keys, Frame::Kick("no".into()), &[]).await
    })
    .await;
    assert!(matches!(fetched, Err(FetchError::Connection(HandoffError::Frame(_)))), "{fetched:?}");
}

#[tokio::test]
async fn stream_with_wrong_descriptors_is_given_back() {
    let (held, _client) = publisher().await;
    let (file, ring) = (std::fs::File::open("/dev/null").unwrap(), memory());
    let table: [(&str, Vec<std::os::fd::BorrowedFd<'_>>); 5] = [
        ("nothing", vec![]),
        ("one", vec![held.as_fd()]),
        ("three", vec![held.as_fd(), ring.as_fd(), ring.as_fd()]),
        ("no socket", vec![ring.as_fd(), ring.as_fd()]),
        ("no ring", vec![held.as_fd(), file.as_fd()]),
    ];
    for (name, fds) in table {
        let (fetched, answer) = fetched(Transport::Descriptor, &secret(), async |mut caller| {
            let (keys, _) = caller.prove(&secret(), usize::MAX).await.unwrap();
            let frame = Frame::Assign(Box::new(assignment("s", "k", Transport::Descriptor)));
            let mut activator = caller.give(&keys, frame, &fds).await;
            crate::testkit::frame(&mut activator).await
        })
        .await;
        assert!(matches!(fetched, Err(FetchError::Unexpected(_) | FetchError::Ring(_))), "{name}: {fetched:?}");
        assert_eq!(answer.unwrap(), Frame::Returned { why: Decline::Other }, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn activator_that_dawdles_is_given_up() {
    for transport in BOTH {
        // Time is virtual: it goes on whenever all wait.
        for bytes in [0, 1, 37, 38] {
            let (fetched, ()) = fetched(transport, &secret(), async |mut caller| {
                let mut hello = vec![0; 4096];
                let read = caller.read(&mut hello).await;
                let mut side = liveedgecast_common::handoff::ActivatorSide::new(&secret(), random::bytes());
                for byte in &side.handle(&hello[..read]).output[..bytes] {
                    tokio::time::sleep(FETCH_TIMEOUT / 50).await;
                    caller.write(&[*byte]).await;
                }
                // Until the worker hangs up.
                while caller.read(&mut hello).await > 0 {}
            })
            .await;
            assert!(matches!(fetched, Err(FetchError::TooLate)), "{transport:?}: {fetched:?}");
        }
    }
}

#[tokio::test]
async fn absent_activator_is_an_error() {
    let nowhere = Welcome::default();
    for transport in BOTH {
        let offer = offer(&assignment("s", "k", transport), TOKEN);
        let fetched =
            fetch(&secret(), &Encryption::Auto.into(), host(), &nowhere, &offer, &SpareRings::default()).await;
        assert!(matches!(fetched, Err(FetchError::Nowhere(_))), "{fetched:?}");
        let desk = desk(transport).await;
        let welcome = desk.welcome();
        drop(desk);
        let fetched =
            fetch(&secret(), &Encryption::Auto.into(), host(), &welcome, &offer, &SpareRings::default()).await;
        assert!(matches!(fetched, Err(FetchError::Dial { .. })), "{fetched:?}");
    }
}

#[tokio::test]
async fn frames_beyond_the_bound_are_not_queued() {
    let keys = crate::testkit::keys();
    let (_theirs, ours) = UnixStream::pair().unwrap();
    let mut stream = HandoffStream::new(ours, keys.worker_end());
    let reply = Frame::Reply(vec![0; 64 << 10].into());
    let error = loop {
        if let Err(error) = stream.queue(&reply) {
            break error;
        }
        assert!(stream.queued() < 2 * crate::receive::MAX_QUEUED);
    };
    assert!(matches!(error, HandoffError::Overfull), "{error:?}");
}
