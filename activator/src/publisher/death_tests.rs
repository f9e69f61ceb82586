//! Handoffs by descriptor to workers that are processes: this test binary again, which plays a part in [`as_a_worker_process`].

use std::process::Stdio;

use liveedgecast_common::key::Secret;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::*;

/// The process's part: socket, token, secret, name of the part.
const ENVIRONMENT: &str = "LIVEEDGECAST_TEST_WORKER";
const THIS_TEST: &str = "publisher::task::tests::death::as_a_worker_process";

/// The behaviour of a worker that has fetched the stream.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    /// Says nothing.
    Silent,
    /// Accepts, and no more.
    Accepts,
    /// Accepts, then loses its connection and keeps the socket.
    Clings,
    /// Accepts, then closes the socket and its connection, and lives on.
    LetsGo,
    /// The same, and says that the stream is to move.
    GivesBack,
}

const PARTS: [Part; 5] = [Part::Silent, Part::Accepts, Part::Clings, Part::LetsGo, Part::GivesBack];

/// Not a test, unless the environment says so.
#[tokio::test]
async fn as_a_worker_process() {
    let Ok(told) = std::env::var(ENVIRONMENT) else { return };
    let told: Vec<&str> = told.split(' ').collect();
    let [socket, token, secret, part] = told[..] else { panic!("{told:?}") };
    let token: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&token[2 * at..2 * at + 2], 16).unwrap()).collect();
    let mut end = WorkerEnd::dial_socket(socket, &Secret::new(secret), token.try_into().unwrap()).await;
    end.assignment().await;
    let part = PARTS.into_iter().find(|known| format!("{known:?}") == part).unwrap();
    if part != Part::Silent {
        end.say(Frame::Accepted).await;
    }
    let fds = std::mem::take(&mut end.fds);
    match part {
        Part::Silent | Part::Accepts => std::future::pending().await,
        Part::Clings => {
            drop(end);
            std::future::pending::<()>().await;
            drop(fds);
        }
        Part::LetsGo => drop((fds, end)),
        Part::GivesBack => {
            drop(fds);
            end.say(Frame::Returned { why: Decline::Moving }).await;
        }
    }
    std::future::pending().await
}

/// A worker process that plays a part.
struct Actor {
    child: Child,
}

impl Actor {
    fn start(house: &House, offer: &liveedgecast_common::control::Offer, part: Part) -> Self {
        let token: String = offer.token.iter().map(|byte| format!("{byte:02x}")).collect();
        let told = format!("{} {token} {} {part:?}", house.listener.socket_name(), house.settings.secret.expose());
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", THIS_TEST, "--nocapture"])
            .env(ENVIRONMENT, told)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Tells whether the process lives.
    fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// A publisher whose worker is a process that plays this part.
async fn scene(part: Part) -> (House, Encoder, Employee, Actor) {
    let mut house = House::new(&[]);
    let encoder = Encoder::publish(&house, "alpha").await;
    let mut worker = house.worker(true);
    let offer = worker.offer().await;
    let actor = Actor::start(&house, &offer, part);
    (house, encoder, worker, actor)
}

/// Has another worker take the stream over, and sees that it runs.
async fn taken_over(house: &mut House, mut encoder: Encoder, resumed: bool) {
    let mut hands = house.worker(true).fetch().await;
    assert_eq!(hands.assignment.resumed, resumed);
    hands.take().await;
    encoder.until(Stage::Live).await;
    encoder.media(5).await;
    hands.read_media(5).await;
    house.until(0, 1).await;
}

#[tokio::test]
async fn killed_worker_is_succeeded() {
    let (mut house, encoder, worker, actor) = scene(Part::Accepts).await;
    house.until(0, 1).await;
    actor.signal(Signal::KILL);
    worker.dies();
    taken_over(&mut house, encoder, true).await;
}

#[tokio::test]
async fn hung_worker_is_killed_before_another_one_reads() {
    let (mut house, encoder, worker, mut actor) = scene(Part::Silent).await;
    // Stopped or silent is the same to us; the lobby loses patience first.
    drop(worker);
    house.until(1, 0).await;
    when(|| !actor.lives()).await;
    taken_over(&mut house, encoder, false).await;
}

#[tokio::test]
async fn worker_that_keeps_the_socket_of_a_lost_connection_is_killed() {
    let (mut house, encoder, worker, mut actor) = scene(Part::Clings).await;
    when(|| !actor.lives()).await;
    worker.dies();
    taken_over(&mut house, encoder, true).await;
}

#[tokio::test]
async fn worker_that_lets_go_lives_on() {
    for part in [Part::LetsGo, Part::GivesBack] {
        let (mut house, encoder, worker, mut actor) = scene(part).await;
        taken_over(&mut house, encoder, true).await;
        assert!(actor.lives(), "{part:?}");
        drop(worker);
    }
}
