//! The rules on virtual time.

use liveedgecast_common::control::{UpstreamCounts, UpstreamReport, UpstreamState};
use liveedgecast_common::testkit::origin;
use proptest::prelude::*;

use super::*;

fn who(number: u8) -> Identity {
    Identity([number; 16])
}

fn claim(stream_id: &str, identities: &[u8]) -> StreamClaim {
    let identities = identities.iter().copied().map(who).collect();
    StreamClaim { stream_id: StreamId(stream_id.into()), epoch: 1, app: "live".into(), identities }
}

fn session(stream_id: &str, state: SessionState) -> Session {
    Session { stream_id: stream_id.into(), state, epoch: 1, app: "live".into(), ..Session::default() }
}

/// The sessions of the streams whose tasks run.
fn sessions(table: &Table) -> Vec<Session> {
    table.places.values().map(|place| Session::clone(&place.session)).collect()
}

/// Stream, state and reason of each session that has changed.
fn changed(table: &mut Table) -> Vec<(String, SessionState, String)> {
    table.take_changed().map(|session| (session.stream_id.clone(), session.state, session.reason.clone())).collect()
}

fn started(placing: Placing) -> (StreamSlot, usize) {
    match placing {
        Placing::Start { slot, thread } => (slot, thread),
        other => panic!("{other:?}"),
    }
}

fn attached(placing: Placing) -> StreamSlot {
    match placing {
        Placing::Attach { slot, .. } => slot,
        other => panic!("{other:?}"),
    }
}

fn contends(placing: Placing) -> StreamSlot {
    match placing {
        Placing::Contend { slot, .. } => slot,
        other => panic!("{other:?}"),
    }
}

/// Every arrow of the picture. `None`: the identity is free.
#[test]
fn identity_goes_where_the_picture_says() {
    let id = |name: &str| StreamId(name.into());
    let fresh = |state: Option<SessionState>| {
        let (mut table, now) = (Table::new(9, 1), origin());
        if let Some(state) = state {
            started(table.place(now, claim("a", &[1, 100])));
            table.reported(now, session("a", state));
        }
        (table, now)
    };
    let state = |table: &Table| table.find(&id("a")).map(|_| sessions(table)[0].state);
    for from in [None, Some(SessionState::Starting), Some(SessionState::Live), Some(SessionState::Grace)] {
        // Its own identity: a new stream, or the one that has it, which takes the new publisher's name.
        let (mut table, now) = fresh(from);
        let placed = table.place(now, claim("b", &[1, 100]));
        match from {
            None => drop(started(placed)),
            Some(_) => {
                attached(placed);
                table.decided(&id("b"), true);
                assert_eq!((table.streams(), table.find(&id("a"))), (1, None), "{from:?}");
            }
        }
        assert!(table.find(&id("b")).is_some(), "{from:?}");
        // An upstream's identity alone: the stream that has it is asked.
        let (mut table, now) = fresh(from);
        let placed = table.place(now, claim("c", &[2, 100]));
        match from {
            None => drop(started(placed)),
            Some(_) => drop(contends(placed)),
        }
        // Live, as the stream reports.
        let (mut table, now) = fresh(from);
        table.reported(now, session("a", SessionState::Live));
        assert_eq!(state(&table), from.map(|_| SessionState::Live), "{from:?}");
        // Gone: the identity is free.
        let (mut table, now) = fresh(from);
        if let Some((slot, _)) = table.find(&id("a")) {
            table.gone(slot);
        }
        assert_eq!(state(&table), None);
        started(table.place(now, claim("d", &[1, 100])));
    }
}

#[test]
fn streams_go_to_the_thread_with_the_fewest() {
    let (mut table, now) = (Table::new(100, 3), origin());
    let placed: Vec<(StreamSlot, usize)> =
        (0..6).map(|number| started(table.place(now, claim(&number.to_string(), &[number])))).collect();
    assert_eq!(placed.iter().map(|(_, thread)| *thread).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
    table.gone(placed[1].0);
    table.gone(placed[4].0);
    assert_eq!(started(table.place(now, claim("next", &[9]))).1, 1);
    assert_eq!(started(table.place(now, claim("next but one", &[10]))).1, 1);
}

#[test]
fn session_is_listed_from_the_start_with_its_claim() {
    let (mut table, now) = (Table::new(1, 1), origin());
    let (slot, _) = started(table.place(now, claim("a", &[1, 2])));
    let [first] = &sessions(&table)[..] else { panic!() };
    assert_eq!((first.state, first.epoch, first.app.as_str()), (SessionState::Starting, 1, "live"));
    assert_eq!(first.identities, [who(1), who(2)]);

    let later = now + Duration::from_millis(7);
    let noted = table.reported(later, session("a", SessionState::Live)).unwrap();
    assert_eq!(noted, SessionChange { slot, loud: true, took: Some(Duration::from_millis(7)) });
    assert_eq!(sessions(&table)[0].identities.len(), 2, "what a report leaves out is not forgotten");
    let noted = table.reported(later, session("a", SessionState::Live)).unwrap();
    assert_eq!((noted.loud, noted.took), (false, None));
    // Back in grace and live again: that is no start.
    table.reported(later, session("a", SessionState::Grace));
    assert_eq!(table.reported(later, session("a", SessionState::Live)).unwrap().took, None);
    assert_eq!(table.reported(later, session("unknown", SessionState::Live)), None);
}

#[test]
fn change_of_counters_alone_is_not_loud() {
    let (mut table, now) = (Table::new(1, 1), origin());
    started(table.place(now, claim("a", &[1])));
    let up = |bytes, state| {
        let counts = UpstreamCounts { bytes, ..UpstreamCounts::default() };
        let upstream = UpstreamReport { state, counts, ..UpstreamReport::default() };
        Session { upstreams: vec![upstream], ..session("a", SessionState::Starting) }
    };
    let mut loud = |session| table.reported(now, session).unwrap().loud;
    assert!(loud(up(0, UpstreamState::Dialing)));
    assert!(!loud(up(5, UpstreamState::Dialing)));
    assert!(loud(up(5, UpstreamState::Live)));
}

#[test]
fn full_table_declines_unless_the_identity_is_known() {
    let (mut table, now) = (Table::new(1, 1), origin());
    let (slot, _) = started(table.place(now, claim("a", &[1])));
    assert_eq!(table.place(now, claim("b", &[2])), Placing::Decline(Decline::Full));
    assert_eq!(attached(table.place(now, claim("c", &[1]))), slot);
    table.drain();
    assert_eq!(table.place(now, claim("d", &[1])), Placing::Decline(Decline::Draining));
}

#[test]
fn claim_attaches_only_to_a_stream_of_its_own_identity() {
    let (mut table, now) = (Table::new(9, 2), origin());
    let (first, _) = started(table.place(now, claim("a", &[1, 100])));
    let (second, _) = started(table.place(now, claim("b", &[2])));
    assert_eq!(attached(table.place(now, claim("c", &[2, 100]))), second, "a stream goes on with the upstreams it has");
    assert_eq!(contends(table.place(now, claim("d", &[3, 100]))), first);
    // The same stay again, after the activator lost its connection: whichever identities it claims.
    assert_eq!(attached(table.place(now, claim("b", &[1]))), second);
}

#[test]
fn upstream_that_was_given_up_is_the_contenders() {
    let (mut table, now) = (Table::new(9, 1), origin());
    let (first, _) = started(table.place(now, claim("a", &[1, 100])));
    assert_eq!(contends(table.place(now, claim("b", &[2, 100]))), first);
    assert_eq!(table.streams(), 1, "a contender has no place");
    table.answered(first, &StreamId("b".into()), &[who(100)]);
    assert_eq!(sessions(&table)[0].identities, [who(1)]);
    let (second, _) = started(table.place(now, claim("b", &[2, 100])));
    // The first stream's publisher continues without the upstream, which is the second stream's.
    assert_eq!(attached(table.place(now, claim("c", &[1, 100]))), first);
    table.decided(&StreamId("c".into()), true);
    assert_eq!(contends(table.place(now, claim("d", &[3, 100]))), second);
    table.gone(first);
    assert_eq!(contends(table.place(now, claim("c", &[1, 100]))), second);
}

#[test]
fn contender_of_several_streams_asks_the_one_that_may_refuse_before_those_in_grace() {
    let (mut table, now) = (Table::new(9, 1), origin());
    started(table.place(now, claim("a", &[1, 100])));
    table.reported(now, session("a", SessionState::Grace));
    let (live, _) = started(table.place(now, claim("b", &[2, 101])));
    assert_eq!(contends(table.place(now, claim("c", &[3, 100, 101]))), live);
}

#[test]
fn contenders_of_one_stream_are_bounded() {
    let (mut table, now) = (Table::new(1, 1), origin());
    let (slot, _) = started(table.place(now, claim("a", &[1, 100])));
    for number in 0..MAX_UNDECIDED {
        contends(table.place(now, claim(&format!("b{number}"), &[2, 100])));
    }
    assert_eq!(table.place(now, claim("c", &[2, 100])), Placing::Decline(Decline::Other));
    table.answered(slot, &StreamId("b0".into()), &[]);
    assert_eq!(contends(table.place(now, claim("c", &[2, 100]))), slot, "it kept its upstream");
}

#[test]
fn attached_publisher_gives_the_stream_its_name() {
    let (mut table, now) = (Table::new(9, 1), origin());
    let (slot, _) = started(table.place(now, claim("a", &[1, 100])));
    table.reported(now, session("a", SessionState::Live));
    attached(table.place(now, StreamClaim { epoch: 5, ..claim("b", &[1, 101]) }));
    table.decided(&StreamId("b".into()), true);
    let [only] = &sessions(&table)[..] else { panic!() };
    assert_eq!((only.stream_id.as_str(), only.epoch, only.state), ("b", 5, SessionState::Live));
    assert_eq!(only.identities, [who(1), who(100)], "the upstreams stay what they are");
    assert_eq!(table.find(&StreamId("b".into())), Some((slot, 0)));
    assert_eq!(table.find(&StreamId("a".into())), None);
    assert_eq!(table.reported(now, session("a", SessionState::Live)), None, "it is another one now");

    // The stream's own reports count from then on.
    let now_it_is = Session { identities: vec![Identity([1; 16])], ..session("b", SessionState::Live) };
    assert!(table.reported(now, now_it_is).is_some());
    started(table.place(now, claim("c", &[2, 100])));
}

#[test]
fn refused_publisher_changes_nothing() {
    let (mut table, now) = (Table::new(9, 1), origin());
    let (slot, _) = started(table.place(now, claim("a", &[1])));
    attached(table.place(now, claim("b", &[1])));
    table.decided(&StreamId("b".into()), false);
    table.decided(&StreamId("never heard of".into()), true);
    assert_eq!(table.find(&StreamId("a".into())), Some((slot, 0)));
    assert_eq!(table.streams(), 1);
}

#[test]
fn undecided_claims_of_one_stream_are_bounded() {
    let (mut table, now) = (Table::new(9, 1), origin());
    started(table.place(now, claim("a", &[1])));
    for number in 0..MAX_UNDECIDED {
        attached(table.place(now, claim(&format!("b{number}"), &[1])));
    }
    assert_eq!(table.place(now, claim("c", &[1])), Placing::Decline(Decline::Other));
    table.decided(&StreamId("b0".into()), false);
    attached(table.place(now, claim("c", &[1])));
}

#[test]
fn only_the_end_of_the_task_frees_the_place() {
    let (mut table, now) = (Table::new(1, 1), origin());
    let (slot, _) = started(table.place(now, claim("a", &[1])));
    table.ended(&StreamId("a".into()));
    assert_eq!(table.streams(), 1);
    attached(table.place(now, claim("b", &[1])));
    assert_eq!(table.gone(slot).unwrap().1, TaskEnd::Ended);
    assert_eq!(table.gone(slot), None);
    let (slot, _) = started(table.place(now, claim("b", &[1])));
    assert_eq!(table.gone(slot).unwrap().1, TaskEnd::Died);
}

#[test]
fn each_change_of_a_session_is_passed_on_once() {
    use SessionState::{Ended, Live, Starting};
    let told = |id: &str, state, reason: &str| (id.to_owned(), state, reason.to_owned());
    let (mut table, now) = (Table::new(2, 1), origin());
    let (slot, _) = started(table.place(now, claim("a", &[1, 100])));
    assert_eq!((changed(&mut table), changed(&mut table)), (vec![told("a", Starting, "")], vec![]));
    table.reported(now, session("a", Live));
    table.reported(now, session("a", Live));
    assert_eq!(changed(&mut table), [told("a", Live, "")]);
    table.answered(slot, &StreamId("b".into()), &[who(100)]);
    assert_eq!(changed(&mut table), [told("a", Live, "")]);
    assert_eq!(sessions(&table)[0].identities, [who(1)]);

    attached(table.place(now, claim("b", &[1])));
    table.decided(&StreamId("b".into()), true);
    assert_eq!(changed(&mut table), [told("b", Live, ""), told("a", Ended, "")], "it has another name");
    attached(table.place(now, StreamClaim { epoch: 9, ..claim("b", &[1]) }));
    table.decided(&StreamId("b".into()), true);
    assert_eq!(changed(&mut table), [told("b", Live, "")], "the same stay of its publisher");

    assert_eq!((table.streams(), table.served()), (1, 1));
    table.reported(now, Session { reason: "enough".into(), ..session("b", Ended) });
    assert_eq!((table.streams(), table.served()), (1, 0));
    table.ended(&StreamId("b".into()));
    table.gone(slot).unwrap();
    assert_eq!(changed(&mut table), [told("b", Ended, "enough"), told("b", Ended, "enough")]);
    let (slot, _) = started(table.place(now, claim("b", &[1])));
    assert_eq!((table.gone(slot).unwrap().1, table.served()), (TaskEnd::Died, 0));
    assert_eq!(changed(&mut table), [told("b", Starting, ""), told("b", Ended, "its task died")]);
}

#[derive(Clone, Debug)]
enum Action {
    Place(u8, Vec<u8>),
    Report(u8, bool),
    Decide(u8, bool),
    Answer(usize, u8, Option<u8>),
    End(u8),
    Gone(usize),
}

fn action() -> impl Strategy<Value = Action> {
    let few = || 0..6_u8;
    prop_oneof![
        3 => (few(), prop::collection::vec(few(), 1..4)).prop_map(|(id, identities)| Action::Place(id, identities)),
        1 => (few(), any::<bool>()).prop_map(|(id, named)| Action::Report(id, named)),
        2 => (few(), any::<bool>()).prop_map(|(id, accepted)| Action::Decide(id, accepted)),
        2 => (0..8_usize, few(), prop::option::of(few())).prop_map(|(at, id, up)| Action::Answer(at, id, up)),
        1 => few().prop_map(Action::End),
        2 => (0..8_usize).prop_map(Action::Gone),
    ]
}

proptest! {
    #[test]
    fn any_order_of_events_keeps_the_rules(actions in prop::collection::vec(action(), 1..200)) {
        let (mut table, now) = (Table::new(4, 2), origin());
        let mut listed: BTreeMap<String, bool> = BTreeMap::new();
        for action in actions {
            match action {
                Action::Place(id, identities) => {
                    let identities: Vec<u8> =
                        identities.iter().take(1).copied().chain(identities.iter().skip(1).map(|up| 100 + up)).collect();
                    let known = identities.iter().any(|identity| table.identities.contains_key(&who(*identity)));
                    let own = table.identities.get(&who(identities[0])).copied();
                    let same_stay = table.known(&StreamClaim { identities: vec![], ..claim(&id.to_string(), &[]) });
                    let placed = table.place(now, claim(&id.to_string(), &identities));
                    prop_assert!(!(known && matches!(placed, Placing::Start { .. })), "one identity twice");
                    if let Placing::Attach { slot, .. } = placed {
                        prop_assert!(own == Some(slot) || same_stay == Some(slot), "attached to another stream");
                    }
                }
                Action::Report(id, named) => {
                    let identities = if named { vec![who(id)] } else { Vec::new() };
                    table.reported(now, Session { identities, ..session(&id.to_string(), SessionState::Live) });
                }
                Action::Decide(id, accepted) => table.decided(&StreamId(id.to_string()), accepted),
                Action::Answer(at, id, given_up) => {
                    let given_up: Vec<Identity> = given_up.into_iter().map(|up| who(100 + up)).collect();
                    let slot = table.places.keys().nth(at).copied().unwrap_or(StreamSlot(0));
                    table.answered(slot, &StreamId(id.to_string()), &given_up);
                }
                Action::End(id) => table.ended(&StreamId(id.to_string())),
                Action::Gone(at) => {
                    let slot = table.places.keys().nth(at).copied();
                    if let Some(slot) = slot {
                        prop_assert!(table.gone(slot).is_some());
                    }
                }
            }
            prop_assert!(table.streams() <= 4);
            prop_assert_eq!(table.threads.iter().sum::<usize>(), table.places.len());
            prop_assert!(table.identities.values().chain(table.names.values()).all(|slot| table.places.contains_key(slot)));
            for (slot, place) in &table.places {
                prop_assert_eq!(table.names.get(&StreamId(place.session.stream_id.clone())), Some(slot));
                prop_assert!(place.undecided.len() <= MAX_UNDECIDED && place.contenders.len() <= MAX_UNDECIDED);
            }
            let served = table.places.values().filter(|place| is_served(&place.session)).count();
            prop_assert_eq!((table.served(), table.names.len()), (served, table.places.len()));
            let known: BTreeMap<String, bool> =
                table.take_changed().map(|session| (session.stream_id.clone(), is_served(&session))).collect();
            listed.extend(known);
            let are: Vec<&str> = listed.iter().filter(|(_, served)| **served).map(|(id, _)| id.as_str()).collect();
            let mut served: Vec<&str> = table.places.values().map(|place| place.session.stream_id.as_str()).collect();
            served.sort_unstable();
            prop_assert_eq!(are, served, "a reader of the changes knows every stream");
        }
    }
}
