//! What tests of a handoff begin with.

use std::time::Duration;

use liveedgecast_common::handoff::preface::Step;
use liveedgecast_common::handoff::{ActivatorSide, Assignment, Policy, SessionKeys, Snapshot, Transport, WorkerSide};
use liveedgecast_common::key::{AppName, Identity, Secret, StreamId, StreamKey};
use liveedgecast_common::rtmp::server::ServerSession;

/// Keys as a preface makes them.
pub(crate) fn keys() -> SessionKeys {
    let secret = Secret::new("secret");
    let (mut worker, hello) = WorkerSide::new(&secret, [1; 16], [2; 32]);
    let mut activator = ActivatorSide::new(&secret, [3; 32]);
    let answer = activator.handle(&hello).output;
    let proof = worker.handle(&answer).output;
    match activator.handle(&proof).step {
        Step::Done(keys) => keys,
        other => panic!("{other:?}"),
    }
}

/// A session that has read nothing but the handshake, as of a position.
pub(crate) fn snapshot(position: u64) -> Snapshot {
    Snapshot { session: ServerSession::new(position).state(), stream: None, unread: Vec::new() }
}

/// A stream without a destination.
pub(crate) fn assignment(transport: Transport, epoch: u64, snapshot: Snapshot) -> Assignment {
    let app = AppName::parse("live").unwrap();
    let key = StreamKey::parse("alpha").unwrap();
    Assignment {
        stream_id: StreamId::from_bytes([7; 8]),
        epoch,
        activator: "test".to_owned(),
        client: "127.0.0.1:1".parse().unwrap(),
        identities: vec![Identity::of_stream(&Secret::new("secret"), &app, &key)],
        app,
        key,
        destinations: Vec::new(),
        policy: Policy {
            hold_left: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            replay_time: Duration::from_secs(4),
            replay_bytes: 8 << 20,
            lag_time: Duration::from_secs(2),
            lag_bytes: 8 << 20,
        },
        transport,
        resumed: false,
        snapshot,
    }
}
