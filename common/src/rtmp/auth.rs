//! Credentials that an upstream asks for in a refused `connect`: Adobe `authmod=adobe` and Limelight `authmod=llnw`.
//!
//! In: the description of `NetConnection.Connect.Rejected`. Out: what is appended to `app` and `tcUrl` of the next connection. Next room:
//! [`super::client`].
//!
//! What surprised us: it takes three connections. The first is refused with the name of the scheme, the second says who we are and is
//! refused with a challenge, the third answers it. Values are neither quoted nor escaped, in either direction.

use std::fmt;

use crate::url::Credentials;

/// How an upstream wants to be convinced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Adobe's access manager, also Akamai's and Wowza's.
    Adobe,
    /// Limelight: HTTP digest in another coat.
    Limelight,
}

/// What an upstream asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    scheme: Scheme,
}

impl Challenge {
    /// Which scheme.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenge").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

/// What the next connection says. A secret: `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer(String);

impl Answer {
    /// The answer to a challenge. `nonce`: 32 random bits, fresh for every answer.
    #[must_use]
    pub fn new(challenge: &Challenge, credentials: &Credentials, app: &str, nonce: u32) -> Self {
        let _ = (challenge, credentials, app, nonce);
        todo!()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer(…)")
    }
}
