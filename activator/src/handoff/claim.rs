//! The rules of a claim on a stream while a worker has its publisher. In: what the lobby says of the publisher's place, and the worker's
//! acceptance. Out: orders that concern this handoff at once, and the step that follows it. Pure. Next: `place`, which carries them out.
//!
//! ```text
//!              Offered: expect that worker            Accepted: decline the next offer
//!  Assigned ─────────────────────────────▶ Assigned ────────────────────────────────────▶ Accepted
//!     │        and keep the offer as next                                                     │
//!     │ Withdrawn, this claim: give the worker up                        Offered: decline it ─┘
//!     └─ Refused: keep the refusal as next, whatever was next
//! ```
//! In both states a kick and a changed list of destinations go to the worker at once, a question for the kept bytes is answered, and an offer that is withdrawn while it is next is forgotten.
//!
//! Note: a worker's call on the control listener may end, and the stream be offered to another one, while the handoff to the first is still on
//! its way. The second worker dials at once, so it is expected at once; but once the first has accepted, it has the stream, whatever became
//! of its call.

use crate::dispatch::{PlaceEvent, PlaceRefusal, Token};

/// An offer to the worker that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextOffer {
    /// The number of the claim.
    pub(crate) epoch: u64,
    /// The token that the worker will present.
    pub(crate) token: Token,
    /// The way of the handoff: by descriptor, else by link.
    pub(crate) descriptor: bool,
}

/// The step that follows when this handoff is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterHandoff {
    /// The next worker comes.
    Offer(NextOffer),
    /// The lobby has given up.
    Refused(PlaceRefusal),
}

/// An order to the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Tell the worker to end the stream, for this reason.
    Kick(String),
    /// Tell the worker the destinations in force.
    Change,
    /// Answer who asks for the bytes that are kept.
    Answer,
    /// Give this worker up.
    GiveUp,
    /// Expect the worker of the next offer, and no longer that of an earlier one.
    Expect(Token),
    /// Expect no other worker.
    Forget,
    /// Tell the lobby that this offer is declined.
    Decline(u64),
}

/// The claim of one handoff on a stream.
#[derive(Debug)]
pub(super) struct Machine {
    epoch: u64,
    accepted: bool,
    next: Option<AfterHandoff>,
}

impl Machine {
    /// The claim of the offer with this epoch.
    pub(super) fn new(epoch: u64) -> Self {
        Self { epoch, accepted: false, next: None }
    }

    /// The number of the claim.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes what the lobby says.
    pub(super) fn handle(&mut self, event: PlaceEvent) -> Option<Output> {
        match event {
            PlaceEvent::Kicked(reason) => Some(Output::Kick(reason)),
            PlaceEvent::Changed => Some(Output::Change),
            PlaceEvent::Asked => Some(Output::Answer),
            PlaceEvent::Withdrawn { epoch } if epoch == self.epoch => (!self.accepted).then_some(Output::GiveUp),
            PlaceEvent::Withdrawn { epoch } => {
                self.next.take_if(|next| matches!(next, AfterHandoff::Offer(offer) if offer.epoch == epoch))?;
                Some(Output::Forget)
            }
            PlaceEvent::Offered { epoch, .. } if self.accepted => Some(Output::Decline(epoch)),
            PlaceEvent::Offered { epoch, token, descriptor, .. } => {
                self.next = Some(AfterHandoff::Offer(NextOffer { epoch, token, descriptor }));
                Some(Output::Expect(token))
            }
            PlaceEvent::Refused(reason) => {
                self.next = Some(AfterHandoff::Refused(reason));
                Some(Output::Forget)
            }
        }
    }

    /// Takes the worker's acceptance.
    pub(super) fn accepted(&mut self) -> Option<Output> {
        self.accepted = true;
        match self.next.take_if(|next| matches!(next, AfterHandoff::Offer(_)))? {
            AfterHandoff::Offer(offer) => Some(Output::Decline(offer.epoch)),
            AfterHandoff::Refused(_) => None,
        }
    }

    /// The step that follows the handoff.
    pub(super) fn next(self) -> Option<AfterHandoff> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: u64 = 7;
    const TOKEN: Token = Token { presented: [1; 16], challenge: [2; 32] };

    fn offered(epoch: u64) -> PlaceEvent {
        PlaceEvent::Offered { epoch, token: TOKEN, worker: "w".to_owned(), descriptor: true }
    }

    fn withdrawn(epoch: u64) -> PlaceEvent {
        PlaceEvent::Withdrawn { epoch }
    }

    fn next(epoch: u64) -> Option<AfterHandoff> {
        Some(AfterHandoff::Offer(NextOffer { epoch, token: TOKEN, descriptor: true }))
    }

    #[test]
    fn every_event_has_its_order_and_leaves_its_next_step() {
        let refused = PlaceEvent::Refused(PlaceRefusal::HoldSpent);
        let after_refusal = Some(AfterHandoff::Refused(PlaceRefusal::HoldSpent));
        let kick = PlaceEvent::Kicked("go".to_owned());
        let kicked = Some(Output::Kick("go".to_owned()));
        // Events before, whether the worker accepts then, an event or else the worker's acceptance, its order, the next step after it.
        let table = [
            (vec![], false, Some(kick.clone()), kicked.clone(), None),
            (vec![], true, Some(kick), kicked, None),
            (vec![], false, Some(PlaceEvent::Changed), Some(Output::Change), None),
            (vec![offered(8)], true, Some(PlaceEvent::Changed), Some(Output::Change), None),
            (vec![], false, Some(PlaceEvent::Asked), Some(Output::Answer), None),
            (vec![offered(8)], true, Some(PlaceEvent::Asked), Some(Output::Answer), None),
            (vec![], false, Some(withdrawn(OURS)), Some(Output::GiveUp), None),
            (vec![], true, Some(withdrawn(OURS)), None, None),
            (vec![], false, Some(withdrawn(6)), None, None),
            (vec![], false, Some(offered(8)), Some(Output::Expect(TOKEN)), next(8)),
            (vec![], true, Some(offered(8)), Some(Output::Decline(8)), None),
            (vec![offered(8)], false, Some(offered(9)), Some(Output::Expect(TOKEN)), next(9)),
            (vec![offered(8)], false, Some(withdrawn(8)), Some(Output::Forget), None),
            (vec![offered(8)], false, Some(withdrawn(6)), None, next(8)),
            (vec![offered(8)], false, Some(withdrawn(OURS)), Some(Output::GiveUp), next(8)),
            (vec![offered(8)], false, Some(refused.clone()), Some(Output::Forget), after_refusal),
            (vec![offered(8)], true, Some(offered(9)), Some(Output::Decline(9)), None),
            (vec![], true, Some(refused.clone()), Some(Output::Forget), after_refusal),
            (vec![refused.clone()], false, Some(offered(8)), Some(Output::Expect(TOKEN)), next(8)),
            (vec![], false, None, None, None),
            (vec![offered(8)], false, None, Some(Output::Decline(8)), None),
            (vec![refused], false, None, None, after_refusal),
        ];
        for (before, accepts, event, output, after) in table {
            let name = format!("{before:?}, accepts: {accepts}, {event:?}");
            let mut claim = Machine::new(OURS);
            for event in before {
                claim.handle(event);
            }
            if accepts {
                claim.accepted();
            }
            let found = match event {
                Some(event) => claim.handle(event),
                None => claim.accepted(),
            };
            assert_eq!(found, output, "{name}");
            assert_eq!(claim.next(), after, "{name}");
        }
    }
}
