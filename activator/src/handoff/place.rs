//! A publisher's place in the lobby while a worker has the publisher. In: the lobby's events, the worker's acceptance and start. Out: the
//! interruptions that concern the handoff; declined offers for the lobby. The rules are in [`claim`](super::claim). Next: `descriptor` or
//! `link`, which carry the stream.

use liveedgecast_common::handoff::DestinationList;

use super::claim::{AfterHandoff, Machine, NextOffer, Output};
use super::{ExpectedWorker, HandoffListener};
use crate::dispatch::{Back, PlaceEvent, PlaceRefusal, Token};
use crate::excerpt::KeptBytes;
use crate::lobby::Place;

/// An offer that a worker was made.
pub(crate) struct ExpectedOffer {
    /// The number of the claim.
    pub(crate) epoch: u64,
    /// The token that the worker will present.
    pub(crate) token: Token,
    /// The way of the handoff: by descriptor, else by link.
    pub(crate) descriptor: bool,
    /// The worker, if it is expected already.
    pub(crate) expected: Option<ExpectedWorker>,
}

/// The step of a publisher's task that follows when a handoff is over.
pub(crate) enum FollowUp {
    /// The next worker comes.
    Offer(ExpectedOffer),
    /// The lobby has given up.
    Refused(PlaceRefusal),
}

/// An event of the lobby that concerns a handoff at once.
pub(crate) enum Interruption {
    /// The stream is to end, for this reason.
    Kicked(String),
    /// The stream has these destinations from now on.
    Changed(Box<DestinationList>),
    /// The bytes that are kept of the stream are asked for: [`ClaimedPlace::answer`].
    Asked,
    /// The worker is not to have the stream any more.
    Withdrawn,
}

/// The place of a publisher, as one handoff claims it.
pub(crate) struct ClaimedPlace<'a> {
    place: &'a mut Place,
    listener: &'a HandoffListener,
    claim: Machine,
    /// The API asked for the end of the stream.
    kicked: bool,
    /// Called when the worker has accepted the stream.
    on_accepted: &'a mut (dyn FnMut() + Send),
    /// The worker of the next offer.
    expected: Option<ExpectedWorker>,
}

impl<'a> ClaimedPlace<'a> {
    /// The place, claimed by the offer with this epoch.
    pub(crate) fn new(
        place: &'a mut Place,
        listener: &'a HandoffListener,
        epoch: u64,
        on_accepted: &'a mut (dyn FnMut() + Send),
    ) -> Self {
        Self { place, listener, claim: Machine::new(epoch), kicked: false, on_accepted, expected: None }
    }

    /// The next event that concerns the handoff. Cancel safe.
    pub(crate) async fn interruption(&mut self) -> Interruption {
        loop {
            let event: PlaceEvent = self.place.event().await;
            let output = self.claim.handle(event);
            if let Some(interruption) = self.act(output) {
                return interruption;
            }
        }
    }

    /// Tells the lobby that the worker has accepted the stream.
    pub(crate) fn accepted(&mut self) {
        let output = self.claim.accepted();
        self.act(output);
        self.place.taken(self.claim.epoch());
        (self.on_accepted)();
    }

    /// Tells the lobby that the publisher was told to start.
    pub(crate) fn started(&mut self) {
        self.place.started();
    }

    /// Answers [`Interruption::Asked`].
    pub(crate) fn answer(&mut self, kept: Option<KeptBytes>) {
        self.place.answer(kept);
    }

    /// Tells whether the API asked for the end of the stream during the handoff.
    pub(crate) fn is_kicked(&self) -> bool {
        self.kicked
    }

    /// The step that follows the handoff.
    pub(crate) fn follow_up(self) -> Option<FollowUp> {
        self.claim.next().map(|next| match next {
            AfterHandoff::Offer(NextOffer { epoch, token, descriptor }) => {
                FollowUp::Offer(ExpectedOffer { epoch, token, descriptor, expected: self.expected })
            }
            AfterHandoff::Refused(reason) => FollowUp::Refused(reason),
        })
    }

    fn act(&mut self, output: Option<Output>) -> Option<Interruption> {
        match output? {
            Output::Kick(reason) => {
                self.kicked = true;
                return Some(Interruption::Kicked(reason));
            }
            Output::GiveUp => return Some(Interruption::Withdrawn),
            Output::Answer => return Some(Interruption::Asked),
            Output::Change => {
                return self.place.stream().map(|stream| Interruption::Changed(Box::new(stream.destinations)));
            }
            Output::Expect(token) => self.expected = Some(self.listener.expect(token)),
            Output::Forget => self.expected = None,
            Output::Decline(epoch) => {
                self.expected = None;
                self.place.back(epoch, Back::Declined);
            }
        }
        None
    }
}
