//! The waits between two attempts at an upstream, by the class of its last failure. Pure; used by [`super::machine`].
//!
//! Note: an upstream that is away for some seconds must be asked several times a second to be back within one; an upstream that refuses may
//! lock an account that is asked often; and one that is slow gets slower with each attempt.

use std::time::Duration;

use liveedgecast_common::backoff::Backoff;

use super::fault::Fault;

/// First wait and longest wait during a flap.
pub(super) const EAGER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(800));
/// Waits after a flap, for an upstream that does not answer at all.
pub(super) const UNREACHABLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// Waits after a close without a reason, or with an unknown one, by an upstream that has worked before.
pub(super) const GONE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));
/// Waits after such a close by an upstream that has never worked: it is probably a refusal. It can be a stale session too, so the third
/// attempt comes after some seconds.
pub(super) const DOUBTFUL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(15));
/// Waits for a taken name: mostly a stale session of this relay, which nginx-rtmp keeps for up to 90 s.
pub(super) const BAD_NAME: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// Waits where a person has to change something first; asking often can lock an account.
pub(super) const DENIED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Waits for a server that does not speak RTMP, or has another idea of it.
pub(super) const PROTOCOL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// Waits for a server that does not answer in time: it is overloaded, and each attempt is more load.
pub(super) const SLOW: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// The back-offs of one upstream, one for each kind of trouble.
#[derive(Debug)]
pub(super) struct Patience {
    eager: Backoff,
    unreachable: Backoff,
    slow: Backoff,
    gone: Backoff,
    doubtful: Backoff,
    bad_name: Backoff,
    denied: Backoff,
    protocol: Backoff,
}

/// The part of an upstream's history that counts for the next wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct History {
    /// The first failure was a short while ago.
    pub(super) flap: bool,
    /// A session has been live.
    pub(super) lived: bool,
    /// Waiting alone does not help.
    pub(super) failed: bool,
}

impl Patience {
    pub(super) fn new(seed: u64) -> Self {
        let backoff = |(first, most)| Backoff::new(first, most, seed);
        Self {
            eager: backoff(EAGER),
            unreachable: backoff(UNREACHABLE),
            slow: backoff(SLOW),
            gone: backoff(GONE),
            doubtful: backoff(DOUBTFUL),
            bad_name: backoff(BAD_NAME),
            denied: backoff(DENIED),
            protocol: backoff(PROTOCOL),
        }
    }

    /// Begins every back-off anew: the upstream has proved that it works.
    pub(super) fn reset(&mut self) {
        let Self { eager, unreachable, slow, gone, doubtful, bad_name, denied, protocol } = self;
        for backoff in [eager, unreachable, slow, gone, doubtful, bad_name, denied, protocol] {
            backoff.reset();
        }
    }

    /// Returns the next wait after a failure of this class.
    pub(super) fn failed(&mut self, fault: Fault, history: History) -> Duration {
        let backoff = match fault {
            Fault::UnknownHost | Fault::ConnectionRefused | Fault::Unreachable | Fault::Lost if history.flap => {
                &mut self.eager
            }
            Fault::UnknownHost | Fault::ConnectionRefused | Fault::Unreachable | Fault::Lost => &mut self.unreachable,
            Fault::NoAnswer => &mut self.slow,
            Fault::BadName => &mut self.bad_name,
            Fault::Protocol => &mut self.protocol,
            Fault::Closed | Fault::Refused if history.failed => &mut self.denied,
            Fault::Closed | Fault::Refused if history.lived => &mut self.gone,
            Fault::Closed | Fault::Refused => &mut self.doubtful,
            Fault::Untrusted | Fault::Denied | Fault::NeverLasted | Fault::BadRedirect => &mut self.denied,
        };
        backoff.failed()
    }
}
