//! The task of the peers: asks for addresses, makes the calls that the machine wants, tells the lobby of publishers that wait elsewhere.
//! In: names, answers of the introducer, events of calls. Out: calls; the machine's news for the lobby. Next: `lobby`.
#![expect(clippy::disallowed_methods, reason = "shell: tasks, the clock, name resolution")]

use std::collections::HashMap;
use std::future::pending;

use liveedgecast_common::clock::now;
use liveedgecast_common::discovery::AttemptId;
use liveedgecast_common::encryption::Protection;
use liveedgecast_common::key::{LogSafe, Secret};
use liveedgecast_common::{event, introduce};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep_until;
use tracing::info;

use super::cluster::Cluster;
use super::follow::PeerCall;
use super::limits::EVENTS;
use super::machine::{Input, Output, Turn};
use crate::config::PeerAddress;
use crate::dispatch::BaselineCounter;
use crate::net::CurrentTokens;

/// The ways by which the other activators are found.
#[derive(Clone, Debug)]
pub struct Search {
    /// Names that resolve to all activators.
    pub addresses: Vec<PeerAddress>,
    /// Name or address that leads to any one activator, which tells of the others.
    pub introducer: Option<PeerAddress>,
    /// Connections to them that are encrypted.
    pub protection: Protection,
    /// Control secret, which all activators and workers share.
    pub secret: Secret,
    /// Secrets that activators prove to each other.
    pub activators: CurrentTokens,
}

/// Follows the other activators until the future is dropped.
pub async fn run(cluster: Cluster, search: Search) {
    let (events, mut happened) = mpsc::channel(EVENTS);
    let mut task = PeersTask {
        cluster,
        search,
        events,
        calls: HashMap::new(),
        tasks: JoinSet::new(),
        counter: BaselineCounter::Unsure,
    };
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

struct PeersTask {
    cluster: Cluster,
    search: Search,
    events: mpsc::Sender<Input>,
    calls: HashMap<AttemptId, AbortHandle>,
    tasks: JoinSet<()>,
    /// The activator that counts the time of missing workers, as the lobby was told.
    counter: BaselineCounter,
}

impl PeersTask {
    /// Carries out the machine's orders.
    fn act(&mut self) {
        let mut changed = false;
        loop {
            // The lobby has a lock of its own, so the machine's lock is not held meanwhile.
            let next = self.cluster.peers().and_then(|mut peers| Some((peers.poll_output()?, peers.me().clone())));
            let Some((output, me)) = next else { break };
            match output {
                Output::Resolve => {
                    self.tasks.spawn(resolve(self.search.addresses.clone(), self.events.clone()));
                }
                Output::Ask => {
                    self.tasks.spawn(ask(self.search.clone(), self.events.clone()));
                }
                Output::Follow(attempt, address) => {
                    let (protection, secrets) = (self.search.protection.clone(), self.search.activators.clone());
                    let (name, control_port, events) = (me.name, me.control.port(), self.events.clone());
                    let call = PeerCall { attempt, address, protection, secrets, name, control_port, events };
                    self.calls.insert(attempt, self.tasks.spawn(call.run()));
                }
                Output::HangUp(attempt) => self.calls.remove(&attempt).into_iter().for_each(|call| call.abort()),
                Output::Turned(peer, turn) => log(&peer, turn),
                Output::Held(peer, number, held) => self.cluster.news.elsewhere(peer, number, held),
                Output::Forget(peer) => self.cluster.news.forget_peer(peer),
                Output::Met(address, is_there) => self.cluster.news.met(address, is_there),
                Output::Changed => changed = true,
            }
        }
        self.calls.retain(|_, call| !call.is_finished());
        let counter = self.cluster.peers().map(|peers| peers.baseline_counter(now()));
        if let Some(counter) = counter.filter(|counter| *counter != self.counter) {
            self.counter = counter;
            self.cluster.news.counts(counter);
        }
        if changed {
            self.cluster.news.changed();
        }
    }
}

fn log(peer: &str, turn: Turn) {
    let peer = LogSafe(peer);
    match turn {
        Turn::Synced => info!(event = event::PEER_SYNCED, %peer, "activator synced"),
        Turn::Vanished => info!(event = event::PEER_VANISHED, %peer, "activator vanished"),
        Turn::Left => info!(event = event::PEER_LEFT, %peer, "activator left"),
    }
}

/// Asks for every address of all activators.
async fn resolve(addresses: Vec<PeerAddress>, events: mpsc::Sender<Input>) {
    let (mut all, mut answered) = (Vec::new(), false);
    for PeerAddress { host, port } in addresses {
        let found = introduce::resolve(&host, port).await;
        answered |= found.is_some();
        all.extend(found.into_iter().flatten());
    }
    let _ = events.send(if answered { Input::Resolved(all) } else { Input::Unresolved }).await;
}

/// Asks the introducer for the addresses of all activators that it knows.
async fn ask(search: Search, events: mpsc::Sender<Input>) {
    let Some(PeerAddress { host, port }) = search.introducer else { return };
    let _ = events.send(Input::Introduced(introduce::ask(&host, port, &search.protection, &search.secret).await)).await;
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
