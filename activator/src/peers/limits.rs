//! Every bound on the resources that peers can use, and the times of following them.

use std::time::Duration;

use liveedgecast_common::discovery::MAX_ADDRESSES;

/// Failures in a row after which an address that the name does not list is forgotten.
pub(super) const MAX_FAILURES: u32 = 5;
/// Deadline of a connection. In one site a connection takes a millisecond; a lost SYN is repeated after a second.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Longest time from the call to Synced.
pub(super) const SYNC_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence of a peer after which it is pinged.
pub(super) const PING_EVERY: Duration = Duration::from_secs(2);
/// Time for the answer to a ping. A peer that hangs or is cut off has vanished within both times.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two questions to the introducer in the first seconds, when the activators behind it may not have found each other.
pub(super) const ASK_EAGERLY: Duration = Duration::from_millis(200);
/// Longest addition to that pause, which differs from activator to activator.
pub(super) const MAX_LAG: Duration = Duration::from_millis(100);
/// Time within which the other activators, and workers that dial every two seconds, have been heard; after it an empty view is complete.
pub(super) const SYNC_TIME: Duration = Duration::from_secs(3);
/// Time for which the facts of a vanished peer count. Its publishers come back by then, to others or to its successor.
pub(super) const KEEP_VANISHED: Duration = Duration::from_secs(60);
/// Dials of a shared port in a row that lead back to this activator, after which it concludes that no other one listens there. While another
/// one listens, the chance of each is one in two.
pub(super) const SELF_MEETINGS: u32 = 16;
/// Pause between two such dials.
pub(super) const SELF_DELAY: Duration = Duration::from_millis(50);
/// Followers at once: every other activator, and those of a rollout.
pub(super) const MAX_FOLLOWERS: usize = 2 * MAX_ADDRESSES;
/// Most publishers that are noted of one peer: as many as the connections that it may have by default, and more.
pub(super) const MAX_HELD: usize = 64 << 10;
/// Most workers that are noted of one peer: as many as may register with it.
pub(super) const MAX_WORKERS: usize = 1024;
/// Bytes of one peer's facts. A publisher takes some 400: ten thousand held ones, and their workers, fit five times.
pub(super) const MAX_FACTS: usize = 24 << 20;
/// Bytes of all peers' facts, those that have vanished included. The lobby has a copy of the publishers, so this is held twice.
pub(super) const MAX_ALL_FACTS: usize = 96 << 20;
/// Peers at once, those that have vanished included: as many as there are addresses, and as many before them.
pub(super) const MAX_PEERS: usize = 2 * MAX_ADDRESSES;
/// Bytes of a message: a worker with its streams by app is the largest.
pub(super) const MAX_MESSAGE: usize = 1 << 20;
/// Longest time from a request that is passed on to its answer: the other activator answers at once.
pub(super) const ACT_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of a request that is passed on, and of its answer: a body of HTTP, with escapes.
pub(super) const MAX_ACT: usize = 256 << 10;
/// Time between two looks at changes; changes within it are told together.
pub(super) const PAUSE: Duration = Duration::from_millis(10);
/// Unsent messages for one follower. Its task waits for room and looks for changes again only then, so any number would do.
pub(super) const UNSENT: usize = 64;
/// Unread events of all peers. The task of a peer waits for room, and through HTTP/2's flow control so does the peer.
pub(super) const EVENTS: usize = 256;
