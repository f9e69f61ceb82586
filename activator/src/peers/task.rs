//! The task of the peers: asks for addresses, makes the calls that the machine wants, tells the lobby who waits elsewhere.
//! In: names, what the introducer and peers say. Out: calls; the machine's word to the lobby.
#![expect(clippy::disallowed_methods, reason = "shell: tasks, the clock, name resolution")]

use std::collections::HashMap;
use std::future::pending;

use liveedgecast_common::clock::now;
use liveedgecast_common::introduce;
use liveedgecast_common::key::{LogSafe, Secret};
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info};

use super::cluster::Cluster;
use super::follow::follow;
use super::limits::{EVENTS, RESOLVE_TIMEOUT};
use super::machine::{Input, LinkId, Output};
use super::proto::Hello;
use crate::config::PeerAddress;

/// How to find the others.
#[derive(Clone, Debug)]
pub struct Search {
    /// Where they are.
    pub addresses: Vec<PeerAddress>,
    /// Where one of them is, whichever, which tells of the others.
    pub introducer: Option<PeerAddress>,
    /// Shared with them.
    pub secret: Secret,
}

/// Follows the other activators, until dropped.
pub async fn run(cluster: Cluster, search: Search) {
    let (events, mut happened) = mpsc::channel(EVENTS);
    let mut task = Task { cluster, search, events, calls: HashMap::new(), tasks: JoinSet::new() };
    loop {
        task.act();
        let due = task.cluster.peers().and_then(|peers| peers.poll_timeout());
        let due = async {
            match due {
                Some(at) => sleep_until(at.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            Some(input) = happened.recv() => {
                let mut inputs = vec![input];
                while let Some(input) = happened.try_recv().ok().filter(|_| inputs.len() < EVENTS) {
                    inputs.push(input);
                }
                if let Some(mut peers) = task.cluster.peers() {
                    inputs.into_iter().for_each(|input| peers.handle(now(), input));
                }
            }
            () = task.cluster.stirred() => {}
            () = due => task.cluster.peers().into_iter().for_each(|mut peers| peers.handle_timeout(now())),
            Some(_) = task.tasks.join_next() => {}
        }
    }
}

struct Task {
    cluster: Cluster,
    search: Search,
    events: mpsc::Sender<Input>,
    calls: HashMap<LinkId, AbortHandle>,
    tasks: JoinSet<()>,
}

impl Task {
    /// Does all that the machine asks for.
    fn act(&mut self) {
        let mut changed = false;
        loop {
            // The lobby has a lock of its own: the machine's is not held meanwhile.
            let next = self.cluster.peers().and_then(|mut peers| Some((peers.poll_output()?, peers.me().clone())));
            let Some((output, me)) = next else { break };
            match output {
                Output::Resolve => {
                    self.tasks.spawn(resolve(self.search.addresses.clone(), self.events.clone()));
                }
                Output::Ask => {
                    self.tasks.spawn(ask(self.search.clone(), self.events.clone()));
                }
                Output::Follow(link, address) => {
                    let hello = Hello { activator: me.name, control_port: me.control.port().into() };
                    let call = follow(link, address, self.search.secret.clone(), hello, self.events.clone());
                    self.calls.insert(link, self.tasks.spawn(call));
                }
                Output::Hangup(link) => self.calls.remove(&link).into_iter().for_each(|call| call.abort()),
                Output::Note(peer, word) => info!(peer = %LogSafe(&peer), "activator {word}"),
                Output::Held(peer, number, held) => self.cluster.news.elsewhere(peer, number, held),
                Output::Forget(peer) => self.cluster.news.forget_peer(peer),
                Output::Met(address, is_there) => self.cluster.news.met(address, is_there),
                Output::Changed => changed = true,
            }
        }
        self.calls.retain(|_, call| !call.is_finished());
        if changed {
            self.cluster.news.changed();
        }
    }
}

/// Every address of all of them.
async fn resolve(addresses: Vec<PeerAddress>, events: mpsc::Sender<Input>) {
    let (mut all, mut answered) = (Vec::new(), false);
    for address in addresses {
        match timeout(RESOLVE_TIMEOUT, lookup_host((address.host.as_str(), address.port))).await {
            Ok(Ok(found)) => {
                answered = true;
                all.extend(found);
            }
            Ok(Err(error)) => debug!(%address, %error, "the activators' name cannot be resolved"),
            Err(_) => debug!(%address, "no answer to the question for the activators' name"),
        }
    }
    let _ = events.send(if answered { Input::Resolved(all) } else { Input::Unresolved }).await;
}

/// Everybody whom the introducer knows.
async fn ask(search: Search, events: mpsc::Sender<Input>) {
    let Some(PeerAddress { host, port }) = search.introducer else { return };
    let _ = events.send(Input::Introduced(introduce::ask(&host, port, &search.secret).await)).await;
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
