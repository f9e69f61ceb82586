//! Workers start and end under live streams.

use liveedgecast_e2e::cluster::install::Installation;
use liveedgecast_e2e::compare::{assert_decodes, assert_resumed, assert_time_goes_forward};
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::until;

use crate::{Relays, published, receives, sessions_of};

on_a_cluster! {
    a_rollout_of_workers_under_load_drops_no_publisher
}

fn a_rollout_of_workers_under_load_drops_no_publisher(relays: &Relays<'_>) {
    let relay = relays.installed(&Installation::default());
    let names = ["one", "two", "three"];
    let mut streams: Vec<_> = names
        .iter()
        .map(|name| {
            let tap = Tap::before(relay.socket());
            let publisher = published(&tap, name);
            (*name, tap, publisher)
        })
        .collect();
    for (name, ..) in &streams {
        receives(&relay.sink, name, 50);
    }
    let old = relay.workers();
    assert_eq!(old.len(), 1);

    relay.restart("worker");
    for (name, ..) in &streams {
        until(format!("{name} to move to another worker"), || {
            sessions_of(&relay.sink, name).get(1).is_some_and(|it| it.recording.frames() >= 100)
        });
    }
    relay.is_gone(&old[0]);
    for (name, tap, publisher) in &mut streams {
        let said = tap.only();
        assert!(said.left.is_none() && said.closed.is_none(), "{name} noticed");
        publisher.interrupt();
        until(format!("the end of {name}"), || sessions_of(&relay.sink, name).iter().all(|it| it.ended.is_some()));
        let (published, sessions) = (tap.only().publisher.media, sessions_of(&relay.sink, name));
        assert_eq!(sessions.len(), 2, "sessions of {name}");
        let place = assert_resumed(&published, sessions[1].media());
        let before = sessions[0].media().len();
        assert!(place.first <= before, "{name}: messages {before}..{} are lost", place.first);
        assert_eq!(place.end, published.len(), "{name}: the end is lost");
        assert_time_goes_forward(sessions[1].media());
        assert_decodes(sessions[1].media());
    }
}
