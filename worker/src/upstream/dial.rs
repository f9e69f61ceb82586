//! From names to addresses, and from addresses to connections. Next room: [`super::tls`] or [`super::connection`].
//!
//! Note: on one host, dialing a port of the ephemeral range without a listener can connect the socket to itself.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::OnceCell;

/// Addresses of one name that are looked at. CDNs return up to 8 of each family.
const MAX_ADDRESSES: usize = 16;
/// Time that bytes may stay unacknowledged, or the peer's window closed, before the kernel gives the connection up. An upstream that stalls
/// for 10 s must be survived; OBS gives up after 15.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
/// Keepalive while nothing is sent (10 s + 3 × 5 s), as towards publishers.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5)).with_retries(3);

/// An answer of the resolver, or the reason why there is none.
type Addresses = Result<Vec<SocketAddr>, String>;
/// Host and port.
type HostAndPort = (String, u16);
type Question = OnceCell<Addresses>;
pub(super) type Lookup = Pin<Box<dyn Future<Output = Addresses>>>;
pub(super) type Dial = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

/// Asks the system's resolver, on blocking threads. Upstreams that ask for the same name at the same time share the question, so that a
/// hundred streams cut off by one upstream are one question and one thread; an answer is never kept for a later one.
#[derive(Clone, Debug, Default)]
pub(super) struct Resolver {
    /// Questions under way. Locked to look one up, never while it is asked: runtimes of several threads share it.
    asking: Arc<Mutex<HashMap<HostAndPort, Weak<Question>>>>,
}

impl Resolver {
    pub(super) fn lookup(&self, host: &str, port: u16) -> Lookup {
        let target = (host.to_owned(), port);
        let question = self.question(&target);
        Box::pin(async move {
            let ask = || async move {
                let found = tokio::net::lookup_host(target).await.map_err(|error| error.to_string())?;
                Ok(found.take(MAX_ADDRESSES).collect())
            };
            question.get_or_init(ask).await.clone()
        })
    }

    /// The question under way for that name, or a new one.
    fn question(&self, target: &HostAndPort) -> Arc<Question> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(question) = asking.get(target).and_then(Weak::upgrade).filter(|question| !question.initialized()) {
            return question;
        }
        asking.retain(|_, question| question.strong_count() > 0);
        let question = Arc::new(Question::new());
        asking.insert(target.clone(), Arc::downgrade(&question));
        question
    }
}

pub(super) fn dial(address: SocketAddr) -> Dial {
    Box::pin(async move {
        let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
        // Commands and media are small writes that nothing may hold back.
        socket.set_nodelay(true)?;
        let options = SockRef::from(&socket);
        options.set_tcp_keepalive(&KEEPALIVE)?;
        options.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        let stream = socket.connect(address).await?;
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(stream)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn questions_for_one_name_at_the_same_time_are_one() {
        let resolver = Resolver::default();
        let target = ("127.0.0.1".to_owned(), 1935);
        let (one, two) = (resolver.question(&target), resolver.question(&target));
        assert!(Arc::ptr_eq(&one, &two));
        let other = resolver.question(&("127.0.0.1".to_owned(), 1936));
        assert!(!Arc::ptr_eq(&one, &other));
        drop((one, two, other));
        let expected = Ok(vec![SocketAddr::from(([127, 0, 0, 1], 1935))]);
        let (one, two) = tokio::join!(resolver.lookup("127.0.0.1", 1935), resolver.lookup("127.0.0.1", 1935));
        assert_eq!((&one, &two), (&expected, &expected));
    }

    #[tokio::test]
    async fn answer_is_not_kept_for_a_later_question() {
        let resolver = Resolver::default();
        let target = ("127.0.0.1".to_owned(), 1935);
        let answered = resolver.question(&target);
        answered.set(Ok(Vec::new())).unwrap();
        // A lookup still holds the old one.
        assert!(!Arc::ptr_eq(&answered, &resolver.question(&target)));
        assert_eq!(resolver.lookup("127.0.0.1", 1935).await.unwrap().len(), 1);
        resolver.question(&("other".to_owned(), 1));
        assert_eq!(resolver.asking.lock().unwrap().len(), 1, "what nobody asks any more is forgotten");
    }

    #[tokio::test]
    async fn question_given_up_by_one_is_asked_by_the_other() {
        let resolver = Resolver::default();
        let mut first = resolver.lookup("localhost", 1935);
        std::future::poll_fn(|cx| {
            let _ = first.as_mut().poll(cx);
            std::task::Poll::Ready(())
        })
        .await;
        let second = resolver.lookup("localhost", 1935);
        drop(first);
        assert!(!second.await.unwrap().is_empty());
    }
}
