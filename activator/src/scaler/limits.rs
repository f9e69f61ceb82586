//! Every bound on the resources that KEDA, or a client in its place, can use; and the times of the push.

use std::time::Duration;

/// Time between the first `true` and the second; doubled from there on. KEDA loses a `true` for good when its cache is a moment old.
pub(super) const FIRST_AGAIN: Duration = Duration::from_millis(200);
/// Longest time between two `true`s while a stream waits without capacity: each costs KEDA a patch of a status once workers exist.
pub(super) const MOST_AGAIN: Duration = Duration::from_secs(5);
/// Time between two `true`s while every stream has its place: KEDA's cool-down is five minutes, its polls come more often.
pub(super) const RARELY: Duration = Duration::from_secs(30);
/// Age at which a push stream is ended with OK and a connection is asked to close, so that KEDA finds activators that started later.
pub(super) const MAX_AGE: Duration = Duration::from_secs(300);
/// Age at which a push stream is ended although a publisher waits. Below it the stream stays open for the publisher's sake, because KEDA
/// comes back only after two seconds without push.
pub(super) const UTMOST_AGE: Duration = Duration::from_secs(600);
/// Connections of callers at once: one for each operator of KEDA and each trigger with its own TLS, and a few for people who debug.
/// One more closes the oldest.
pub(super) const MAX_CALLERS: usize = 64;
/// Connections at once that have neither shown a requested certificate nor made a call: probes, and strangers. One more closes the
/// oldest. KEDA is among them for a few milliseconds.
pub(super) const MAX_STRANGERS: usize = 128;
/// Calls at once on one connection: KEDA shares one among all triggers with one address.
pub(super) const MAX_CALLS: u32 = 256;
/// Push streams at once, of all connections: as many triggers.
pub(super) const MAX_STREAMS: usize = 256;
/// Bytes of a request. Trigger metadata is a dozen words.
pub(super) const MAX_MESSAGE: usize = 64 << 10;
/// Bytes of a call's headers.
pub(super) const MAX_HEADERS: u32 = 8 << 10;
/// Silence of a connection after which the server pings it.
pub(super) const PING_EVERY: Duration = Duration::from_secs(20);
/// Time from such a ping to the end of a connection that does not answer.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Time from the connection to the end of the TLS handshake.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that ending push streams have to deliver their OK before connections are asked to close.
pub(super) const END_TIMEOUT: Duration = Duration::from_millis(500);
/// Characters of an app in a metric's name: Kubernetes has no use for long ones.
pub(super) const MAX_APP_IN_NAME: usize = 40;
