//! Every bound on what peers may cost, and the times of following them.

use std::time::Duration;

/// After the first failure to follow an address; doubled from there on.
pub(super) const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Between two attempts at most: what an activator that comes back costs at most in waiting.
pub(super) const MOST_DELAY: Duration = Duration::from_secs(2);
/// How long a connection may take. In one site it takes a millisecond; a SYN that got lost is repeated after a second.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// From the call to Synced.
pub(super) const SYNC_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that is silent for this long is asked for a sign …
pub(super) const PING_EVERY: Duration = Duration::from_secs(2);
/// … which it has this long to give: who is stopped or cut off has vanished within both.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two questions for the addresses.
pub(super) const RESOLVE_EVERY: Duration = Duration::from_secs(5);
/// The same while there was no answer yet.
pub(super) const RESOLVE_EAGERLY: Duration = Duration::from_millis(500);
/// Between two questions for the introducer in our first seconds, when those that it leads to may not have found each other.
pub(super) const ASK_EAGERLY: Duration = Duration::from_millis(200);
/// Added to that, more or less of it.
pub(super) const MOST_LAG: Duration = Duration::from_millis(100);
/// How long a name server may take.
pub(super) const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long others, and workers that dial every two seconds, need until we can be sure that there is nothing more to learn.
pub(super) const SYNC_TIME: Duration = Duration::from_secs(3);
/// The last word of a peer that vanished counts for this long: its publishers come back by then, to others or to its successor.
pub(super) const KEEP_VANISHED: Duration = Duration::from_secs(60);
/// On a port that we share, ourselves are found with a chance of one in two while another is there. So often in a row, and nobody is …
pub(super) const SELF_MEETINGS: u32 = 16;
/// … after so long each.
pub(super) const SELF_DELAY: Duration = Duration::from_millis(50);
/// Addresses at most: a site has a few activators; a wrong name must not make us dial the world.
pub(super) const MAX_ADDRESSES: usize = 64;
/// Followers at once: every other activator, and those of a rollout.
pub(super) const MAX_FOLLOWERS: usize = 2 * MAX_ADDRESSES;
/// An address that only the peer itself has named is given up after so many failures in a row.
pub(super) const MAX_FAILURES: u32 = 5;
/// Publishers of one peer that are listened to: as many as it may have connections by default, and more.
pub(super) const MAX_HELD: usize = 64 << 10;
/// Workers of one peer that are listened to: as many as may register with it.
pub(super) const MAX_WORKERS: usize = 1024;
/// Bytes of what one peer tells. A publisher takes some 250: ten thousand held ones, and their workers, fit five times.
pub(super) const MAX_FACTS: usize = 16 << 20;
/// Bytes of what all peers tell, those that have vanished included. The lobby has a copy of the publishers, so this is held twice.
pub(super) const MAX_ALL_FACTS: usize = 64 << 20;
/// Peers at once, those that have vanished included: as many as there are addresses, and as many before them.
pub(super) const MAX_PEERS: usize = 2 * MAX_ADDRESSES;
/// Identities of one stream: its own, and one for each upstream that it may have.
pub(super) const MAX_IDENTITIES: usize = 33;
/// Bytes of a message: a worker with its streams by app is the largest.
pub(super) const MAX_MESSAGE: usize = 1 << 20;
/// A crowd of changes is told as one: after a look this long passes before the next.
pub(super) const PAUSE: Duration = Duration::from_millis(10);
/// Messages that wait to be sent to one follower. Who tells waits for room, and looks again only then, so any number would do.
pub(super) const UNSENT: usize = 64;
/// Events of all peers that were not looked at yet. A peer's task waits for room, and by way of HTTP/2 the peer does.
pub(super) const EVENTS: usize = 256;
