//! The lobby, as whoever carries a handoff sees it. In: what happens to the place. Out: what concerns this handoff at once; what comes
//! after it is kept for then.
//!
//! What surprised us: a worker's call on the control listener may end, and the stream be offered to another one, while the handoff to the
//! first is still on its way. The second comes at once, so it is expected at once; but once the first has accepted, it has the stream,
//! whatever became of its call.

use crate::dispatch::{Back, PlaceEvent, Reason, Token};
use crate::handoff::{Desk, Expected};
use crate::lobby::Place;

/// An offer that a worker was made.
pub(crate) struct Offer {
    /// The number of the claim.
    pub(crate) epoch: u64,
    /// What the worker will present.
    pub(crate) token: Token,
    /// By descriptor, else by link.
    pub(crate) descriptor: bool,
    /// The worker, if it is expected already.
    pub(crate) expected: Option<Expected>,
}

/// What is to be done when this handoff is over.
pub(crate) enum Next {
    /// Another worker comes.
    Offer(Offer),
    /// The lobby has given up.
    Refused(Reason),
}

/// What is to be done now.
pub(crate) enum Told {
    /// End the stream, for this reason.
    Kicked(String),
    /// The worker is not to have it any more.
    Withdrawn,
}

/// One handoff's part of a place.
pub(crate) struct Claim<'a> {
    place: &'a mut Place,
    desk: &'a Desk,
    epoch: u64,
    accepted: bool,
    next: Option<Next>,
}

impl<'a> Claim<'a> {
    /// Of the offer with this epoch.
    pub(crate) fn new(place: &'a mut Place, desk: &'a Desk, epoch: u64) -> Self {
        Self { place, desk, epoch, accepted: false, next: None }
    }

    /// What concerns the handoff. Cancel safe.
    pub(crate) async fn told(&mut self) -> Told {
        loop {
            match self.place.event().await {
                PlaceEvent::Kicked(reason) => return Told::Kicked(reason),
                PlaceEvent::Withdrawn { epoch } if epoch == self.epoch && !self.accepted => return Told::Withdrawn,
                PlaceEvent::Withdrawn { epoch } => {
                    let is_next = matches!(&self.next, Some(Next::Offer(offer)) if offer.epoch == epoch);
                    self.next = self.next.take().filter(|_| !is_next);
                }
                PlaceEvent::Offered { epoch, .. } if self.accepted => self.place.back(epoch, Back::Declined),
                PlaceEvent::Offered { epoch, token, descriptor, .. } => {
                    let expected = Some(self.desk.expect(token));
                    self.next = Some(Next::Offer(Offer { epoch, token, descriptor, expected }));
                }
                PlaceEvent::Refused(reason) => self.next = Some(Next::Refused(reason)),
            }
        }
    }

    /// The worker has accepted.
    pub(crate) fn taken(&mut self) {
        self.accepted = true;
        if let Some(Next::Offer(offer)) = self.next.take() {
            self.place.back(offer.epoch, Back::Declined);
        }
        self.place.taken(self.epoch);
    }

    /// The publisher was told to start.
    pub(crate) fn started(&mut self) {
        self.place.started();
    }

    /// What comes after the handoff.
    pub(crate) fn next(self) -> Option<Next> {
        self.next
    }
}
