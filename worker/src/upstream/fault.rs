//! Classes of failures, one for each kind of trouble, with advice for the person who runs the relay.
//!
//! In: errors of the IO and answers of the upstream. Out: words for log lines, the API and labels of metrics. Used by [`super::machine`],
//! which decides by the class when to ask again.
//!
//! A log line has the class as a field (`fault=no_answer`), the upstream's own words (`why`) and the advice; a counter has the class as its
//! label, and [`Fault::ALL`] as its rows.

use std::io;

use liveedgecast_common::rtmp::client::Class;

/// The class of a failure. [`super::machine::Machine`] says with it whether the upstream has failed for good or is asked again soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The resolver has no address, or no answer.
    UnknownHost,
    /// No server listens at the port.
    ConnectionRefused,
    /// TCP does not get through, or the connection was closed before the server had said anything.
    Unreachable,
    /// The server is connected and does not answer in time.
    NoAnswer,
    /// The certificate is not trusted for that name.
    Untrusted,
    /// The server does not speak RTMP, or not TLS, as we understand it.
    Protocol,
    /// The name is taken.
    BadName,
    /// The server clearly says that this relay may not publish.
    Denied,
    /// The server refuses with a code of its own.
    Refused,
    /// The server closes the connection without a word, after it has answered the handshake.
    Closed,
    /// The server says `Publish.Start` and closes, each time.
    NeverLasted,
    /// The server redirects to a place that is not followed.
    BadRedirect,
    /// A session that had lasted was lost.
    Lost,
}

impl Fault {
    /// Every class: the rows of a metric.
    pub const ALL: [Self; 13] = [
        Self::UnknownHost,
        Self::ConnectionRefused,
        Self::Unreachable,
        Self::NoAnswer,
        Self::Untrusted,
        Self::Protocol,
        Self::BadName,
        Self::Denied,
        Self::Refused,
        Self::Closed,
        Self::NeverLasted,
        Self::BadRedirect,
        Self::Lost,
    ];

    /// The word of logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownHost => "unknown_host",
            Self::ConnectionRefused => "connection_refused",
            Self::Unreachable => "unreachable",
            Self::NoAnswer => "no_answer",
            Self::Untrusted => "untrusted",
            Self::Protocol => "protocol",
            Self::BadName => "bad_name",
            Self::Denied => "denied",
            Self::Refused => "refused",
            Self::Closed => "closed",
            Self::NeverLasted => "never_lasted",
            Self::BadRedirect => "bad_redirect",
            Self::Lost => "lost",
        }
    }

    /// Advice for the person who reads the log. `lived`: the upstream has taken the stream before, so that its key is right.
    #[must_use]
    pub const fn advice(self, lived: bool) -> &'static str {
        match self {
            Self::UnknownHost => "check the host in the push URL, and the DNS of this machine",
            Self::ConnectionRefused => "check host and port of the push URL, and whether the server runs",
            Self::Unreachable => {
                "check host and port of the push URL, routes and firewalls, and whether the server runs"
            }
            Self::NoAnswer => {
                "the server, or a hook that it asks, is slow or stuck: look into its log; we wait longer at each attempt"
            }
            Self::Untrusted => {
                "mend the certificate as the reason says; if nobody else vouches for it, add it or its authority to SSL_CERT_FILE"
            }
            Self::Protocol => {
                "check that an RTMP server listens at that port: rtmps:// is for servers with TLS, rtmp:// for those without"
            }
            Self::BadName => {
                "the upstream still has a publisher of that name: mostly a session of before, which it gives up after a while; \
                 otherwise somebody else publishes with this key"
            }
            Self::Denied => "check application, stream key, user and password in the push URL",
            Self::Refused => "check application and stream key in the push URL, and look into the upstream's log",
            Self::Closed if lived => Self::Lost.advice(lived),
            Self::Closed => {
                "many servers refuse a stream key by closing without a word: check application and stream key, and look into \
                 the upstream's log"
            }
            Self::NeverLasted => {
                "the upstream takes the stream and closes at once, as some do for a wrong stream key or a codec that they do \
                 not take: check the stream key, and look into the upstream's log"
            }
            Self::BadRedirect => "write the address that the upstream redirects to into the push URL, if you trust it",
            Self::Lost => "nothing: it is connected again by itself",
        }
    }

    /// Returns whether waiting does not help, so that a person has to read about it.
    #[must_use]
    pub const fn is_loud(self) -> bool {
        matches!(self, Self::Untrusted | Self::Protocol | Self::Denied | Self::NeverLasted | Self::BadRedirect)
    }

    /// Class of a refusal in words.
    #[must_use]
    pub const fn of_answer(class: Class) -> Self {
        match class {
            Class::BadName => Self::BadName,
            Class::Denied => Self::Denied,
            Class::Refused => Self::Refused,
            Class::Protocol => Self::Protocol,
        }
    }

    /// The class of an error of a socket.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Self {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof, WriteZero,
        };
        match error.kind() {
            ConnectionRefused => Self::ConnectionRefused,
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof | WriteZero => Self::Closed,
            _ => Self::Unreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_class_has_a_word_of_its_own_and_advice() {
        let words: HashSet<_> = Fault::ALL.iter().map(|fault| fault.as_str()).collect();
        assert_eq!(words.len(), Fault::ALL.len());
        for fault in Fault::ALL {
            assert!(fault.as_str().chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'));
            assert!(!fault.advice(false).is_empty(), "{fault:?}");
            let alike = fault.advice(false) == fault.advice(true);
            assert_eq!(alike, fault != Fault::Closed, "{fault:?}: a stream that was live had the right key");
        }
    }
}
