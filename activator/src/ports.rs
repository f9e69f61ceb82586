//! The ports. In: addresses. Out: listeners, all bound before any is served; and, where a successor may listen there too (`REUSE_PORT`),
//! the order in which they are left to it. Next: `accept`, and each listener's own room.
//!
//! Two activators on the same ports are two of several ([`peers`](crate::peers)), each with a control port of its own beside the shared
//! one. New connections reach either, and each answers for both. The predecessor that is asked to stop steers new ones to the successor,
//! accepts its own backlog, and closes: connections in the backlog of a listener that closes are reset. Without a successor it keeps
//! all but the ports of publishers, since workers and KEDA have no other activator.
#![expect(clippy::disallowed_methods, reason = "shell: a moment between two steps")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::Context as _;
use liveedgecast_common::event;
use liveedgecast_common::listen::{listen, listen_shared};
use liveedgecast_common::sys::reuse_port;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Listen, dialed};
use crate::drain::Phase;
use crate::peers::Cluster;

/// Time between steering new connections to the successor and closing the ports: a handshake that has begun ends here, also over a slow
/// line.
const ON_THEIR_WAY: Duration = Duration::from_secs(1);

/// Listeners of the process.
pub(crate) struct Ports {
    pub(crate) rtmp: TcpListener,
    pub(crate) rtmps: Option<TcpListener>,
    pub(crate) http: TcpListener,
    pub(crate) control: TcpListener,
    /// Control port of this activator alone, if the other one is shared.
    pub(crate) own_control: Option<TcpListener>,
    pub(crate) link: TcpListener,
    pub(crate) scaler: Option<TcpListener>,
}

impl Ports {
    /// Binds them.
    ///
    /// # Errors
    /// One cannot be bound; the text says which.
    pub(crate) fn bind(at: &Listen) -> anyhow::Result<Self> {
        let bind = if at.shared { listen_shared } else { listen };
        Ok(Self {
            rtmp: bind(at.rtmp).context("RTMP_LISTEN")?,
            rtmps: at.rtmps.map(bind).transpose().context("RTMPS_LISTEN")?,
            http: bind(at.http).context("HTTP_LISTEN")?,
            control: bind(at.control).context("CONTROL_LISTEN")?,
            own_control: at.shared.then(|| listen(own(at.control))).transpose().context("a control port of our own")?,
            // A worker learns it from the activator that holds the publisher, so it must not be shared.
            link: listen(at.link).context("LINK_LISTEN")?,
            scaler: at.scaler.map(bind).transpose().context("SCALER_LISTEN")?,
        })
    }

    /// Control address that leads to this activator alone, for other activators and workers.
    pub(crate) fn found_at(&self) -> io::Result<SocketAddr> {
        self.own_control.as_ref().unwrap_or(&self.control).local_addr()
    }

    /// Duplicates of the listeners that are left to a successor; `None` if the ports are not shared.
    pub(crate) fn shared(&self) -> io::Result<Option<SharedPorts>> {
        if self.own_control.is_none() {
            return Ok(None);
        }
        let others = [Some(&self.http), Some(&self.control), self.scaler.as_ref()];
        let others = others.into_iter().flatten().map(|listener| listener.as_fd().try_clone_to_owned());
        let publishers = [Some(&self.rtmp), self.rtmps.as_ref()];
        let publishers = publishers.into_iter().flatten().map(|listener| listener.as_fd().try_clone_to_owned());
        Ok(Some(SharedPorts {
            publishers: publishers.collect::<Result<_, _>>()?,
            others: others.collect::<Result<_, _>>()?,
        }))
    }
}

/// An address for a second control port, at any port.
fn own(control: SocketAddr) -> SocketAddr {
    SocketAddr::new(dialed(control).ip(), 0)
}

/// Duplicates of the listeners: they have to be dropped for the ports to close.
pub(crate) struct SharedPorts {
    /// The ports of publishers.
    publishers: Vec<OwnedFd>,
    others: Vec<OwnedFd>,
}

impl SharedPorts {
    /// Leaves the ports to a successor once this process goes down and the successor serves. Then `release` is cancelled, which closes all
    /// but the ports of publishers; those close by the list of going down.
    pub(crate) async fn leave(
        mut self,
        cluster: Cluster,
        mut phase: watch::Receiver<Phase>,
        release: CancellationToken,
    ) {
        if phase.wait_for(|phase| *phase > Phase::Serving).await.is_err() {
            return;
        }
        let mut changes = cluster.changes();
        loop {
            changes.mark_unchanged();
            if *phase.borrow_and_update() >= Phase::StopAccepting {
                self.publishers.clear();
            }
            if cluster.has_heir() {
                break;
            }
            let changed = tokio::select! {
                changed = changes.changed() => changed,
                changed = phase.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
        info!(event = event::PORTS_LEFT, "ports left to the successor");
        for listener in self.publishers.iter().chain(&self.others) {
            if let Err(error) = reuse_port::steer_to_successor(listener) {
                warn!(event = event::PORTS_NOT_STEERED, %error, "new connections not steered to the successor: it gets those that come after our ports are closed");
            }
        }
        drop(self);
        sleep(ON_THEIR_WAY).await;
        release.cancel();
    }
}
