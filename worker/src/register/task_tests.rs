//! The registration against a real gRPC server in process, with tiny streams.

use liveedgecast_common::control::{ActivatorMessage, Availability, Cordon, DeclineReason, InstanceKey, SessionState};
use liveedgecast_common::encryption::Encryption;
use liveedgecast_common::handoff::{Frame, Transport};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

use super::*;
use crate::config::Handoff;
use crate::engine::EngineMetrics;
use crate::testkit::control::{Activator, Kind, Shown, tiny};
use crate::testkit::{Desk as HandoffDesk, assignment, frame, offer, secret, soon};
use crate::{config, engine};

/// A worker's registration with its engine.
struct Worker {
    requests: Sender<RegistrationRequest>,
    joined: watch::Receiver<usize>,
    metrics: RegisterMetrics,
    engine: Engine,
    ended: JoinHandle<RegistrationEnd>,
}

impl Worker {
    fn start(activator: SocketAddr, secret: Secret, change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_at(config::Activator::Address(activator), None, secret, change)
    }

    fn start_at(
        activator: config::Activator,
        introducer: Option<config::Activator>,
        secret: Secret,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let counted = EngineMetrics::unregistered();
        let totals = Registry::new();
        let metrics = RegisterMetrics::new(&totals, &Registry::new(), counted.start_handoff.clone()).unwrap();
        let engine = Engine::start(&engine::Settings { capacity: 4, threads: 1 }, tiny(), &counted);
        let mut settings = Settings {
            name: "w".into(),
            capacity: 4,
            network: "net".into(),
            handoff: Handoff::Auto,
            exit_when_orphaned: false,
            key: InstanceKey([7; 32]),
            introducer: introducer.is_some(),
            began: now(),
        };
        change(&mut settings);
        let (requests, requested) = Registration::requests();
        let (joins, joined) = watch::channel(0);
        let registration = Registration {
            settings,
            activator,
            introducer,
            protection: Encryption::Auto.into(),
            secret,
            engine: engine.clone(),
            spares: SpareRings::default(),
            metrics: metrics.clone(),
            totals,
        };
        Self { requests, joined, metrics, engine, ended: tokio::spawn(registration.run(requested, joins)) }
    }

    async fn has_joined(&mut self, activators: usize) {
        soon(self.joined.wait_for(|joined| *joined == activators)).await.unwrap();
    }

    fn calls_ended(&self, how: &str) -> u64 {
        self.metrics.calls_ended.with_label_values(&[how]).get()
    }
}

#[tokio::test]
async fn worker_proves_itself_says_hello_and_is_joined() {
    let mut activator = Activator::start().await;
    let mut worker = Worker::start(activator.address, secret(), |_| {});
    let (_call, hello) = activator.joined(Welcome { activator: "a".into(), ..Welcome::default() }).await;
    assert_eq!((hello.name.as_str(), hello.network.as_str()), ("w", "net"));
    assert_eq!((hello.capacity, hello.availability, hello.sessions.len()), (4, Availability::Open, 0));
    worker.has_joined(1).await;
    assert_eq!(worker.metrics.joined.get(), 1);
}

#[tokio::test]
async fn name_is_resolved_and_all_its_addresses_are_tried() {
    let mut activator = Activator::start().await;
    let name = config::Activator::Name { host: "localhost".into(), port: activator.address.port() };
    let mut worker = Worker::start_at(name, None, secret(), |_| {});
    let (_call, _) = activator.joined(Welcome { activator: "a".into(), ..Welcome::default() }).await;
    worker.has_joined(1).await;
}

#[tokio::test]
async fn activator_that_no_name_leads_to_is_found_by_the_introducer() {
    let mut activator = Activator::start().await;
    let introducer = Activator::introducing(activator.address);
    // The port is bound and nothing listens on it.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let name = config::Activator::Name { host: "localhost".into(), port: introducer.address.port() };
    let mut worker = Worker::start_at(config::Activator::Address(gone), Some(name), secret(), |_| {});
    let (_call, _) = activator.joined(Welcome { activator: "a".into(), ..Welcome::default() }).await;
    worker.has_joined(1).await;
}

#[tokio::test]
async fn another_secret_is_refused_and_told_apart() {
    let activator = Activator::start().await;
    let worker = Worker::start(activator.address, Secret::new("another"), |_| {});
    soon(async {
        while worker.calls_ended("refused") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!((*worker.joined.borrow(), worker.calls_ended("broken")), (0, 0));
}

#[tokio::test]
async fn server_without_the_secret_is_told_nothing_and_not_obeyed() {
    for shown in [Shown::Nothing, Shown::AnotherSecrets, Shown::Callers] {
        let mut impostor = Activator::impostor(shown);
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let worker = Worker::start(impostor.address, secret(), |_| {});
        let mut call = impostor.call().await;
        let meet = elsewhere.local_addr().unwrap();
        for say in [
            ActivatorMessage::Welcome(Welcome { activator: "a".into(), ..Welcome::default() }),
            ActivatorMessage::Meet(meet),
            ActivatorMessage::Cordon(Cordon::Leaving),
        ] {
            call.try_say(say).await;
        }
        soon(async {
            while worker.calls_ended("refused") == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(call.next().await, None, "not even Hello");
        assert_eq!(*worker.joined.borrow(), 0);
        let met = std::future::poll_fn(|cx| std::task::Poll::Ready(elsewhere.poll_accept(cx).is_ready()));
        assert!(!met.await, "dialed where it was told to");
    }
}

#[tokio::test]
async fn introducer_without_the_secret_is_not_believed() {
    let ours = Activator::start().await;
    for shown in [Shown::Nothing, Shown::AnotherSecrets, Shown::Callers] {
        let impostor = Activator::introducing_as(ours.address, Kind::Impostor(shown));
        assert_eq!(introduce::ask("127.0.0.1", impostor.address.port(), &Encryption::Auto.into(), &secret()).await, []);
    }
    let honest = Activator::introducing(ours.address);
    assert_eq!(
        introduce::ask("127.0.0.1", honest.address.port(), &Encryption::Auto.into(), &secret()).await,
        [ours.address]
    );
}

#[tokio::test]
async fn offers_are_fetched_and_served_by_descriptor_and_by_link() {
    for transport in [Transport::Descriptor, Transport::Link] {
        let desk = match transport {
            Transport::Descriptor => HandoffDesk::unix(),
            Transport::Link => HandoffDesk::tcp().await,
        };
        let mut activator = Activator::start().await;
        let worker = Worker::start(activator.address, secret(), |_| {});
        let (mut call, _) = activator.joined(desk.welcome()).await;
        let assignment = assignment("s", "k", transport);
        call.say(ActivatorMessage::Offer(offer(&assignment, [7; 16]))).await;
        let (mut handoff, _publisher) = soon(desk.accept().await.hand_over(assignment)).await;
        assert_eq!(frame(&mut handoff).await.unwrap(), Frame::Accepted);
        // Never an empty place between the offer that was taken and the session.
        let mut loads = Vec::new();
        call.until(|say| match say {
            WorkerMessage::Load(load) => {
                loads.push(load.streams);
                None
            }
            WorkerMessage::Session(session) => (session.state == SessionState::Live).then_some(()),
            _ => None,
        })
        .await;
        assert!(loads.iter().all(|streams| *streams == 1), "{loads:?}");
        assert_eq!(worker.metrics.offers.with_label_values(&["started"]).get(), 1);

        call.say(ActivatorMessage::Kick { stream_id: "s".into(), reason: "enough".into() }).await;
        let ended = call.session("s", SessionState::Ended).await;
        assert_eq!(ended.reason, "enough");
        soon(worker.engine.idle()).await;
    }
}

#[tokio::test]
async fn offer_that_cannot_be_fetched_is_declined() {
    let mut activator = Activator::start().await;
    let worker = Worker::start(activator.address, secret(), |_| {});
    let (mut call, _) = activator.joined(Welcome { activator: "a".into(), ..Welcome::default() }).await;
    call.say(ActivatorMessage::Offer(offer(&assignment("s", "k", Transport::Link), [7; 16]))).await;
    let declined =
        call.until(|say| if let WorkerMessage::Declined(declined) = say { Some(declined) } else { None }).await;
    assert_eq!((declined.stream_id.as_str(), declined.epoch, declined.reason), ("s", 1, DeclineReason::Unreachable));
    assert_eq!(worker.metrics.fetch_failures.with_label_values(&["nowhere"]).get(), 1);
}

#[tokio::test]
async fn activator_that_comes_back_is_found_again_and_learns_what_is_served() {
    let desk = HandoffDesk::tcp().await;
    let mut activator = Activator::start().await;
    let mut worker = Worker::start(activator.address, secret(), |_| {});
    let (mut call, _) = activator.joined(desk.welcome()).await;
    let assignment = assignment("s", "k", Transport::Link);
    call.say(ActivatorMessage::Offer(offer(&assignment, [7; 16]))).await;
    let _handoff = desk.accept().await.hand_over(assignment).await;
    call.session("s", SessionState::Live).await;

    let address = activator.address;
    activator.die().await;
    drop(call);
    worker.has_joined(0).await;

    let mut activator = Activator::start_at(address).await;
    let (_call, hello) = activator.joined(desk.welcome()).await;
    let [session] = &hello.sessions[..] else { panic!("{hello:?}") };
    assert_eq!((session.stream_id.as_str(), session.state), ("s", SessionState::Live));
    worker.has_joined(1).await;
    assert!(worker.calls_ended("broken") >= 1);
}

#[tokio::test]
async fn draining_is_told_and_goodbye_is_the_last_message() {
    let mut activator = Activator::start().await;
    let worker = Worker::start(activator.address, secret(), |_| {});
    let (mut call, _) = activator.joined(Welcome { activator: "a".into(), ..Welcome::default() }).await;
    let (told, answer) = oneshot::channel();
    worker.requests.send(RegistrationRequest::Drain(told)).await.unwrap();
    soon(answer).await.unwrap();
    call.until(|say| {
        matches!(say, WorkerMessage::Load(load) if load.availability == Availability::Draining).then_some(())
    })
    .await;

    call.say(ActivatorMessage::Offer(offer(&assignment("s", "k", Transport::Link), [7; 16]))).await;
    let declined =
        call.until(|say| if let WorkerMessage::Declined(declined) = say { Some(declined) } else { None }).await;
    assert_eq!(declined.reason, DeclineReason::Draining);

    worker.requests.send(RegistrationRequest::Leave).await.unwrap();
    call.until(|say| matches!(say, WorkerMessage::Goodbye).then_some(())).await;
    assert_eq!(call.next().await, None);
    drop(call);
    assert_eq!(soon(worker.ended).await.unwrap(), RegistrationEnd::Left);
    assert_eq!(*worker.joined.borrow(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_an_activator_a_child_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let worker = Worker::start(address, secret(), |settings| settings.exit_when_orphaned = true);
    assert_eq!(soon(worker.ended).await.unwrap(), RegistrationEnd::Orphaned);
}

#[tokio::test(start_paused = true)]
async fn activator_that_accepts_and_says_nothing_is_called_again() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let worker = Worker::start(silent.local_addr().unwrap(), secret(), |_| {});
    // Time is virtual: it goes on while all wait.
    let first = soon(silent.accept()).await.unwrap();
    let second = soon(silent.accept()).await.unwrap();
    assert_ne!(first.1, second.1);
    assert_eq!(*worker.joined.borrow(), 0);
}
