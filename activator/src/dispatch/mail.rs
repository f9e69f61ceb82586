//! The events that a publisher's task has not read yet. In: events, as the dispatcher decides them. Out: the same events, without the
//! ones that later events have made void. Pure.

use super::{PlaceEvent, PlaceRefusal};

/// The unread events: at most one of each kind, because a newer one makes the older one void.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    withdrawn: Option<u64>,
    offered: Option<PlaceEvent>,
    refused: Option<PlaceRefusal>,
    kicked: Option<String>,
    changed: bool,
    asked: bool,
}

impl Mail {
    /// Adds an event. An unread offer and its withdrawal cancel each other out.
    pub(crate) fn post(&mut self, event: PlaceEvent) {
        match event {
            PlaceEvent::Offered { .. } => self.offered = Some(event),
            PlaceEvent::Withdrawn { epoch: withdrawn } => match &self.offered {
                Some(PlaceEvent::Offered { epoch, .. }) if *epoch == withdrawn => self.offered = None,
                _ => self.withdrawn = Some(withdrawn),
            },
            PlaceEvent::Refused(reason) => self.refused = Some(reason),
            PlaceEvent::Changed => self.changed = true,
            PlaceEvent::Asked => self.asked = true,
            PlaceEvent::Kicked(reason) => self.kicked = Some(reason),
        }
    }

    /// The next event to read: a kick before a refusal, which makes everything else void, before a withdrawal before the offer that follows it.
    pub(crate) fn take(&mut self) -> Option<PlaceEvent> {
        if let Some(reason) = self.kicked.take() {
            return Some(PlaceEvent::Kicked(reason));
        }
        if let Some(reason) = self.refused.take() {
            (self.offered, self.withdrawn, self.changed, self.asked) = (None, None, false, false);
            return Some(PlaceEvent::Refused(reason));
        }
        let withdrawn = self.withdrawn.take().map(|epoch| PlaceEvent::Withdrawn { epoch });
        withdrawn
            .or_else(|| self.offered.take())
            .or_else(|| std::mem::take(&mut self.changed).then_some(PlaceEvent::Changed))
            .or_else(|| std::mem::take(&mut self.asked).then_some(PlaceEvent::Asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Token;

    fn offer(epoch: u64) -> PlaceEvent {
        PlaceEvent::Offered { epoch, token: Token::of([0; 16]), worker: "w".into(), descriptor: true }
    }

    fn withdrawal(epoch: u64) -> PlaceEvent {
        PlaceEvent::Withdrawn { epoch }
    }

    #[test]
    fn unread_events_are_read_in_the_order_that_still_matters() {
        let refusal = || PlaceEvent::Refused(PlaceRefusal::HoldSpent);
        let kick = || PlaceEvent::Kicked("go".into());
        let table = [
            ("one offer", vec![offer(1)], vec![offer(1)]),
            ("unread offer and its withdrawal", vec![offer(1), withdrawal(1)], vec![]),
            ("read offer's withdrawal", vec![withdrawal(1)], vec![withdrawal(1)]),
            ("read offer's withdrawal, then an offer", vec![withdrawal(1), offer(2)], vec![withdrawal(1), offer(2)]),
            (
                "the same, and that offer's withdrawal",
                vec![withdrawal(1), offer(2), withdrawal(2)],
                vec![withdrawal(1)],
            ),
            ("refusal after an offer", vec![withdrawal(1), offer(2), refusal()], vec![refusal()]),
            ("kick after an offer", vec![offer(1), kick()], vec![kick(), offer(1)]),
            (
                "two changes",
                vec![PlaceEvent::Changed, offer(1), PlaceEvent::Changed],
                vec![offer(1), PlaceEvent::Changed],
            ),
            (
                "two questions and a change",
                vec![PlaceEvent::Asked, PlaceEvent::Asked, PlaceEvent::Changed],
                vec![PlaceEvent::Changed, PlaceEvent::Asked],
            ),
            ("question about a refused stream", vec![PlaceEvent::Asked, refusal()], vec![refusal()]),
            ("change of a refused stream", vec![PlaceEvent::Changed, refusal()], vec![refusal()]),
            ("kick and refusal", vec![offer(1), refusal(), kick()], vec![kick(), refusal()]),
        ];
        for (name, posted, read) in table {
            let mut mail = Mail::default();
            posted.into_iter().for_each(|event| mail.post(event));
            assert_eq!(std::iter::from_fn(|| mail.take()).collect::<Vec<_>>(), read, "{name}");
        }
    }
}
