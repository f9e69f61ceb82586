//! Sites whose costs are known, and properties that hold for every site.

use liveedgecast_common::testkit::origin;
use proptest::prelude::*;

use super::super::policy::Window;
use super::*;

const HOUR: u64 = 3_600_000;

fn rules(fleet: SimulatedFleet, capacity: usize) -> SimulationRules {
    SimulationRules {
        fleet,
        capacity,
        most: 20,
        cooldown: Duration::from_secs(30),
        start_time: Duration::from_millis(500),
        from: 0,
        to: 24 * HOUR,
        origin: origin(),
    }
}

fn streams(pairs: &[(u64, u64)]) -> Vec<Broadcast> {
    pairs.iter().map(|(start, end)| Broadcast { start: *start, end: *end }).collect()
}

const ONE_HOUR: &[(u64, u64)] = &[(HOUR, 2 * HOUR)];

#[test]
fn one_stream_costs_its_own_time_the_start_and_the_cool_down() {
    for fleet in [SimulatedFleet::Process, SimulatedFleet::External] {
        let rules = rules(fleet, 10);
        let cost = |policy: KeepingPolicy| simulate(&streams(ONE_HOUR), &policy, &rules);
        let zero = cost(KeepingPolicy::Zero);
        assert_eq!((zero.worker_millis, zero.cold_starts, zero.waited_millis), (HOUR + 30_000, 1, 500), "{fleet:?}");
        assert_eq!((zero.most_workers, zero.unserved), (1, 0));
        for policy in [KeepingPolicy::Warm(1), KeepingPolicy::AlwaysOn] {
            let cost = cost(policy);
            assert_eq!((cost.worker_millis, cost.cold_starts, cost.waited_millis), (24 * HOUR, 0, 0), "{fleet:?}");
        }
        let cron = |text: &str| cost(KeepingPolicy::Cron(vec![Window::parse(text).unwrap()]));
        let fits = cron("00:30-03:00");
        assert_eq!((fits.worker_millis, fits.cold_starts), (HOUR * 5 / 2, 0), "{fleet:?}");
        // The window ends while the stream is live: its worker stays until the stream's end.
        let early = cron("00:30-01:30");
        assert_eq!((early.worker_millis, early.cold_starts), (HOUR * 3 / 2, 0), "{fleet:?}");
        let late = cron("03:00-04:00");
        assert_eq!((late.worker_millis, late.cold_starts), (zero.worker_millis + HOUR, 1), "{fleet:?}");
    }
}

#[test]
fn streams_that_overlap_share_a_worker_and_are_counted_once() {
    for fleet in [SimulatedFleet::Process, SimulatedFleet::External] {
        let alone = simulate(&streams(ONE_HOUR), &KeepingPolicy::Zero, &rules(fleet, 10));
        let both = simulate(&streams(&[(HOUR, 2 * HOUR), (HOUR, 2 * HOUR)]), &KeepingPolicy::Zero, &rules(fleet, 10));
        assert_eq!(both.worker_millis, alone.worker_millis, "{fleet:?}");
        assert_eq!((both.cold_starts, both.waited_millis), (2, 1000), "{fleet:?}");
        // The second one finds a worker.
        let after =
            simulate(&streams(&[(HOUR, 2 * HOUR), (HOUR + 1000, 2 * HOUR)]), &KeepingPolicy::Zero, &rules(fleet, 10));
        assert_eq!((after.cold_starts, after.waited_millis, after.worker_millis), (1, 500, alone.worker_millis));
        let full =
            simulate(&streams(&[(HOUR, 2 * HOUR), (HOUR + 1000, 2 * HOUR)]), &KeepingPolicy::Zero, &rules(fleet, 1));
        assert_eq!((full.cold_starts, full.most_workers), (2, 2), "{fleet:?}");
    }
}

#[test]
fn worker_is_kept_for_the_cool_down_and_no_longer() {
    let pair = |gap: u64| streams(&[(HOUR, 2 * HOUR), (2 * HOUR + gap, 3 * HOUR)]);
    for fleet in [SimulatedFleet::Process, SimulatedFleet::External] {
        let cold = |gap| simulate(&pair(gap), &KeepingPolicy::Zero, &rules(fleet, 1)).cold_starts;
        assert_eq!((cold(29_000), cold(31_000)), (1, 2), "{fleet:?}");
    }
}

#[test]
fn stream_that_ends_before_a_worker_comes_is_not_served() {
    let cost = simulate(&streams(&[(HOUR, HOUR + 100)]), &KeepingPolicy::Zero, &rules(SimulatedFleet::Process, 1));
    assert_eq!((cost.unserved, cost.cold_starts, cost.waited_millis), (1, 1, 100));
}

#[test]
fn site_without_room_makes_publishers_wait() {
    let rules = SimulationRules { most: 1, ..rules(SimulatedFleet::Process, 1) };
    let cost = simulate(&streams(&[(0, HOUR), (1000, HOUR + 1000)]), &KeepingPolicy::Warm(1), &rules);
    assert_eq!((cost.cold_starts, cost.waited_millis, cost.most_workers), (1, HOUR - 1000, 1));
}

fn any_streams() -> impl Strategy<Value = Vec<Broadcast>> {
    let one = (0..24 * HOUR, 0..3 * HOUR).prop_map(|(start, length)| Broadcast { start, end: start + length });
    prop::collection::vec(one, 0..40).prop_map(|mut all| {
        all.sort_unstable();
        all
    })
}

proptest! {
    #[test]
    fn zero_costs_no_more_than_always_on_and_no_less_than_the_streams_need(all in any_streams(), capacity in 1_usize..5) {
        let rules = rules(SimulatedFleet::Process, capacity);
        let cost = |policy| simulate(&all, &policy, &rules);
        let (zero, warm, always) = (cost(KeepingPolicy::Zero), cost(KeepingPolicy::Warm(1)), cost(KeepingPolicy::AlwaysOn));
        prop_assert!(zero.worker_millis <= always.worker_millis, "{zero:?} {always:?}");
        prop_assert!(zero.worker_millis <= warm.worker_millis, "{zero:?} {warm:?}");
        prop_assert!(always.cold_starts == 0 || peak(&all).div_ceil(capacity) > rules.most, "{always:?}");
        prop_assert!(warm.cold_starts <= zero.cold_starts && zero.cold_starts <= all.len() as u64);
        // Each stream has its part of a worker for as long as it is served.
        let served = |broadcast: &Broadcast| broadcast.end.min(rules.to).saturating_sub(broadcast.start);
        let needed: u64 = all.iter().map(served).sum::<u64>().saturating_sub(zero.waited_millis);
        prop_assert!(zero.worker_millis * capacity as u64 >= needed, "{zero:?} {needed}");
        prop_assert!(zero.worker_millis <= zero.most_workers * (rules.to - rules.from));
        prop_assert!(zero.most_workers <= peak(&all).div_ceil(capacity) as u64, "{zero:?}");
    }

    #[test]
    fn every_fleet_and_policy_ends_and_serves(all in any_streams(), capacity in 1_usize..5) {
        for fleet in [SimulatedFleet::Process, SimulatedFleet::External] {
            let windows = vec![Window::parse("08:00-20:00=2").unwrap(), Window::parse("22:00-01:00").unwrap()];
            for policy in [KeepingPolicy::Zero, KeepingPolicy::Warm(2), KeepingPolicy::Cron(windows), KeepingPolicy::AlwaysOn] {
                let rules = rules(fleet, capacity);
                let cost = simulate(&all, &policy, &rules);
                let kept = policy.most_kept(peak(&all)) as u64;
                prop_assert!(cost.most_workers <= (rules.most as u64).max(kept));
                prop_assert!(cost.longest_millis <= 24 * HOUR);
            }
        }
    }
}
