//! The limits of a worker's word that it has a stream. In: a reported session, with what this activator and the others know of the stream. Out:
//! the session as far as it can be true, or nothing. Pure.
//!
//! ```text
//!  the stream's publisher is here      the worker was offered the stream under the session's epoch or a later one; otherwise: nothing
//!  … was here, or the worker said so   as far as the last report of the same stream was believed
//!  … is at another activator           that activator names the worker
//!  nobody knows of it                  the session counts as load alone; in our first minute it is believed
//! ```
//! An identity decides where a publisher goes, and with it the publisher's key. So a worker gets no publisher by naming an identity that nobody has given
//! it. A worker that dials in again shows the key that it has made for itself when it started, and is believed what it was before; nobody else can
//! take its place by taking its name.
//!
//! Note: all workers and activators know one control secret. What an activator says of its publishers is believed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use liveedgecast_common::control::{InstanceKey, Session, SessionState};
use liveedgecast_common::key::Identity;

use super::dispatcher::Dispatcher;
use super::messages::Output;
use super::workers::{CallId, Introduction};

/// Time from our start in which workers are believed: the streams that they have came through an activator that is gone, and their publishers come
/// back to us.
pub(super) const TRUSTING: Duration = Duration::from_secs(60);
/// Time in which a worker whose call has ended may dial in again as the same one. It tries every second or so, and keeps what it has.
pub(super) const DEPARTED: Duration = Duration::from_secs(60);
/// Workers that are remembered so; the one that left first makes room.
const MAX_DEPARTED: usize = 1024;

/// A worker whose call has ended.
#[derive(Debug)]
pub(super) struct DepartedWorker {
    key: InstanceKey,
    call: CallId,
    /// The identities of each stream, as they were believed.
    sessions: BTreeMap<String, Vec<Identity>>,
    until: Instant,
}

/// The workers that may come back, by name.
#[derive(Debug, Default)]
pub(super) struct DepartedWorkers(BTreeMap<String, DepartedWorker>);

impl DepartedWorkers {
    fn keep(&mut self, now: Instant, name: String, worker: DepartedWorker) {
        self.0.retain(|_, departed| now < departed.until);
        if self.0.len() >= MAX_DEPARTED
            && let Some(first) = self.0.iter().min_by_key(|(_, departed)| departed.until).map(|(name, _)| name.clone())
        {
            self.0.remove(&first);
        }
        self.0.insert(name, worker);
    }

    /// The worker of this name, if it is the one that shows the key.
    fn take(&mut self, now: Instant, name: &str, key: Option<InstanceKey>) -> Option<DepartedWorker> {
        let same = |departed: &DepartedWorker| now < departed.until && key == Some(departed.key);
        if !self.0.get(name).is_some_and(same) {
            return None;
        }
        self.0.remove(name)
    }
}

impl Dispatcher {
    /// The part of a report that is believed; `None`: the stream is ours, and was not given to this worker.
    pub(crate) fn credited(&self, now: Instant, call: CallId, session: &Session) -> Option<Session> {
        let worker = self.workers.get(call)?;
        let before = worker.sessions.get(&session.stream_id).map(|known| known.identities.as_slice());
        self.believed(now, call, &worker.name, before.unwrap_or_default(), session)
    }

    /// The name of the worker, if its report of a stream is believed.
    pub(crate) fn reporter(&self, now: Instant, call: CallId, session: &Session) -> Option<&str> {
        let credited = self.credited(now, call, session)?;
        let known = !credited.identities.is_empty() || self.by_id.contains_key(&session.stream_id);
        self.name_of(call).filter(|_| known)
    }

    /// `before`: the identities of the stream's last report.
    fn believed(
        &self,
        now: Instant,
        call: CallId,
        name: &str,
        before: &[Identity],
        session: &Session,
    ) -> Option<Session> {
        let mut session = session.clone();
        let here = self.by_id.get(&session.stream_id).and_then(|key| self.places.get(key));
        if let Some(held) = here {
            held.offered_to.get(&call).filter(|given| session.epoch <= **given)?;
            session.identities.retain(|one| held.entry.identities.contains(one) || before.contains(one));
        } else if !before.is_empty() {
            session.identities.retain(|one| before.contains(one));
        } else {
            let elsewhere = self.others.holder(&session.stream_id).map(|(_, twin)| twin);
            match elsewhere.filter(|twin| twin.worker == name) {
                Some(twin) => session.identities.retain(|one| twin.identities.contains(one)),
                None if self.is_trusting(now) => {}
                None => session.identities.clear(),
            }
        }
        Some(session)
    }

    /// Notes the first moment, from which workers are believed for a while.
    pub(super) fn begin(&mut self, now: Instant) {
        self.trusting_until.get_or_insert(now + TRUSTING);
    }

    fn is_trusting(&self, now: Instant) -> bool {
        self.trusting_until.is_none_or(|until| now < until)
    }

    /// Takes the sessions of a worker that registers, as far as they are believed. A worker that was here before has what it had.
    pub(super) fn recognise(&mut self, now: Instant, call: CallId, introduction: &mut Introduction) {
        let departed = self.departed.take(now, &introduction.name, introduction.key);
        if let Some(departed) = &departed {
            for held in self.places.values_mut() {
                let given = held.offered_to.remove(&departed.call);
                held.offered_to.extend(given.map(|epoch| (call, epoch)));
            }
        }
        let told = std::mem::take(&mut introduction.sessions);
        for session in told {
            let before = departed.as_ref().and_then(|departed| departed.sessions.get(&session.stream_id));
            let before = before.map(Vec::as_slice).unwrap_or_default();
            match self.believed(now, call, &introduction.name, before, &session) {
                Some(session) => introduction.sessions.push(session),
                None => self.disbelieve(call, introduction.name.clone(), &session),
            }
        }
    }

    /// Reports a session that is not believed. A worker that has an old claim on the stream ends it.
    pub(super) fn disbelieve(&mut self, call: CallId, name: String, session: &Session) {
        let held = self.by_id.get(&session.stream_id).and_then(|key| self.places.get(key));
        let newer = held.and_then(|held| held.state.on()).filter(|(on, epoch)| *on != call && session.epoch < *epoch);
        if let Some((_, epoch)) = newer.filter(|_| session.state != SessionState::Ended) {
            self.outputs.push_back(Output::Fence(call, session.stream_id.clone(), epoch));
        }
        self.outputs.push_back(Output::Disbelieved(name, session.stream_id.clone()));
    }

    /// Remembers a worker whose call ends.
    pub(super) fn remember(&mut self, now: Instant, call: CallId) {
        let Some(worker) = self.workers.get(call) else { return };
        let Some(key) = worker.key else { return };
        let believed = worker.sessions.iter().filter(|(_, session)| !session.identities.is_empty());
        let sessions: BTreeMap<_, _> = believed.map(|(id, session)| (id.clone(), session.identities.clone())).collect();
        if sessions.is_empty() && !self.places.values().any(|held| held.offered_to.contains_key(&call)) {
            return;
        }
        let name = worker.name.clone();
        self.departed.keep(now, name, DepartedWorker { key, call, sessions, until: now + DEPARTED });
    }

    /// Believes what a worker has said of a stream before another activator has named it.
    pub(super) fn vouch(&mut self, now: Instant, worker: &str, stream_id: &str) {
        let Some((_, twin)) = self.others.holder(stream_id).filter(|(_, twin)| twin.worker == worker) else { return };
        let identities = twin.identities.clone();
        let Some(call) = self.workers.named(worker) else { return };
        let known = self.workers.get(call).and_then(|worker| worker.sessions.get(stream_id));
        let Some(session) = known.filter(|session| session.identities.is_empty()) else { return };
        let session = Session { identities, ..session.clone() };
        self.workers.session(now, call, session.clone());
        self.adopt(now, call, &session);
    }
}

#[cfg(test)]
#[path = "credit_tests.rs"]
mod tests;
