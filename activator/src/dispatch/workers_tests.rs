//! The table of workers.

use liveedgecast_common::testkit::origin;

use super::*;

fn introduction(name: &str, capacity: u32) -> Introduction {
    let name = name.to_owned();
    Introduction {
        name,
        capacity,
        availability: Availability::Open,
        same_host: true,
        sessions: vec![],
        takes_lists: true,
        key: None,
        age: None,
        excerpts: true,
    }
}

fn session(id: &str, state: SessionState) -> Session {
    Session { stream_id: id.into(), identities: vec![Identity([7; 16])], state, ..Session::default() }
}

#[test]
fn streams_in_the_workers_count_and_in_ours_count_once() {
    let (mut workers, now) = (Workers::default(), origin());
    let call = CallId(1);
    workers.join(now, call, introduction("a", 3));
    let streams = |workers: &Workers| workers.get(call).unwrap().streams();
    workers.reserve(call, "x", 1, true);
    assert_eq!(streams(&workers), 1, "offered holds a place");
    workers.load(call, &Load { streams: 1, capacity: 3, ..Load::default() });
    assert_eq!(streams(&workers), 1, "and is the one that the worker counts");
    workers.session(origin(), call, session("x", SessionState::Starting));
    workers.reserve(call, "y", 2, true);
    assert_eq!(streams(&workers), 2);
    workers.load(call, &Load { streams: 3, capacity: 3, ..Load::default() });
    assert_eq!((streams(&workers), workers.get(call).unwrap().room(now)), (3, 0), "another activator's");
    workers.load(call, &Load { streams: 0, capacity: 3, ..Load::default() });
    workers.release(call, "x");
    assert_eq!(streams(&workers), 2, "its session is still there");
    workers.session(origin(), call, session("x", SessionState::Ended));
    workers.release(call, "y");
    assert_eq!(streams(&workers), 0);
    assert!(workers.identities.is_empty());
}

#[test]
fn busiest_worker_comes_first_and_of_equals_the_oldest() {
    let (mut workers, now) = (Workers::default(), origin());
    for (number, streams) in [(1, 0), (2, 1), (3, 1), (4, 2)] {
        workers.join(now, CallId(number), introduction(&number.to_string(), 2));
        workers.load(CallId(number), &Load { streams, capacity: 2, ..Load::default() });
    }
    assert_eq!(workers.busiest(now, |_, _| true), Some(CallId(2)));
    assert_eq!(workers.busiest(now, |call, _| call != CallId(2)), Some(CallId(3)));
    workers.avoid(CallId(2), now + Duration::from_secs(1));
    workers.retire(CallId(3));
    assert_eq!(workers.busiest(now, |_, _| true), Some(CallId(1)));
    workers.handle_timeout(now + Duration::from_secs(1));
    assert_eq!(workers.busiest(now + Duration::from_secs(1), |_, _| true), Some(CallId(2)));
}

#[test]
fn sessions_are_bounded_in_bytes_and_give_them_back_when_they_end() {
    let (mut workers, now) = (Workers::default(), origin());
    let upstream = UpstreamReport { host: "x".repeat(128), error: "x".repeat(128), ..UpstreamReport::default() };
    let heavy = |id: u64| Session {
        upstreams: vec![upstream.clone(); 32],
        identities: vec![Identity(u128::from(id).to_be_bytes())],
        ..session(&id.to_string(), SessionState::Live)
    };
    workers.join(now, CallId(1), introduction("a", 10_000));
    (0..10_000).for_each(|id| assert!(workers.session(origin(), CallId(1), heavy(id))));
    assert!(workers.kept <= DETAILED_BYTES + 10_000 * 1000, "{}", workers.kept);
    let sessions = &workers.get(CallId(1)).unwrap().sessions;
    let detailed = sessions.values().filter(|session| !session.upstreams.is_empty()).count();
    assert!(detailed > 1000 && detailed < 10_000 && sessions.len() == 10_000, "{detailed}");
    // The same again takes no more; an end gives back.
    let before = workers.kept;
    workers.session(origin(), CallId(1), heavy(0));
    assert!(workers.kept <= before);
    workers.session(origin(), CallId(1), session("0", SessionState::Ended));
    assert!(workers.kept < before);
    workers.leave(CallId(1));
    assert_eq!((workers.kept, workers.identities.len()), (0, 0));
}

#[test]
fn a_silent_worker_is_suspect_only_while_it_serves() {
    let (mut workers, now) = (Workers::default(), origin());
    workers.join(now, CallId(1), introduction("a", 2));
    assert_eq!(workers.poll_timeout(), None);
    workers.load(CallId(1), &Load { streams: 1, capacity: 2, ..Load::default() });
    assert_eq!(workers.poll_timeout(), Some(now + SUSPECT_AFTER));
    assert_eq!(workers.handle_timeout(now + SUSPECT_AFTER), [CallId(1)]);
    assert_eq!(workers.busiest(now, |_, _| true), None);
    workers.heard(now, CallId(1));
    assert_eq!(workers.busiest(now, |_, _| true), Some(CallId(1)));
}

#[test]
fn a_late_look_at_silence_leaves_time_to_read_what_was_said_meanwhile() {
    let (mut workers, now) = (Workers::default(), origin());
    workers.join(now, CallId(1), introduction("a", 2));
    workers.load(CallId(1), &Load { streams: 1, capacity: 2, ..Load::default() });
    let late = now + Duration::from_secs(6);
    assert_eq!(workers.handle_timeout(late), []);
    assert_eq!(workers.poll_timeout(), Some(late + LATE));
    assert_eq!(workers.handle_timeout(late + LATE), [CallId(1)], "nothing was");
    workers.heard(late + LATE, CallId(1));
    assert_eq!(workers.handle_timeout(late + LATE + SUSPECT_AFTER), [CallId(1)]);
}

#[test]
fn the_holder_of_an_identity_is_found_unless_it_is_the_stream_itself() {
    let (mut workers, now) = (Workers::default(), origin());
    let wanted = [Identity([7; 16])];
    let mut first = introduction("a", 2);
    first.sessions = vec![session("x", SessionState::Grace)];
    workers.join(now, CallId(1), first);
    assert_eq!(workers.holder(&wanted, "y").map(|(call, _)| call), Some(CallId(1)));
    assert!(workers.holder(&wanted, "x").is_none());
    workers.leave(CallId(1));
    assert!(workers.holder(&wanted, "y").is_none() && workers.identities.is_empty());
}
