//! The handle of publishers' tasks. In: publishers that were admitted, and what becomes of them. Out: the [`PlaceEvent`]s of each.
#![expect(clippy::disallowed_methods, reason = "shell: the clock")]

use std::sync::Arc;
use std::time::Duration;

use liveedgecast_common::clock::now;
use tokio::sync::Notify;

use super::hub::Hub;
use crate::dispatch::{Back, Entry, Input, Key, PlaceEvent, PlacedStream};
use crate::excerpt::KeptBytes;

/// The places that publishers wait in.
#[derive(Clone)]
pub struct Places(pub(super) Arc<Hub>);

impl Places {
    /// Takes a place. It is offered to workers from now on, in the order of arrival.
    #[must_use]
    pub fn enter(&self, entry: Entry) -> Place {
        let wake = Arc::new(Notify::new());
        let key = self.0.step(|state, now| {
            let key = state.machine.dispatcher.enter(now, entry);
            state.open_mailbox(key, Arc::clone(&wake));
            key
        });
        Place { hub: Arc::clone(&self.0), key, wake }
    }
}

/// A publisher's place, waiting or live. Dropping it leaves the lobby: an open offer becomes void (the worker is not expected any
/// more), and a live stream is no longer counted as ours.
pub struct Place {
    hub: Arc<Hub>,
    key: Key,
    wake: Arc<Notify>,
}

impl Place {
    /// The next event of this place. Cancel safe. Nothing follows [`PlaceEvent::Refused`].
    pub async fn event(&mut self) -> PlaceEvent {
        loop {
            if let Some(event) = self.hub.lock().mail.get_mut(&self.key).and_then(|mailbox| mailbox.mail.take()) {
                return event;
            }
            self.wake.notified().await;
        }
    }

    /// The publisher answered something: it is alive. A second publisher of the same stream takes over one that was
    /// silent for some seconds.
    pub fn heard(&mut self) {
        // Nothing follows from it, so nothing is settled.
        self.hub.lock().machine.dispatcher.handle(now(), Input::Heard(self.key));
    }

    /// The publisher's connection broke: if the publisher comes back within this time, it goes on with its stream, and with what the API has changed
    /// there.
    pub fn publisher_lost(&mut self, grace: Duration) {
        // Nothing follows from it before the place is left.
        self.hub.lock().machine.dispatcher.handle(now(), Input::PublisherLost(self.key, grace));
    }

    /// The publisher's connection has ended, and another worker is to get the rest of its stream. A second publisher of the stream does not wait for
    /// that.
    pub fn gone(&mut self) {
        // Nothing follows from it, so nothing is settled.
        self.hub.lock().machine.dispatcher.handle(now(), Input::Gone(self.key));
    }

    /// The stream as the worker of the newest offer gets it; `None` once the place is gone.
    #[must_use]
    pub fn stream(&self) -> Option<PlacedStream> {
        self.hub.lock().machine.dispatcher.placed(self.key)
    }

    /// A worker has accepted the stream under this epoch: it is live from here on. A withdrawn epoch changes nothing.
    pub fn taken(&mut self, epoch: u64) {
        self.hub.tell(Input::Taken(self.key, epoch));
    }

    /// Answers [`PlaceEvent::Asked`]; `None`: nothing of the stream is kept here.
    pub(crate) fn answer(&mut self, kept: Option<KeptBytes>) {
        let asker = self.hub.lock().mail.get_mut(&self.key).and_then(|mailbox| mailbox.asker.take());
        // One that has gone meanwhile needs no answer, and one that gets none hears of that.
        if let (Some(asker), Some(kept)) = (asker, kept) {
            let _ = asker.send(kept);
        }
    }

    /// The worker has told the publisher to start.
    pub fn started(&mut self) {
        self.hub.tell(Input::Started(self.key));
    }

    /// The worker has not kept the stream, so it waits again: in its place, or at the front when it was live.
    pub fn back(&mut self, epoch: u64, why: Back) {
        self.hub.metrics.back.with_label_values(&[why.as_str()]).inc();
        self.hub.tell(Input::Back(self.key, epoch, why));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hub.step(|state, now| {
            state.mail.remove(&self.key);
            state.machine.handle(now, Input::Left(self.key));
        });
        self.hub.left.notify_waiters();
    }
}
