//! Every bound on the cost of KEDA, or of a client in its place; and the times of the push.

use std::time::Duration;

/// Time between the first `true` and the second; doubled from there on. KEDA loses a `true` for good when its cache is a moment old.
pub(super) const FIRST_AGAIN: Duration = Duration::from_millis(200);
/// Longest time between two of them while a stream waits without capacity: each costs KEDA a patch of a status once workers exist.
pub(super) const MOST_AGAIN: Duration = Duration::from_secs(5);
/// Time between two of them while every stream has its place: KEDA's cool-down is five minutes, its polls come more often.
pub(super) const RARELY: Duration = Duration::from_secs(30);
/// A push stream is ended with OK after this, and a connection asked to go, so that KEDA finds activators that came later.
pub(super) const MAX_AGE: Duration = Duration::from_secs(300);
/// KEDA comes back after two seconds without push, so a push stream is not ended while a publisher waits; but after this it is.
pub(super) const UTMOST_AGE: Duration = Duration::from_secs(600);
/// Connections of callers at once: one for each operator of KEDA and each trigger with its own TLS; a person or two.
/// One more, and the oldest goes.
pub(super) const MAX_CALLERS: usize = 64;
/// Connections at once that have neither shown a certificate that is asked for nor made a call: probes, and strangers. One more, and the
/// oldest goes; KEDA is one of them for a few milliseconds.
pub(super) const MAX_STRANGERS: usize = 128;
/// Calls at once on one connection: KEDA shares one among all triggers with one address.
pub(super) const MAX_CALLS: u32 = 256;
/// Push streams at once, of all connections: as many triggers.
pub(super) const MAX_STREAMS: usize = 256;
/// Bytes of a request. Trigger metadata is a dozen words.
pub(super) const MAX_MESSAGE: usize = 64 << 10;
/// Bytes of a call's headers.
pub(super) const MAX_HEADERS: u32 = 8 << 10;
/// A connection that is silent for this long is asked for a sign …
pub(super) const PING_EVERY: Duration = Duration::from_secs(20);
/// … which it has this long to give.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Time from the connection to the end of the TLS handshake.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long streams that end may take to be told OK before connections are asked to go.
pub(super) const END_TIMEOUT: Duration = Duration::from_millis(500);
/// Characters of an app in a metric's name: Kubernetes has no use for long ones.
pub(super) const MAX_APP_IN_NAME: usize = 40;
