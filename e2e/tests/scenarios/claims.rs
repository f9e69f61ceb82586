//! Streams that meet: two keys that share an upstream, and a stream whose way to its worker breaks.

use liveedgecast_e2e::compare::{assert_decodes, assert_time_goes_forward};
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::record::Message;
use liveedgecast_e2e::relay::{Activator, key};
use liveedgecast_e2e::sink::{Sink, SinkSession};
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, until, until_some};

by_descriptor_and_by_link! {
    a_second_key_takes_over_a_shared_upstream_in_a_session_of_its_own
    a_second_key_for_a_shared_upstream_is_refused_while_the_first_is_alive
}

/// An upstream for every key, one for all of them together, and an activator that pushes to both.
struct Shared {
    own: Sink,
    shared: Sink,
    activator: Activator,
}

impl Shared {
    fn by(handoff: &str) -> Self {
        let (own, shared) = (Sink::start(), Sink::start());
        shared.take_one_publisher_per_name();
        let urls = format!("{} {}", own.url("live/{key}"), shared.url(&format!("live/{}", key("fixed"))));
        let activator = Activator::pushing_to(&urls).with("HANDOFF", handoff).with("COOLDOWN", "1s").start();
        Self { own, shared, activator }
    }

    /// The session of this key at the upstream of its own, once it has so many messages.
    fn of(&self, name: &str, frames: usize) -> SinkSession {
        until_some(format!("{frames} messages of {name}"), || {
            let sessions = self.own.sessions().into_iter().filter(|session| session.key == key(name));
            sessions.last().filter(|session| session.recording.frames() >= frames)
        })
    }
}

/// Not one message that only the other one published is in this session.
#[track_caller]
fn assert_nothing_of(other: &[Message], session: &SinkSession, own: &[Message]) {
    let foreign = |message: &&Message| {
        let sent_by = |media: &[Message]| media.iter().any(|sent| sent.carries_the_same_as(message));
        sent_by(other) && !sent_by(own)
    };
    let found = session.media().iter().find(foreign);
    assert!(found.is_none(), "media of another publisher in the session of {}: {found:?}", session.key);
}

fn a_second_key_takes_over_a_shared_upstream_in_a_session_of_its_own(handoff: &str) {
    let relay = Shared::by(handoff);
    let taps = [(); 3].map(|()| Tap::before(relay.activator.rtmp()));
    let mut first = ffmpeg(Media::Both, &taps[0].url(&format!("live/{}", key("first"))));
    relay.of("first", 50);
    relay.shared.receives(50);
    first.kill();
    relay.activator.has_a_stream_that_is("grace");

    let mut second = ffmpeg(Media::Heavy, &taps[1].url(&format!("live/{}", key("second"))));
    relay.of("second", 50);
    let taken_over = relay.shared.receives_in_session(2, 50);
    // The first one's publisher returns to what is left of its stream: the upstream of its own, in the same session.
    let before = relay.of("first", 50).recording.frames();
    let mut again = ffmpeg(Media::Both, &taps[2].url(&format!("live/{}", key("first"))));
    let continued = relay.of("first", before + 50);
    again.interrupt();
    second.interrupt();
    until("nothing to be left", || relay.activator.demand() == Some((0, 0, 0)));

    let published = taps.map(|tap| tap.only().publisher.media);
    let firsts = [&published[0][..], &published[2]].concat();
    assert_eq!(relay.own.sessions().len(), 2, "one session for each key at the upstream of its own");
    assert!(continued.ended.is_none(), "the session of the first was ended");
    assert_nothing_of(&published[1], &relay.of("first", 50), &firsts);
    assert_nothing_of(&firsts, &relay.of("second", 50), &published[1]);
    let shared = relay.shared.sessions();
    let in_turn: Vec<&SinkSession> = shared.iter().filter(|session| !session.refused).collect();
    assert_eq!(in_turn.len(), 2, "one session after the other at the upstream that is shared");
    assert!(in_turn[0].ended < taken_over.started, "the first one's session there ended before the second's began");
    assert_nothing_of(&published[1], in_turn[0], &firsts);
    assert_nothing_of(&firsts, in_turn[1], &published[1]);
    for session in [relay.of("first", 50), relay.of("second", 50), in_turn[1].clone()] {
        assert_time_goes_forward(session.media());
        assert_decodes(session.media());
    }
}

fn a_second_key_for_a_shared_upstream_is_refused_while_the_first_is_alive(handoff: &str) {
    let relay = Shared::by(handoff);
    let tap = Tap::before(relay.activator.rtmp());
    let mut first = ffmpeg(Media::Both, &relay.activator.url(&format!("live/{}", key("first"))));
    relay.shared.receives(50);
    let mut second = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("second"))));
    assert!(!second.wait(SOON).success(), "the second key is taken");
    let told = tap.only().server.statuses();
    assert!(told.iter().any(|(_, status)| status == "NetStream.Publish.BadName"), "{told:?}");
    let arrived = relay.of("first", 50).recording.frames();
    relay.of("first", arrived + 50);
    first.interrupt();
    assert!(relay.shared.ended().said_goodbye());
    assert_eq!((relay.own.sessions().len(), relay.shared.sessions().len()), (1, 1));
}
