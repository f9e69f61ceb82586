//! The rules of a stream's destinations: which upstreams begin, move, begin anew or end when the list changes. In: the upstreams that the stream has,
//! and the list that it is to have. Out: [`LaneChange`]s, for the shell `task::destinations`. Pure.
//!
//! ```text
//!  not in the stream ── Begin ──▶ Main ── Leave: not in the list ──▶ Left ──▶ (closed)
//!                                  │ ▲                                ▲
//!                  Renew: same place, or not live                     │
//!                                  │ another place, and Main is live  │
//!                                  └──▶ Move: a Mover beside it ── live: the Mover is Main, and Main is Left
//! ```
//! An upstream and a destination belong together by name. The upstreams of an assignment have no names yet; the first list gives them theirs, by
//! URL.
//!
//! Note: a new session is begun before the old one ends only where both can be live. A server refuses the second session at one place, so there
//! the old one ends first.

use liveedgecast_common::handoff::ListedDestination;
use liveedgecast_common::key::Identity;
use liveedgecast_common::url::PushUrl;

/// The part of an upstream in its destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LaneSeat {
    /// The destination's upstream.
    #[default]
    Main,
    /// The upstream that is to take the place of the destination's.
    Mover,
    /// Another stream has taken the upstream.
    GivenUp,
    /// The destination has no use for it any more.
    Left,
}

/// The destination of an upstream.
#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    /// The destination's name; empty before the first list.
    pub(super) name: String,
    /// The revision by which the session was to begin anew; `None`: not told in this stay of the publisher.
    pub(super) renewed: Option<u64>,
    /// The identity of an upstream that takes no `{key}`.
    pub(super) identity: Option<Identity>,
    /// Its part there.
    pub(super) seat: LaneSeat,
}

impl Lane {
    /// The lane of a destination.
    pub(super) fn of(destination: &ListedDestination, seat: LaneSeat) -> Self {
        let ListedDestination { name, identity, renewed, .. } = destination;
        Self { name: name.clone(), renewed: Some(*renewed), identity: *identity, seat }
    }
}

/// An upstream, as the rules see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneView<'a> {
    pub(super) lane: &'a Lane,
    pub(super) url: &'a PushUrl,
    /// Media may be written to it.
    pub(super) live: bool,
}

/// A change that the list asks for. Upstreams are named by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneChange<'a> {
    /// The destination keeps this upstream.
    Keep(usize, &'a ListedDestination),
    /// The destination gets its first upstream.
    Begin(&'a ListedDestination),
    /// This upstream is closed, and begins anew as the destination says.
    Renew(usize, &'a ListedDestination),
    /// The destination gets another upstream beside this one.
    Move(usize, &'a ListedDestination),
    /// This upstream is closed.
    Leave(usize),
}

/// The changes by which the upstreams become those of the list.
pub(super) fn changes<'a>(lanes: &[LaneView<'_>], wanted: &'a [ListedDestination]) -> Vec<LaneChange<'a>> {
    let mut changes = Vec::new();
    let mut kept = vec![false; lanes.len()];
    for destination in wanted {
        let with = |seat: LaneSeat, kept: &[bool]| {
            let fits = |(at, it): (usize, &LaneView<'_>)| {
                let named = it.lane.name == destination.name || (it.lane.name.is_empty() && it.url == &destination.url);
                (it.lane.seat == seat && !kept[at] && named).then_some(at)
            };
            lanes.iter().enumerate().find_map(fits)
        };
        let anew = |at: usize| lanes[at].lane.renewed.is_some_and(|renewed| renewed != destination.renewed);
        // An upstream that another stream has taken stays with that one, until the destination is to begin anew.
        if let Some(at) = with(LaneSeat::GivenUp, &kept)
            && !anew(at)
            && *lanes[at].url == destination.url
        {
            kept[at] = true;
            changes.push(LaneChange::Keep(at, destination));
            continue;
        }
        let Some(main) = with(LaneSeat::Main, &kept) else {
            changes.push(LaneChange::Begin(destination));
            continue;
        };
        kept[main] = true;
        if *lanes[main].url == destination.url {
            changes.push(if anew(main) {
                LaneChange::Renew(main, destination)
            } else {
                LaneChange::Keep(main, destination)
            });
            continue;
        }
        let mover = with(LaneSeat::Mover, &kept).filter(|at| *lanes[*at].url == destination.url);
        if let Some(at) = mover {
            kept[at] = true;
            changes.push(if anew(at) { LaneChange::Renew(at, destination) } else { LaneChange::Keep(at, destination) });
            continue;
        }
        let taken = lanes.iter().any(|it| it.lane.seat == LaneSeat::Main && it.url.is_same_place(&destination.url));
        changes.push(if lanes[main].live && !taken {
            LaneChange::Move(main, destination)
        } else {
            LaneChange::Renew(main, destination)
        });
    }
    let leaves = lanes.iter().enumerate().filter(|(at, it)| !kept[*at] && it.lane.seat != LaneSeat::Left);
    changes.extend(leaves.map(|(at, _)| LaneChange::Leave(at)));
    changes
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::key::StreamKey;
    use liveedgecast_common::url::PushTemplate;

    use super::LaneChange::{Begin, Keep, Leave, Move, Renew};
    use super::*;

    fn url(place: &str) -> PushUrl {
        PushTemplate::parse(&format!("rtmp://{place}/live/x"))
            .unwrap()
            .resolve("live", &StreamKey::parse("k").unwrap())
            .unwrap()
    }

    fn to(name: &str, place: &str, renewed: u64) -> ListedDestination {
        ListedDestination { name: name.into(), url: url(place), required: false, identity: None, renewed, backup: None }
    }

    /// Name, place, revision, seat, live.
    type LaneRow<'a> = (&'a str, &'a str, Option<u64>, LaneSeat, bool);

    fn changed(have: &[LaneRow<'_>], wanted: &[ListedDestination], expected: &[LaneChange<'_>], what: &str) {
        let parts: Vec<(Lane, PushUrl, bool)> = have
            .iter()
            .map(|(name, place, renewed, seat, live)| {
                let lane = Lane { name: (*name).into(), renewed: *renewed, identity: None, seat: *seat };
                (lane, url(place), *live)
            })
            .collect();
        let views: Vec<LaneView<'_>> =
            parts.iter().map(|(lane, url, live)| LaneView { lane, url, live: *live }).collect();
        assert_eq!(changes(&views, wanted), expected, "{what}");
    }

    #[test]
    fn every_difference_has_its_change() {
        use LaneSeat::{GivenUp, Left, Main, Mover};
        let main = |name, place| (name, place, Some(0), Main, true);
        let away = |name, place| (name, place, Some(0), Main, false);
        let (a, b, moved) = (to("a", "one", 0), to("b", "two", 0), to("a", "three", 5));
        let (again, swapped) = (to("a", "one", 4), [to("a", "two", 6), to("b", "one", 6)]);
        let both = [a.clone(), b.clone()];
        let only = std::slice::from_ref;
        changed(
            &[("", "one", None, Main, true), ("", "two", None, Main, false)],
            &both,
            &[Keep(0, &a), Keep(1, &b)],
            "names",
        );
        changed(&[main("a", "one")], &both, &[Keep(0, &a), Begin(&b)], "added");
        changed(&[main("a", "one"), away("b", "two")], only(&a), &[Keep(0, &a), Leave(1)], "removed");
        changed(&[main("a", "one")], &[], &[Leave(0)], "the last one removed");
        changed(&[main("a", "one")], only(&again), &[Renew(0, &again)], "restarted");
        changed(&[("a", "one", None, Main, true)], only(&again), &[Keep(0, &again)], "of an earlier stay");
        changed(&[main("a", "one")], only(&moved), &[Move(0, &moved)], "moved");
        changed(&[away("a", "one")], only(&moved), &[Renew(0, &moved)], "moved, and not live");
        let moving = [main("a", "one"), ("a", "three", Some(5), Mover, false)];
        changed(&moving, only(&moved), &[Keep(1, &moved)], "moving already");
        changed(&moving, only(&a), &[Keep(0, &a), Leave(1)], "moved back");
        changed(
            &[main("a", "one"), main("b", "two")],
            &swapped,
            &[Renew(0, &swapped[0]), Renew(1, &swapped[1])],
            "swapped",
        );
        changed(&[("a", "one", Some(0), Left, false)], only(&a), &[Begin(&a)], "removed and added again");
        changed(&[("a", "one", Some(0), GivenUp, false)], only(&a), &[Keep(0, &a)], "another stream has it");
        changed(&[("a", "one", Some(0), GivenUp, false)], only(&again), &[Begin(&again), Leave(0)], "asked for again");
    }
}
