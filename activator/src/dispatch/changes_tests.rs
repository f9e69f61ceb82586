//! Changes that outlive a stay of their publisher, on virtual time.

use std::time::Duration;

use liveedgecast_common::control::{Availability, Session, SessionState, WorkerMessage};
use liveedgecast_common::key::{AppName, Secret, StreamId, StreamKey};
use liveedgecast_common::testkit::origin;
use liveedgecast_common::url::PushTemplate;

use super::*;
use crate::config::{Handoff, RouteDestination};
use crate::destinations::{RouteOrigin, StreamNames};
use crate::dispatch::{CallId, Input, Introduction, PlaceRefusal, Rules};

const GRACE: Duration = Duration::from_secs(10);
const CALL: CallId = CallId(1);

/// A dispatcher with one worker of nine places.
struct Relay {
    now: Instant,
    dispatcher: Dispatcher,
}

impl Relay {
    fn new() -> Self {
        let mut relay = Self { now: origin(), dispatcher: Dispatcher::new(Rules::default()) };
        let introduction = Introduction {
            name: "w".to_owned(),
            capacity: 9,
            availability: Availability::Open,
            same_host: true,
            sessions: vec![],
            takes_lists: true,
            key: None,
            age: None,
            excerpts: true,
        };
        relay.tell(Input::Joined(CALL, introduction));
        relay
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.dispatcher.handle(self.now, input);
        std::iter::from_fn(|| self.dispatcher.poll_output()).collect()
    }

    /// A publisher that enters with this stream key; the configuration gives it one destination.
    fn enter(&mut self, id: &str, key: &str) -> (Key, Vec<Output>) {
        let names = StreamNames {
            app: AppName::parse("live").unwrap(),
            key: StreamKey::parse(key).unwrap(),
            publisher: String::new(),
            secret: Secret::new("secret"),
        };
        let destinations = StreamDestinations::new(names, RouteOrigin::Fixed, Vec::new());
        let given = RouteDestination { name: "main".to_owned(), ..place("main", "main/live/{key}") };
        let destinations = destinations.changed(&Change::Route(vec![given])).unwrap().unwrap();
        let entry = Entry {
            stream_id: StreamId(id.to_owned()),
            identities: vec![own(key)],
            app: AppName::parse("live").unwrap(),
            publisher: None,
            shown_key: None,
            connected: None,
            client: "10.0.0.1:1".parse().unwrap(),
            deadline: self.now + Duration::from_secs(120),
            hold: Duration::from_secs(120),
            handoff: Handoff::Auto,
            movable: true,
            destinations,
        };
        let key = self.dispatcher.enter(self.now, entry);
        (key, std::iter::from_fn(|| self.dispatcher.poll_output()).collect())
    }

    /// A stream that the worker has started.
    fn live(&mut self, id: &str, key: &str) -> (Key, u64) {
        let (place, outputs) = self.enter(id, key);
        let epoch = self.take(place, &outputs);
        (place, epoch)
    }

    fn take(&mut self, place: Key, outputs: &[Output]) -> u64 {
        let offered = outputs.iter().find_map(|output| match output {
            Output::Offer { key, epoch, .. } if *key == place => Some(*epoch),
            _ => None,
        });
        let epoch = offered.expect("an offer");
        self.tell(Input::Taken(place, epoch));
        self.tell(Input::Started(place));
        epoch
    }

    fn report(&mut self, id: &str, state: SessionState, epoch: u64, place: Option<Key>) {
        let placed = place.and_then(|place| self.dispatcher.placed(place));
        let identities = placed.as_ref().map_or(vec![own("k")], |placed| placed.identities.clone());
        let revision = placed.map_or(0, |placed| placed.destinations.revision);
        let session = Session { stream_id: id.to_owned(), identities, state, epoch, revision, ..Session::default() };
        self.tell(Input::Said(CALL, WorkerMessage::Session(session)));
    }

    /// The destinations of a stream as `name`, with a mark at those that the API has changed.
    fn shown(&self, id: &str) -> String {
        let shown = |view: DestinationView| {
            format!("{}{}{}", view.name, if view.by_api { "*" } else { "" }, if view.enabled { "" } else { " off" })
        };
        self.dispatcher.destinations(id).unwrap().into_iter().map(shown).collect::<Vec<_>>().join(", ")
    }
}

fn own(key: &str) -> Identity {
    let (secret, app) = (Secret::new("secret"), AppName::parse("live").unwrap());
    Identity::of_stream(&secret, &app, &StreamKey::parse(key).unwrap())
}

fn place(name: &str, place: &str) -> RouteDestination {
    let url = PushTemplate::parse(&format!("rtmp://{place}")).unwrap();
    RouteDestination { name: name.to_owned(), url, required: false, enabled: true, backup: None }
}

fn add(name: &str) -> Change {
    Change::Add(place(name, &format!("{name}/live/{{key}}")))
}

fn off(name: &str) -> Change {
    Change::Patch { name: name.to_owned(), url: None, enabled: Some(false) }
}

#[test]
fn publisher_that_comes_back_within_its_grace_time_finds_the_changes_of_the_api() {
    let mut relay = Relay::new();
    let (first, epoch) = relay.live("one", "k");
    relay.dispatcher.change("one", &add("more")).unwrap();
    relay.dispatcher.change("one", &off("main")).unwrap();
    relay.tell(Input::PublisherLost(first, GRACE));
    relay.report("one", SessionState::Grace, epoch, Some(first));
    relay.tell(Input::Left(first));
    relay.now += GRACE / 2;
    let (second, outputs) = relay.enter("two", "k");
    assert_eq!(relay.shown("two"), "main* off, more*");
    let list = relay.dispatcher.placed(second).unwrap().destinations;
    assert_eq!((list.revision, list.destinations.len()), (3, 1), "the numbers go on");
    let (other, _) = relay.enter("other", "another-key");
    assert_eq!(relay.shown("other"), "main", "a stream of another key");
    relay.tell(Input::Left(other));
    // It is lost once more, and comes back with a further change.
    let epoch = relay.take(second, &outputs);
    relay.report("two", SessionState::Live, epoch, Some(second));
    relay.report("one", SessionState::Ended, epoch, None);
    relay.dispatcher.change("two", &Change::Remove { name: "main".to_owned() }).unwrap();
    relay.tell(Input::PublisherLost(second, GRACE));
    relay.tell(Input::Left(second));
    relay.enter("three", "k");
    assert_eq!(relay.shown("three"), "more*");
}

#[test]
fn change_of_the_api_ends_with_its_stream() {
    // Time for which the publisher may come back, if it is lost; time until it does; whether the worker tells of the stream's end.
    let table = [
        ("goodbye", None, Duration::ZERO, false),
        ("no grace time", Some(Duration::ZERO), Duration::ZERO, false),
        ("grace time over", Some(GRACE), GRACE, false),
        ("stream ended", Some(GRACE), Duration::ZERO, true),
    ];
    for (name, lost_for, later, ended) in table {
        let mut relay = Relay::new();
        let (first, epoch) = relay.live("one", "k");
        relay.dispatcher.change("one", &add("more")).unwrap();
        lost_for.into_iter().for_each(|grace| _ = relay.tell(Input::PublisherLost(first, grace)));
        relay.tell(Input::Left(first));
        if ended {
            relay.report("one", SessionState::Ended, epoch, None);
        }
        relay.now += later;
        relay.enter("two", "k");
        assert_eq!(relay.shown("two"), "main", "{name}");
    }
}

#[test]
fn publisher_that_replaces_another_gets_its_changes_also_those_made_meanwhile() {
    let mut relay = Relay::new();
    let (first, epoch) = relay.live("one", "k");
    relay.dispatcher.change("one", &add("more")).unwrap();
    relay.report("one", SessionState::Live, epoch, Some(first));
    let (second, outputs) = relay.enter("two", "k");
    assert_eq!(relay.shown("two"), "main, more*");
    relay.dispatcher.change("one", &add("late")).unwrap();
    relay.take(second, &outputs);
    relay.tell(Input::PublisherLost(first, GRACE));
    let outputs = relay.tell(Input::Left(first));
    assert_eq!(relay.shown("two"), "main, more*, late*");
    assert!(outputs.contains(&Output::Changed(second)), "its worker is told: {outputs:?}");
    // A goodbye of the second ends the stream, whatever became of the first.
    relay.tell(Input::Left(second));
    relay.enter("three", "k");
    assert_eq!(relay.shown("three"), "main");
}

#[test]
fn second_publisher_that_is_refused_leaves_the_changes_alone() {
    let mut relay = Relay::new();
    relay.live("one", "k");
    relay.dispatcher.change("one", &add("more")).unwrap();
    let (second, _) = relay.enter("two", "k");
    relay.dispatcher.refuse(second, PlaceRefusal::Duplicate);
    relay.tell(Input::Left(second));
    assert_eq!(relay.shown("one"), "main, more*");
}

#[test]
fn upstream_that_another_stream_has_taken_meanwhile_is_not_claimed_again() {
    let whole = || Change::Add(place("whole", "shared/live/all"));
    let shared = |relay: &Relay, id: &str| {
        let placed = relay.dispatcher.placed(relay.dispatcher.by_id[id]).unwrap();
        (placed.identities.len(), placed.destinations.destinations.len())
    };
    for taken in [false, true] {
        let mut relay = Relay::new();
        let (first, epoch) = relay.live("one", "k");
        relay.dispatcher.change("one", &whole()).unwrap();
        relay.report("one", SessionState::Grace, epoch, Some(first));
        relay.tell(Input::PublisherLost(first, GRACE));
        relay.tell(Input::Left(first));
        if taken {
            // The worker has given the upstream up.
            let session = Session {
                stream_id: "one".to_owned(),
                identities: vec![own("k")],
                state: SessionState::Grace,
                epoch,
                ..Session::default()
            };
            relay.tell(Input::Said(CALL, WorkerMessage::Session(session)));
            relay.live("other", "another-key");
            relay.dispatcher.change("other", &whole()).unwrap();
        }
        relay.enter("two", "k");
        assert_eq!(shared(&relay, "two"), if taken { (1, 1) } else { (2, 2) }, "taken: {taken}");
    }
}
