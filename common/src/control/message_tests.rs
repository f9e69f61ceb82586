//! Each message goes to the wire and back; what cannot be used is refused or made fit.

use super::super::limits::{MAX_IDENTITIES, MAX_STREAM_ID, MAX_TEXT, MAX_TEXTS, MAX_UPSTREAMS};
use super::super::{
    ExcerptPart, ExcerptRefusal, KindBytes, MediaFigures, SessionState, StreamFigures, UpstreamCounts, UpstreamReport,
    UpstreamState, UpstreamTimes,
};
use super::*;
use crate::clock::UtcTime;
use crate::key::Identity;

fn session() -> Session {
    let counts = UpstreamCounts { bytes: 1, messages: 2, lost: 3, replayed: 4, reconnects: 5, lag: 0, skipped: 0 };
    let times = UpstreamTimes { since: UtcTime(6), failed: UtcTime(7) };
    let (error, fault) = ("refused".to_owned(), "connection_refused".to_owned());
    let name = "origin".to_owned();
    let report =
        UpstreamReport { name, host: "up:1935".into(), error, fault, counts, times, ..UpstreamReport::default() };
    let upstream = |state| UpstreamReport { state, ..report.clone() };
    let (video, audio) = ("h264".into(), "aac".into());
    let media = MediaFigures {
        video,
        audio,
        width: 1280,
        height: 720,
        frame_rate: 29_970,
        profile: [100, 0, 31],
        object_type: 2,
        channels: 2,
        sample_rate: 48_000,
    };
    Session {
        stream_id: "0123456789abcdef".into(),
        app: "live".into(),
        publisher: "studio-a".into(),
        state: SessionState::Grace,
        identities: vec![Identity([1; 16]), Identity([2; 16])],
        epoch: 7,
        reason: "asked for".into(),
        messages: 9,
        figures: StreamFigures {
            bytes: 10,
            kinds: KindBytes { video: 7, audio: 2 },
            keyframe_interval: 2000,
            first_media: 12_000,
            media,
            keyframe_age: 0,
        },
        revision: 3,
        upstreams: UpstreamState::ALL.map(upstream).to_vec(),
    }
}

fn hello(availability: Availability) -> Hello {
    Hello {
        name: "w".into(),
        capacity: 3,
        availability,
        sessions: vec![session()],
        network: "net".into(),
        version: "1".into(),
        takes_lists: true,
        key: Some(InstanceKey([7; 32])),
        age: Some(Duration::from_millis(40)),
        excerpts: true,
    }
}

const AVAILABILITIES: [Availability; 5] =
    [Availability::Open, Availability::Cordoned, Availability::Leaving, Availability::Drained, Availability::Draining];

#[test]
fn texts_of_a_hello_that_are_logged_are_bounded() {
    let long = "v".repeat(1 << 20);
    let said = wire::Hello { version: long.clone(), network: long, ..hello(Availability::Open).into() };
    let heard = Hello::try_from(said).unwrap();
    assert_eq!((heard.version.as_str(), heard.network.as_str()), ("", ""));
}

#[test]
fn worker_messages_survive_the_wire() {
    let load = |availability| WorkerMessage::Load(Load { streams: 6, capacity: 3, availability });
    let declined = |reason| WorkerMessage::Declined(Declined { stream_id: "s".into(), epoch: u64::MAX, reason });
    let reasons =
        [DeclineReason::Other, DeclineReason::Full, DeclineReason::Draining, DeclineReason::Unreachable].map(declined);
    let states =
        [SessionState::Unknown, SessionState::Starting, SessionState::Live, SessionState::Grace, SessionState::Ended]
            .map(|state| WorkerMessage::Session(Session { state, ..session() }));
    let all = AVAILABILITIES.map(|it| WorkerMessage::Hello(hello(it))).into_iter().chain(AVAILABILITIES.map(load));
    let counters = WorkerMessage::Counters(vec![SessionCounters::of(&session()), SessionCounters::default()]);
    let piece = |bytes: Result<&'static [u8], ExcerptRefusal>, last| {
        WorkerMessage::Excerpt(ExcerptPiece { number: u64::MAX, bytes: bytes.map(bytes::Bytes::from_static), last })
    };
    let refusals = [
        ExcerptRefusal::Busy,
        ExcerptRefusal::StreamUnknown,
        ExcerptRefusal::NoKeyframe,
        ExcerptRefusal::NoVideo,
        ExcerptRefusal::DestinationUnknown,
        ExcerptRefusal::NeverSent,
        ExcerptRefusal::NotKept,
    ];
    let pieces = [piece(Ok(b"FLV"), false), piece(Ok(b""), true)];
    let pieces = pieces.into_iter().chain(refusals.map(|refusal| piece(Err(refusal), true)));
    for message in all.chain(reasons).chain(states).chain(pieces).chain([WorkerMessage::Goodbye, counters]) {
        let say = wire::WorkerSays::from(message.clone()).say.unwrap();
        assert_eq!(WorkerMessage::try_from(say), Ok(message));
    }
}

#[test]
fn excerpts_are_bounded_on_both_sides() {
    let order = |stream_id: &str, destination: String| {
        let (stream_id, last_keyframe) = (stream_id.to_owned(), true);
        ActivatorMessage::parse(ActivatorSay::Excerpt(wire::Excerpt {
            number: 1,
            stream_id,
            last_keyframe,
            destination,
        }))
    };
    assert!(order("0123456789abcdef", "d".repeat(MAX_TEXT)).is_some());
    assert!(order("0123456789abcdef", "d".repeat(MAX_TEXT + 1)).is_none());
    assert!(order("not an id", String::new()).is_none());
    let piece = |bytes: usize, refusal| {
        let piece = wire::ExcerptPiece { number: 1, bytes: vec![0; bytes], last: false, refusal };
        WorkerMessage::try_from(WorkerSay::Excerpt(piece))
    };
    assert!(piece(MAX_PIECE, 0).is_ok());
    assert_eq!(piece(MAX_PIECE + 1, 0), Err(Malformed::Excerpt));
    // A reason of a later release: an empty piece, which no file begins with.
    assert!(
        matches!(piece(0, 99), Ok(WorkerMessage::Excerpt(ExcerptPiece { bytes: Ok(bytes), .. })) if bytes.is_empty())
    );
}

#[test]
fn activator_messages_survive_the_wire() {
    let welcome = Welcome {
        activator: "a".into(),
        handoff_socket: "socket".into(),
        link_port: 6002,
        counters: true,
        totals: true,
    };
    let token = [3; TOKEN_BYTES];
    let offer = Offer { stream_id: "s".into(), epoch: 1, token, descriptor: true, known: false, challenge: None };
    let excerpt =
        |part| ActivatorMessage::Excerpt(ExcerptOrder { number: 5, stream_id: "0123456789abcdef".into(), part });
    let challenged = Offer { challenge: Some([4; NONCE_BYTES]), ..offer.clone() };
    let all = [
        ActivatorMessage::Welcome(welcome),
        ActivatorMessage::Offer(offer),
        ActivatorMessage::Offer(challenged),
        ActivatorMessage::UnreadableOffer { stream_id: "s".into(), epoch: 1 },
        ActivatorMessage::Cordon(Cordon::Off),
        ActivatorMessage::Cordon(Cordon::On),
        ActivatorMessage::Cordon(Cordon::Leaving),
        ActivatorMessage::Drain(true),
        ActivatorMessage::Drain(false),
        ActivatorMessage::Kick { stream_id: "s".into(), reason: "asked for".into() },
        ActivatorMessage::Meet("[::1]:6001".parse().unwrap()),
        ActivatorMessage::Fence { stream_id: "s".into(), epoch: 2 },
        excerpt(ExcerptPart::All),
        excerpt(ExcerptPart::LastKeyframe),
        excerpt(ExcerptPart::SentKeyframe("main".into())),
        ActivatorMessage::ExcerptNext { number: 5, drop: false },
        ActivatorMessage::ExcerptNext { number: 5, drop: true },
    ];
    for message in all {
        let say = wire::ActivatorSays::from(message.clone()).say.unwrap();
        assert_eq!(ActivatorMessage::parse(say), Some(message));
    }
    assert_eq!(ActivatorMessage::parse(ActivatorSay::Meet(wire::Meet { address: "nowhere".into() })), None);
    let far = wire::Welcome { link_port: 65536, ..wire::Welcome::default() };
    assert_eq!(
        ActivatorMessage::parse(ActivatorSay::Welcome(far)),
        Some(ActivatorMessage::Welcome(Welcome::default()))
    );
}

#[test]
fn impossible_messages_of_workers_are_refused() {
    let good = || wire::Hello::from(hello(Availability::Open));
    let hellos = [
        (wire::Hello { name: "a b".into(), ..good() }, Malformed::Name),
        (wire::Hello { capacity: 0, ..good() }, Malformed::Capacity),
        (wire::Hello { capacity: MAX_CAPACITY + 1, ..good() }, Malformed::Capacity),
    ];
    for (hello, reason) in hellos {
        assert_eq!(WorkerMessage::try_from(WorkerSay::Hello(hello)), Err(reason));
    }
    let load = wire::Load { streams: 7, capacity: 3, ..wire::Load::default() };
    let reason = Malformed::Streams { streams: 7, capacity: 3 };
    assert_eq!(WorkerMessage::try_from(WorkerSay::Load(load)), Err(reason));
    let load = wire::Load { streams: 0, capacity: 0, ..wire::Load::default() };
    assert_eq!(WorkerMessage::try_from(WorkerSay::Load(load)), Err(Malformed::Capacity));
    let declined = wire::Declined { stream_id: "s t".into(), ..wire::Declined::default() };
    assert_eq!(WorkerMessage::try_from(WorkerSay::Declined(declined)), Err(Malformed::Declined));
    let mut one_bad = good();
    one_bad.sessions.insert(0, wire::Session::default());
    let Ok(WorkerMessage::Hello(told)) = WorkerMessage::try_from(WorkerSay::Hello(one_bad)) else { panic!() };
    assert_eq!(told.sessions, [session()]);
}

#[test]
fn a_session_is_bounded_and_fit_to_be_shown() {
    let good = || wire::Session::from(session());
    for stream_id in ["", "two words", "é", "a\n", &"x".repeat(MAX_STREAM_ID + 1)] {
        let session = wire::Session { stream_id: stream_id.into(), ..good() };
        assert_eq!(Session::try_from(session), Err(Malformed::Session), "{stream_id:?}");
    }
    assert_eq!(Session::try_from(wire::Session { epoch: MAX_EPOCH + 1, ..good() }), Err(Malformed::Session));
    let long = wire::Upstream {
        host: "h".repeat(1000),
        error: "é".repeat(1000),
        state: "odd".into(),
        ..wire::Upstream::default()
    };
    let mut identities = vec![vec![1; 16]; 2 * MAX_IDENTITIES];
    identities.insert(0, vec![1; 15]);
    let large = wire::Session {
        app: "a\n".repeat(1000),
        reason: "a\nb".into(),
        state: 99,
        upstreams: vec![long; 2 * MAX_UPSTREAMS],
        figures: Some(wire::StreamFigures { video: "h\n".into(), audio: "a".repeat(1000), ..Default::default() }),
        identities,
        ..good()
    };
    let told = Session::try_from(large).unwrap();
    assert_eq!(
        (told.state, told.identities.len(), told.upstreams.len()),
        (SessionState::Unknown, MAX_IDENTITIES, MAX_UPSTREAMS)
    );
    assert_eq!(
        (told.identities.capacity(), told.upstreams.capacity()),
        (MAX_IDENTITIES, MAX_UPSTREAMS),
        "nothing is kept"
    );
    assert_eq!(told.figures.media, MediaFigures::default(), "no such codec");
    assert!(told.app.len() <= MAX_TEXT && !told.app.contains('\n') && !told.reason.contains('\n'));
    assert!(told.upstreams[0].host.len() <= MAX_TEXT);
    assert_eq!(told.upstreams[0].state, UpstreamState::Unknown);
    let texts: usize = told.upstreams.iter().map(|upstream| upstream.host.len() + upstream.error.len()).sum();
    assert!(texts <= MAX_TEXTS, "{texts}");
    let app = "ü".repeat(127);
    assert_eq!(
        Session::try_from(wire::Session { app: app.clone(), ..good() }).unwrap().app,
        app,
        "it is counted by its name"
    );
}

#[test]
fn counters_bring_a_session_up_to_date() {
    let mut grown = session();
    grown.messages += 1;
    (grown.figures.bytes, grown.figures.keyframe_interval) = (11, 1999);
    for upstream in &mut grown.upstreams {
        upstream.counts =
            UpstreamCounts { bytes: 10, messages: 20, lost: 30, replayed: 40, reconnects: 5, lag: 50, skipped: 0 };
    }
    let WorkerMessage::Counters(mut told) = WorkerMessage::Counters(vec![SessionCounters::of(&grown)]) else {
        panic!()
    };
    let mut known = session();
    told[0].bring_up_to_date(&mut known);
    assert_eq!(known, grown);
    // A worker that tells of more upstreams than the session has adds none.
    told[0].upstreams.push(UpstreamCounts::default());
    told[0].bring_up_to_date(&mut known);
    assert_eq!(known, grown);
}

#[test]
fn only_counters_may_wait_to_be_told() {
    let before = session();
    let mut grown = before.clone();
    grown.messages += 1;
    (grown.figures.bytes, grown.figures.keyframe_interval) = (11, 1999);
    grown.upstreams[0].counts = UpstreamCounts { reconnects: 5, ..UpstreamCounts::default() };
    assert!(!before.differs_beyond_counters(&grown));
    let other: [fn(&mut Session); 8] = [
        |session| session.figures.media.width = 640,
        |session| session.state = SessionState::Live,
        |session| session.identities.clear(),
        |session| session.upstreams[0].error.clear(),
        |session| session.upstreams[0].fault.clear(),
        |session| session.upstreams[0].state = UpstreamState::Closed,
        |session| session.upstreams[0].counts.reconnects += 1,
        |session| session.upstreams.truncate(1),
    ];
    for change in other {
        let mut after = before.clone();
        change(&mut after);
        assert!(before.differs_beyond_counters(&after) && after.differs_beyond_counters(&before));
    }
}
