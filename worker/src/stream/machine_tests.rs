//! The picture above the states, walked; and each rule on virtual time.

use liveedgecast_common::testkit::origin;

use super::AttachDecision::{Adopt, Duplicate, Follow, Return};
use super::*;

const HOLD: Duration = Duration::from_secs(120);
const GRACE: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

struct Fixture {
    machine: Machine,
    now: Instant,
}

impl Fixture {
    fn new(upstreams: usize, started: bool) -> Self {
        let now = origin();
        let times = Times { hold_left: HOLD, grace: GRACE };
        Self { machine: Machine::new(now, times, vec![false; upstreams], started), now }
    }

    fn in_state(state: State) -> Self {
        let mut fixture = Self::new(1, state != State::Starting);
        match state {
            State::Starting | State::Live => {}
            State::Grace => fixture.handle(lost()),
            State::Closing => fixture.handle(Input::Ended),
            State::Ended => {
                let inputs = [Input::Ended, Input::PublisherClosed, Input::UpstreamsClosed];
                inputs.into_iter().for_each(|input| fixture.handle(input));
            }
        }
        assert_eq!(fixture.machine.state(), state);
        fixture.outputs();
        fixture
    }

    fn handle(&mut self, input: Input) {
        self.machine.handle(self.now, input);
    }

    /// Time passes, as the shell would notice.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.machine.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.machine.handle_timeout(self.now);
        }
        self.now = until;
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.machine.poll_output()).collect()
    }
}

fn lost() -> Input {
    Input::Lost { why: "connection closed", how: Close::Graceful }
}

fn newcomer() -> Newcomer {
    Newcomer { same: false, started: false, hold_left: HOLD, may_follow: true, memory: NewcomerMemory::Own }
}

fn end(how: Close, reason: &str) -> Output {
    Output::EndPublisher { how, reason: reason.to_owned() }
}

#[test]
fn every_input_leads_from_every_state_where_the_picture_says() {
    use State::{Closing, Ended, Grace, Live, Starting};
    type Row = (Input, [State; 5]);
    let table: Vec<Row> = vec![
        // Input                                   Starting   Live     Grace    Closing  Ended
        (Input::UpstreamLive(0), [Live, Live, Grace, Closing, Ended]),
        (Input::UpstreamRefused(0), [Closing, Live, Grace, Closing, Ended]),
        (Input::UpstreamJoined { at: 1, required: true }, [Starting, Live, Grace, Closing, Ended]),
        (Input::UpstreamRenewed(0), [Starting, Live, Grace, Closing, Ended]),
        (Input::UpstreamLeft(0), [Live, Live, Grace, Closing, Ended]),
        (Input::UpstreamsClosed, [Starting, Live, Grace, Closing, Ended]),
        (Input::PublisherClosed, [Starting, Live, Grace, Closing, Ended]),
        (Input::Ended, [Closing, Closing, Closing, Closing, Ended]),
        (lost(), [Closing, Grace, Grace, Closing, Ended]),
        (Input::Attach(newcomer()), [Starting, Live, Live, Closing, Ended]),
        (Input::Fence, [Closing, Closing, Closing, Closing, Ended]),
        (Input::Alone(true), [Starting, Live, Closing, Closing, Ended]),
        (Input::Alone(false), [Starting, Live, Grace, Closing, Ended]),
        (Input::Contend, [Starting, Live, Grace, Closing, Ended]),
        (Input::GivenUp(0), [Closing, Closing, Closing, Closing, Ended]),
        (Input::Kick("kicked".to_owned()), [Closing, Closing, Closing, Closing, Ended]),
        (Input::HandBack { possible: true }, [Closing, Closing, Closing, Closing, Ended]),
        (Input::HandBack { possible: false }, [Starting, Live, Closing, Closing, Ended]),
    ];
    for (input, expected) in table {
        for (from, to) in [Starting, Live, Grace, Closing, Ended].into_iter().zip(expected) {
            let mut fixture = Fixture::in_state(from);
            fixture.handle(input.clone());
            assert_eq!(fixture.machine.state(), to, "{from:?}, {input:?}");
            let told: Vec<_> =
                fixture.outputs().into_iter().filter(|output| matches!(output, Output::State(_))).collect();
            let changed = from != to || (from == Live && matches!(input, Input::Attach(_)) && told.len() == 1);
            assert_eq!(told, if changed { vec![Output::State(to)] } else { vec![] }, "{from:?}, {input:?}");
        }
    }
}

#[test]
fn time_leads_from_every_state_where_the_picture_says() {
    use State::{Closing, Ended, Grace, Live, Starting};
    let table = [
        (Starting, HOLD, Closing),
        (Live, SILENCE_ENDS_AFTER, Closing),
        (Grace, GRACE, Closing),
        (Closing, CLOSE_TIME, Ended),
    ];
    for (from, time, to) in table {
        let mut fixture = Fixture::in_state(from);
        fixture.pass(time - Duration::from_millis(1));
        assert_eq!(fixture.machine.state(), from);
        fixture.pass(Duration::from_millis(1));
        assert_eq!(fixture.machine.state(), to, "{from:?}");
    }
    let mut ended = Fixture::in_state(Ended);
    ended.pass(HOLD);
    assert_eq!((ended.machine.state(), ended.machine.poll_timeout()), (Ended, None));
    for inputs in [[Input::PublisherClosed, Input::UpstreamsClosed], [Input::UpstreamsClosed, Input::PublisherClosed]] {
        let mut closing = Fixture::in_state(Closing);
        let [first, second] = inputs;
        closing.handle(first);
        assert_eq!(closing.machine.state(), Closing);
        closing.handle(second);
        assert_eq!(closing.machine.state(), Ended, "upstreams and publisher are closed");
    }
}

#[test]
fn publisher_starts_with_the_first_upstream() {
    let mut fixture = Fixture::new(2, false);
    assert_eq!(fixture.outputs(), [Output::State(State::Starting)]);
    fixture.handle(Input::UpstreamRefused(0));
    assert_eq!(fixture.outputs(), []);
    fixture.handle(Input::UpstreamLive(1));
    assert_eq!(fixture.outputs(), [Output::Start, Output::State(State::Live)]);
    fixture.handle(Input::UpstreamLive(0));
    fixture.handle(Input::UpstreamRefused(0));
    fixture.handle(Input::UpstreamRefused(1));
    assert_eq!(fixture.outputs(), [], "told to start, it is not dropped for an upstream's sake");
}

#[test]
fn publisher_is_refused_only_when_every_upstream_has_refused() {
    let mut fixture = Fixture::new(2, false);
    fixture.outputs();
    fixture.handle(Input::UpstreamRefused(1));
    fixture.handle(Input::UpstreamRefused(1));
    assert_eq!(fixture.outputs(), []);
    fixture.handle(Input::UpstreamRefused(0));
    let why = "refused by the upstream";
    assert_eq!(
        fixture.outputs(),
        [
            Output::Refuse(why.to_owned()),
            end(Close::Graceful, why),
            Output::CloseUpstreams,
            Output::State(State::Closing)
        ]
    );
}

#[test]
fn required_upstream_decides_alone() {
    let times = Times { hold_left: HOLD, grace: GRACE };
    let now = origin();
    let mut fixture = Fixture { machine: Machine::new(now, times, vec![false, true], false), now };
    fixture.handle(Input::UpstreamLive(0));
    assert_eq!(fixture.machine.state(), State::Starting);
    fixture.handle(Input::UpstreamLive(1));
    assert_eq!(fixture.machine.state(), State::Live);

    let mut fixture = Fixture { machine: Machine::new(now, times, vec![false, true], false), now };
    fixture.handle(Input::UpstreamLive(0));
    fixture.handle(Input::UpstreamRefused(1));
    assert_eq!(fixture.machine.state(), State::Closing);
}

#[test]
fn upstreams_that_join_and_leave_count_for_the_start_only_while_they_are_there() {
    let mut fixture = Fixture::new(1, false);
    fixture.handle(Input::UpstreamJoined { at: 1, required: true });
    fixture.handle(Input::UpstreamLive(0));
    assert_eq!(fixture.machine.state(), State::Starting, "a required one has joined");
    fixture.handle(Input::UpstreamLeft(1));
    assert_eq!(fixture.machine.state(), State::Live);
    fixture.handle(Input::UpstreamLeft(0));
    fixture.handle(Input::UpstreamLeft(0));
    fixture.handle(Input::UpstreamLive(0));
    fixture.handle(Input::GivenUp(0));
    assert_eq!(fixture.machine.state(), State::Live, "the publisher stays without any");

    let mut fixture = Fixture::new(2, false);
    fixture.handle(Input::UpstreamRefused(1));
    fixture.handle(Input::UpstreamRenewed(1));
    fixture.handle(Input::UpstreamRefused(0));
    assert_eq!(fixture.machine.state(), State::Starting, "the other one begins anew");
    fixture.handle(Input::UpstreamLeft(1));
    assert_eq!(fixture.machine.state(), State::Closing, "every other one has refused");

    assert_eq!(Fixture::new(0, false).outputs().last(), Some(&Output::State(State::Live)), "nothing to wait for");
}

#[test]
fn held_publisher_is_pinged_and_sent_away_when_its_time_is_spent() {
    let mut fixture = Fixture::in_state(State::Starting);
    fixture.pass(HOLD - SECOND);
    let pings = fixture.outputs();
    assert!(pings.iter().all(|output| *output == Output::Ping) && pings.len() == 29, "{pings:?}");
    fixture.pass(SECOND);
    assert_eq!(
        fixture.outputs(),
        [
            Output::SendAway,
            end(Close::Graceful, "hold time spent"),
            Output::CloseUpstreams,
            Output::State(State::Closing)
        ],
        "that makes encoders come back by themselves"
    );
}

#[test]
fn lost_publisher_is_waited_for_until_the_grace_time_is_over() {
    let mut fixture = Fixture::in_state(State::Live);
    fixture.handle(lost());
    assert_eq!(fixture.outputs(), [end(Close::Graceful, "connection closed"), Output::State(State::Grace)]);
    fixture.pass(GRACE - SECOND);
    fixture.handle(Input::Attach(newcomer()));
    assert_eq!(fixture.outputs(), [Output::Decide(Adopt), Output::Start, Output::State(State::Live)]);
    fixture.handle(lost());
    fixture.outputs();
    fixture.pass(GRACE);
    assert_eq!(fixture.outputs(), [Output::CloseUpstreams, Output::State(State::Closing)]);
    fixture.handle(Input::UpstreamsClosed);
    assert_eq!(fixture.outputs(), [Output::State(State::Ended)]);
}

#[test]
fn without_a_grace_time_a_lost_publisher_ends_the_stream() {
    let now = origin();
    let times = Times { hold_left: HOLD, grace: Duration::ZERO };
    let mut fixture = Fixture { machine: Machine::new(now, times, vec![false], true), now };
    fixture.handle(lost());
    assert_eq!(fixture.machine.state(), State::Closing);
}

#[test]
fn duplicate_is_refused_unless_the_publisher_is_silent() {
    for state in [State::Starting, State::Live] {
        let mut fixture = Fixture::in_state(state);
        fixture.pass(SILENT_AFTER - Duration::from_millis(1));
        fixture.outputs();
        fixture.handle(Input::Attach(newcomer()));
        assert_eq!(fixture.outputs(), [Output::Decide(Duplicate)], "{state:?}");
        fixture.pass(Duration::from_millis(1));
        fixture.handle(Input::Attach(newcomer()));
        let taken_over = [end(Close::Abort, "another publisher took over"), Output::Decide(Adopt)];
        let then = match state {
            State::Starting => vec![Output::State(State::Starting)],
            _ => vec![Output::Start, Output::State(State::Live)],
        };
        assert_eq!(fixture.outputs(), [&taken_over[..], &then].concat(), "{state:?}");
        // The one that took over speaks.
        fixture.pass(SILENT_AFTER - SECOND);
        fixture.machine.heard(fixture.now);
        fixture.pass(SILENT_AFTER - SECOND);
        fixture.outputs();
        fixture.handle(Input::Attach(newcomer()));
        assert_eq!(fixture.outputs(), [Output::Decide(Duplicate)], "{state:?}");
    }
}

#[test]
fn same_publisher_handed_over_again_is_no_duplicate() {
    let again = Newcomer { same: true, started: true, ..newcomer() };
    for state in [State::Live, State::Grace] {
        let mut fixture = Fixture::in_state(state);
        fixture.handle(Input::Attach(again));
        assert_eq!(fixture.outputs(), [Output::Decide(Adopt), Output::State(State::Live)], "{state:?}");
    }
}

#[test]
fn silence_ends_a_stream() {
    let mut fixture = Fixture::in_state(State::Live);
    fixture.pass(SILENCE_ENDS_AFTER - SECOND);
    fixture.machine.heard(fixture.now);
    fixture.pass(SILENCE_ENDS_AFTER - SECOND);
    assert_eq!(fixture.outputs(), []);
    fixture.pass(SECOND);
    assert_eq!(fixture.outputs()[0], end(Close::Abort, "the publisher is silent"));
}

#[test]
fn publisher_that_comes_while_the_stream_closes_is_next() {
    let mut fixture = Fixture::in_state(State::Closing);
    fixture.handle(Input::Attach(newcomer()));
    fixture.handle(Input::Attach(newcomer()));
    assert_eq!(fixture.outputs(), [Output::Decide(Follow), Output::CutUpstreams, Output::Decide(Duplicate)]);
    assert_eq!(fixture.machine.state(), State::Closing);
    fixture.pass(HURRIED_CLOSE_TIME);
    assert_eq!(fixture.outputs(), [Output::State(State::Ended)], "its activator does not wait for long");
}

#[test]
fn stream_that_another_worker_has_closes_its_upstreams_at_once_and_leaves_the_publisher_alone() {
    let closing = [Output::CloseUpstreams, Output::CutUpstreams, Output::State(State::Closing)];
    for (state, first) in
        [(State::Starting, Some(Output::GiveBack)), (State::Live, Some(Output::GiveBack)), (State::Grace, None)]
    {
        let mut fixture = Fixture::in_state(state);
        fixture.handle(Input::Fence);
        let expected: Vec<Output> = first.into_iter().chain(closing.clone()).collect();
        assert_eq!(fixture.outputs(), expected, "{state:?}");
        assert!(fixture.machine.goes_on(), "{state:?}");
    }
}

#[test]
fn publisher_is_not_waited_for_while_there_is_no_activator() {
    let mut fixture = Fixture::in_state(State::Live);
    fixture.handle(Input::Alone(true));
    fixture.handle(lost());
    assert_eq!(fixture.machine.state(), State::Closing);
    let mut fixture = Fixture::in_state(State::Live);
    fixture.handle(Input::Alone(true));
    fixture.handle(Input::Alone(false));
    fixture.handle(lost());
    assert_eq!(fixture.machine.state(), State::Grace, "it is there again");
}

#[test]
fn publisher_that_has_returned_leaves_no_reason_behind() {
    for started in [false, true] {
        let mut fixture = Fixture::in_state(State::Grace);
        assert_eq!(fixture.machine.reason(), "connection closed");
        fixture.handle(Input::Attach(Newcomer { started, ..newcomer() }));
        assert_eq!((fixture.machine.state(), fixture.machine.reason()), (State::Live, ""));
    }
}

#[test]
fn upstream_is_given_up_in_grace_or_when_the_publisher_is_silent() {
    for (state, gives_up) in [(State::Starting, false), (State::Live, false), (State::Grace, true)] {
        let mut fixture = Fixture::in_state(state);
        fixture.handle(Input::Contend);
        assert_eq!(fixture.outputs(), [Output::GiveUp(gives_up)], "{state:?}");
    }
    for state in [State::Starting, State::Live] {
        let mut fixture = Fixture::in_state(state);
        fixture.pass(SILENT_AFTER);
        fixture.outputs();
        fixture.handle(Input::Contend);
        assert_eq!(fixture.outputs(), [Output::GiveUp(true)], "{state:?}");
    }
}

#[test]
fn stream_goes_on_without_an_upstream_that_it_gave_up_and_ends_without_any() {
    let mut fixture = Fixture::new(2, true);
    fixture.handle(lost());
    fixture.outputs();
    fixture.handle(Input::GivenUp(1));
    assert_eq!(fixture.outputs(), []);
    fixture.handle(Input::Attach(newcomer()));
    assert_eq!(fixture.outputs(), [Output::Decide(Adopt), Output::Start, Output::State(State::Live)]);
    fixture.handle(Input::GivenUp(0));
    let why = "another stream took over its upstream";
    let closing = [Output::CloseUpstreams, Output::State(State::Closing), Output::CutUpstreams];
    assert_eq!(fixture.outputs(), [&[end(Close::Abort, why)][..], &closing].concat());
}

#[test]
fn upstream_that_was_given_up_starts_no_publisher() {
    let mut fixture = Fixture::new(2, false);
    fixture.outputs();
    fixture.handle(Input::GivenUp(1));
    fixture.handle(Input::UpstreamLive(1));
    assert_eq!((fixture.outputs(), fixture.machine.state()), (vec![], State::Starting));
    fixture.handle(Input::UpstreamLive(0));
    assert_eq!(fixture.outputs(), [Output::Start, Output::State(State::Live)]);
}

#[test]
fn publisher_that_needs_an_upstream_of_another_stream_does_not_follow_one_that_closes() {
    let mut fixture = Fixture::in_state(State::Closing);
    fixture.handle(Input::Attach(Newcomer { may_follow: false, ..newcomer() }));
    assert_eq!(fixture.outputs(), [Output::Decide(Return)]);
    fixture.handle(Input::Attach(newcomer()));
    fixture.outputs();
    fixture.handle(Input::Contend);
    assert_eq!(fixture.outputs(), [Output::GiveUp(false)], "the one that follows has it");
}

#[test]
fn memory_of_the_stream_serves_its_own_publisher_or_the_next_stream_alone() {
    use State::{Closing, Ended, Grace, Live, Starting};
    // Whether the publisher is the stream's own; the answers to one that came with the stream's memory, and to one with its own.
    let table = [
        (Starting, true, Adopt, Adopt),
        (Starting, false, Return, Duplicate),
        (Live, true, Adopt, Adopt),
        (Live, false, Return, Duplicate),
        (Grace, true, Adopt, Adopt),
        (Grace, false, Return, Adopt),
        (Closing, true, Follow, Follow),
        (Closing, false, Follow, Follow),
        (Ended, true, Return, Return),
        (Ended, false, Return, Return),
    ];
    for (state, same, with_same, with_own) in table {
        for (memory, expected) in [(NewcomerMemory::Same, with_same), (NewcomerMemory::Own, with_own)] {
            let mut fixture = Fixture::in_state(state);
            fixture.handle(Input::Attach(Newcomer { same, memory, ..newcomer() }));
            let decided: Vec<_> =
                fixture.outputs().into_iter().filter(|output| matches!(output, Output::Decide(_))).collect();
            assert_eq!(decided, [Output::Decide(expected)], "{state:?}, same publisher: {same}, {memory:?}");
        }
    }
}

#[test]
fn closing_ends_at_its_deadline() {
    let mut fixture = Fixture::in_state(State::Live);
    fixture.handle(Input::Ended);
    fixture.outputs();
    fixture.pass(DRAIN_TIME);
    assert_eq!(fixture.outputs(), [Output::CutUpstreams]);
    fixture.pass(CLOSE_TIME);
    assert_eq!(fixture.outputs(), [Output::State(State::Ended)]);
    assert_eq!(fixture.machine.poll_timeout(), None);
}

#[test]
fn stream_is_given_back_only_to_an_activator_that_is_there() {
    for state in [State::Starting, State::Live] {
        let mut fixture = Fixture::in_state(state);
        fixture.handle(Input::HandBack { possible: false });
        assert_eq!(fixture.outputs(), []);
        assert!(!fixture.machine.goes_on());
        fixture.handle(Input::HandBack { possible: true });
        assert!(fixture.machine.goes_on());
        let expected = [Output::GiveBack, Output::CloseUpstreams, Output::CutUpstreams, Output::State(State::Closing)];
        assert_eq!(fixture.outputs(), expected);
        fixture.handle(Input::UpstreamsClosed);
        assert_eq!(fixture.outputs(), [Output::State(State::Ended)]);
    }
}

#[test]
fn stream_that_closes_is_told_as_ending_unless_it_goes_on_elsewhere() {
    let told = |input: Input| {
        let mut fixture = Fixture::new(1, true);
        fixture.machine.handle(origin(), input);
        assert_eq!(fixture.machine.state(), State::Closing);
        fixture.machine.told()
    };
    for input in [Input::Kick("enough".into()), Input::Ended] {
        assert_eq!(told(input.clone()), SessionState::Ending, "{input:?}");
    }
    for input in [Input::Fence, Input::HandBack { possible: true }] {
        assert_eq!(told(input.clone()), SessionState::Live, "{input:?}");
    }
}

#[test]
fn kicked_publisher_that_was_not_started_is_told() {
    let mut fixture = Fixture::in_state(State::Starting);
    fixture.handle(Input::Kick("out".to_owned()));
    assert_eq!(fixture.outputs()[..2], [Output::Refuse("out".to_owned()), end(Close::Graceful, "out")]);
    let mut fixture = Fixture::in_state(State::Live);
    fixture.handle(Input::Kick("out".to_owned()));
    assert_eq!(fixture.outputs()[0], end(Close::Graceful, "out"));
    assert_eq!(fixture.machine.reason(), "out");
}
