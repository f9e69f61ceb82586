//! The handles of the lobby.

use super::{Back, Entry, PlaceEvent};

/// The lobby. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Lobby {}

impl Lobby {
    /// Takes a place. It is offered to workers from now on, in the order of arrival.
    pub fn enter(&self, entry: Entry) -> Place {
        let _ = entry;
        todo!()
    }
}

/// A publisher's place, waiting or live. Dropping it leaves the lobby: an offer that is on is withdrawn, a live stream is no longer
/// counted as ours.
#[derive(Debug)]
pub struct Place {}

impl Place {
    /// What happened to it. Cancel safe.
    pub async fn event(&mut self) -> PlaceEvent {
        todo!()
    }

    /// The publisher answered something: it is alive. A second publisher of the same stream takes over one that was silent for 5 s.
    pub fn heard(&mut self) {
        todo!()
    }

    /// A worker has accepted the stream under this epoch: it is live from here on.
    pub fn taken(&mut self, epoch: u64) {
        let _ = epoch;
        todo!()
    }

    /// The worker has told the publisher to start.
    pub fn started(&mut self) {
        todo!()
    }

    /// It waits again: in its place, or at the front when it was live.
    pub fn back(&mut self, epoch: u64, why: Back) {
        let _ = (epoch, why);
        todo!()
    }
}
