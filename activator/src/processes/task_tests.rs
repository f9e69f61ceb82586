//! The shell of the process fleet, with scripts as workers.
#![expect(clippy::disallowed_methods, reason = "tests of a shell: files that its programs write")]

use std::os::unix::fs::PermissionsExt;

use clap::Parser;
use prometheus::Registry;

use super::*;
use crate::config::{Args, Handoff};
use crate::destinations::StreamDestinations;
use crate::dispatch::processes::{ProcessOutcome, Rules as ProcessRules};
use crate::dispatch::{Entry, Rules};
use crate::events::Events;
use crate::lobby::{Lobby, LobbyMetrics, Place};
use liveedgecast_common::clock;
use liveedgecast_common::key::{AppName, StreamId};

/// A fleet whose worker program is a shell script.
struct Fleet {
    lobby: Lobby,
    metrics: ProcessMetrics,
    counted: LobbyMetrics,
    directory: tempfile::TempDir,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn fleet(script: &str) -> Fleet {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join(PROGRAM);
    std::fs::write(&program, format!("#!/bin/sh\nhere={}\n{script}\n", directory.path().display())).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let args = Args::try_parse_from(["x", "--open", "--push-url", "rtmp://a/live/{key}", "--control-secret", "sesame"])
        .unwrap();
    let settings = Settings::resolve(&args, [1; 32]).unwrap();
    let metrics = ProcessMetrics::new(&Registry::new()).unwrap();
    let counted = LobbyMetrics::unregistered();
    let processes = ProcessRules {
        prefix: "worker".to_owned(),
        most: 1,
        capacity: 1,
        cooldown: Duration::ZERO,
        drain: Duration::from_secs(8),
        seed: 1,
    };
    let rules = Rules::default();
    let lobby = Lobby::new(rules, Some(processes), counted.clone(), Events::default());
    let launch = Launch::new(&settings, program, "127.0.0.1:9".parse().unwrap(), ("json", Some("debug")));
    let tasks = [tokio::spawn(lobby.keep_time()), tokio::spawn(run(lobby.processes.clone(), launch, metrics.clone()))];
    Fleet { lobby, metrics, counted, directory, tasks }
}

fn waiting(fleet: &Fleet) -> Place {
    fleet.lobby.places.enter(Entry {
        stream_id: StreamId("s".into()),
        identities: vec![],
        app: AppName::parse("live").unwrap(),
        publisher: None,
        shown_key: None,
        connected: None,
        client: "10.0.0.1:1".parse().unwrap(),
        deadline: clock::now() + Duration::from_secs(600),
        hold: Duration::from_secs(600),
        handoff: Handoff::Auto,
        movable: true,
        destinations: StreamDestinations::default(),
    })
}

impl Fleet {
    fn ended(&self, how: ProcessOutcome) -> u64 {
        self.counted.ended(how)
    }

    /// Waits until the script has written this file, all of it: it is renamed into place.
    async fn written(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        loop {
            if let Ok(text) = std::fs::read_to_string(&path) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_worker_gets_its_arguments_and_nothing_of_our_environment() {
    let fleet = fleet("{ echo \"$@\"; env; } > $here/x; mv $here/x $here/told; exec sleep 1000");
    let _place = waiting(&fleet);
    let told = fleet.written("told").await;
    let (arguments, environment) = told.split_once('\n').unwrap();
    assert_eq!(
        arguments,
        "--activator 127.0.0.1:9 --http-listen 127.0.0.1:0 --capacity 50 --handoff auto \
         --drain-timeout 8s --gather 0s --log-format json --encryption auto --exit-when-orphaned --name worker-1"
    );
    assert!(environment.lines().any(|line| line == "CONTROL_SECRET=sesame"));
    assert!(environment.lines().any(|line| line == "RUST_LOG=debug"));
    // Variables that the shell sets by itself, and variables that are passed on.
    let known = ["CONTROL_SECRET", "RUST_LOG", "PWD", "OLDPWD", "SHLVL", "_", "PATH"];
    for line in environment.lines() {
        let name = line.split('=').next().unwrap();
        assert!(known.contains(&name) || PASSED_ON.contains(&name), "{name}");
    }
    fleet.lobby.drain.kill_processes();
    fleet.lobby.drain.without_processes().await;
    assert_eq!(fleet.ended(ProcessOutcome::Asked), 1);
}

#[tokio::test]
async fn a_worker_that_dies_at_start_is_counted_and_started_again() {
    let fleet = fleet("echo 'no such luck' >&2; exit 3");
    let _place = waiting(&fleet);
    until(|| fleet.ended(ProcessOutcome::AtStart) >= 2).await;
    assert!(fleet.metrics.started.get() >= 2);
}

#[tokio::test]
async fn a_worker_is_asked_to_go_before_it_is_killed() {
    let fleet = fleet("trap 'echo > $here/asked; exit 0' TERM; echo > $here/up; while :; do sleep 0.01; done");
    let place = waiting(&fleet);
    fleet.written("up").await;
    drop(place);
    fleet.lobby.drain.stop_processes();
    fleet.lobby.drain.without_processes().await;
    fleet.written("asked").await;
    assert_eq!((fleet.ended(ProcessOutcome::Asked), fleet.ended(ProcessOutcome::AtStart)), (1, 0));
}

#[tokio::test]
async fn the_last_lines_are_kept_and_a_long_one_is_cut() {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
    let words = tokio::spawn(pass_on(pipe::Receiver::from_owned_fd(ours).unwrap(), "w".into()));
    let mut theirs = pipe::Sender::from_owned_fd(theirs).unwrap();
    for n in 0..20 {
        tokio::io::AsyncWriteExt::write_all(&mut theirs, format!("line {n}\n\n").as_bytes()).await.unwrap();
    }
    tokio::io::AsyncWriteExt::write_all(&mut theirs, "x".repeat(2 * MAX_LINE).as_bytes()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut theirs, b"\nlast without an end").await.unwrap();
    drop(theirs);
    let last = words.await.unwrap();
    assert_eq!(last.len(), LAST_LINES);
    assert!(last.iter().all(|line| line.len() <= LAST_LINE_BYTES), "{last:?}");
    assert_eq!(last.last().unwrap(), "last without an end");
}

#[test]
fn lines_carry_the_name_of_their_worker() {
    assert_eq!(marked(b"{\"level\":\"INFO\"}", "worker-1"), b"{\"process\":\"worker-1\",\"level\":\"INFO\"}\n");
    assert_eq!(marked(b"oh \xff", "worker-1"), b"worker-1: oh \xff\n");
}

#[test]
fn a_listener_on_every_address_is_dialed_on_loopback() {
    for (bound, dialed_at) in [
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("[::]:2", "127.0.0.1:2"),
        ("127.0.0.1:3", "127.0.0.1:3"),
        ("[::1]:4", "[::1]:4"),
        ("10.0.0.1:5", "10.0.0.1:5"),
    ] {
        assert_eq!(dialed(bound.parse().unwrap()), dialed_at.parse().unwrap());
    }
}

#[test]
fn the_program_is_beside_ours_or_the_text_says_where_it_should_be() {
    let dir = tempfile::tempdir().unwrap();
    let ours = dir.path().join("liveedgecast-activator");
    let error = program_beside(&ours).unwrap_err().to_string();
    assert!(error.contains(&dir.path().join(PROGRAM).display().to_string()), "{error}");
    std::fs::write(dir.path().join(PROGRAM), "").unwrap();
    assert_eq!(program_beside(&ours).unwrap(), dir.path().join(PROGRAM));
}
