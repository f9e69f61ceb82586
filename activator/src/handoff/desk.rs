//! Where workers come for what they were offered. In: connections on an abstract Unix socket and on the link listener. Out: the ones
//! that present a token somebody waits for, with a proof of the control secret.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use liveedgecast_common::key::Secret;
use tokio::net::TcpListener;

/// What a worker presents to get the stream it was offered; good once. It is a secret: whoever has it and the control secret gets the
/// stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 16]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The listeners. Dropping the last clone closes them.
#[derive(Clone)]
pub struct Desk {}

impl Desk {
    /// Opens the abstract Unix socket and serves it and `link`.
    ///
    /// # Errors
    /// The Unix socket can not be bound.
    pub fn open(link: TcpListener, secret: Secret) -> io::Result<Self> {
        let _ = (link, secret);
        todo!()
    }

    /// The connection of the worker that will present `token`. Dropping it forgets the token.
    pub fn expect(&self, token: Token) -> Expected {
        let _ = token;
        todo!()
    }

    /// Name of the abstract Unix socket, without its leading NUL, for [`liveedgecast_common::control::Welcome`].
    pub fn socket_name(&self) -> String {
        todo!()
    }

    /// Port of the link listener.
    pub fn link_port(&self) -> u16 {
        todo!()
    }
}

/// A worker that is expected.
pub struct Expected {}

impl Future for Expected {
    type Output = HandoffConnection;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<HandoffConnection> {
        todo!()
    }
}

/// A worker that has come and proved that it is one.
pub struct HandoffConnection {}
