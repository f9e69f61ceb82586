//! Every bound on what peers may cost, and the times of following them.

use std::time::Duration;

use liveedgecast_common::discovery::MAX_ADDRESSES;

/// Failures in a row after which an address that the name does not list is forgotten.
pub(super) const MAX_FAILURES: u32 = 5;
/// How long a connection may take. In one site it takes a millisecond; a SYN that got lost is repeated after a second.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Longest time from the call to Synced.
pub(super) const SYNC_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that is silent for this long is asked for a sign …
pub(super) const PING_EVERY: Duration = Duration::from_secs(2);
/// … which it has this long to give: a peer that is stopped or cut off has vanished within both.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two questions to the introducer in our first seconds, when those that it leads to may not have found each other.
pub(super) const ASK_EAGERLY: Duration = Duration::from_millis(200);
/// Longest addition to that, by which activators differ.
pub(super) const MAX_LAG: Duration = Duration::from_millis(100);
/// How long others, and workers that dial every two seconds, need until we can be sure that there is nothing more to learn.
pub(super) const SYNC_TIME: Duration = Duration::from_secs(3);
/// The facts of a peer that vanished count for this long: its publishers come back by then, to others or to its successor.
pub(super) const KEEP_VANISHED: Duration = Duration::from_secs(60);
/// Dials of a shared port that led to ourselves, in a row. While another is there the chance of each is one in two; after so many, no other
/// is there …
pub(super) const SELF_MEETINGS: u32 = 16;
/// … with this pause between two of them.
pub(super) const SELF_DELAY: Duration = Duration::from_millis(50);
/// Followers at once: every other activator, and those of a rollout.
pub(super) const MAX_FOLLOWERS: usize = 2 * MAX_ADDRESSES;
/// Publishers of one peer that are noted: as many as it may have connections by default, and more.
pub(super) const MAX_HELD: usize = 64 << 10;
/// Workers of one peer that are noted: as many as may register with it.
pub(super) const MAX_WORKERS: usize = 1024;
/// Bytes of one peer's facts. A publisher takes some 250: ten thousand held ones, and their workers, fit five times.
pub(super) const MAX_FACTS: usize = 16 << 20;
/// Bytes of all peers' facts, those that have vanished included. The lobby has a copy of the publishers, so this is held twice.
pub(super) const MAX_ALL_FACTS: usize = 64 << 20;
/// Peers at once, those that have vanished included: as many as there are addresses, and as many before them.
pub(super) const MAX_PEERS: usize = 2 * MAX_ADDRESSES;
/// Bytes of a message: a worker with its streams by app is the largest.
pub(super) const MAX_MESSAGE: usize = 1 << 20;
/// Changes within this time are told together: it passes between two looks.
pub(super) const PAUSE: Duration = Duration::from_millis(10);
/// Messages that wait to be sent to one follower. Its task waits for room, and looks for changes again only then, so any number would do.
pub(super) const UNSENT: usize = 64;
/// Events of all peers that were not looked at yet. A peer's task waits for room, and by way of HTTP/2 the peer does.
pub(super) const EVENTS: usize = 256;
