//! The destinations of a stream while it runs: upstreams that begin, move, begin anew and end. In: lists of the activator, events of the
//! upstreams. Out: orders to the feeds, inputs of the machine. Part of the shell; the rules are those of [`crate::stream::lanes`].

use std::time::Instant;

use liveedgecast_common::control::UpstreamReport;
use liveedgecast_common::event;
use liveedgecast_common::handoff::{DestinationList, ListedDestination};
use liveedgecast_common::key::{Identity, StreamId};
use liveedgecast_common::random;
use liveedgecast_common::url::PushUrl;

use super::StreamTask;
use crate::stream::cursor::Bounds;
use crate::stream::feed::UpstreamFeed;
use crate::stream::lanes::{Lane, LaneChange, LaneSeat, LaneView, changes};
use crate::stream::machine::{Input, State};
use crate::stream::wakes::{MAX_FEEDS, Sources};
use crate::upstream::{Upstream, UpstreamContext};

/// The upstreams that a stream is to have, and the means to begin them.
pub(super) struct WantedUpstreams {
    /// The list in force; `None`: the assignment's destinations.
    list: Option<DestinationList>,
    /// An upstream may have to begin or end.
    unsettled: bool,
    context: UpstreamContext,
    bounds: Bounds,
}

impl WantedUpstreams {
    pub(super) fn new(context: UpstreamContext, bounds: Bounds) -> Self {
        Self { list: None, unsettled: false, context, bounds }
    }

    /// An upstream that begins to dial.
    pub(super) fn upstream(&self, now: Instant, url: &PushUrl, stream: &StreamId) -> Upstream {
        Upstream::new(url.clone(), &self.context, u64::from_ne_bytes(random::bytes()), now).of_stream(stream)
    }

    /// Revision of the list; 0 before the first.
    pub(super) fn revision(&self) -> u64 {
        self.list.as_ref().map_or(0, |list| list.revision)
    }

    /// The publisher's name in the configuration file, for log lines.
    pub(super) fn publisher(&self) -> Option<&str> {
        self.list.as_ref().map(|list| list.publisher.as_str()).filter(|name| !name.is_empty())
    }

    /// Asks for a look at all upstreams.
    pub(super) fn settle_soon(&mut self) {
        self.unsettled = self.list.is_some();
    }

    /// Returns whether all upstreams are to be looked at.
    pub(super) fn is_to_be_settled(&self) -> bool {
        self.unsettled
    }
}

impl StreamTask {
    /// Takes a list of the activator.
    pub(super) fn listed(&mut self, now: Instant, list: DestinationList) {
        let known = self.wanted.list.as_ref().is_some_and(|known| list.revision <= known.revision);
        if known || matches!(self.machine.state(), State::Closing | State::Ended) {
            return;
        }
        self.wanted.list = Some(list);
        self.wanted.settle_soon();
        self.settle(now);
        self.reports.session_changed(now);
    }

    /// Forgets the list of a publisher that another one has replaced: the list that comes with the new one counts from its own beginning.
    pub(super) fn forget_list(&mut self) {
        self.wanted.list = None;
        self.wanted.unsettled = false;
        self.feeds.iter_mut().for_each(|feed| feed.lane.renewed = None);
    }

    /// Brings the upstreams nearer to those of the list, as far as that can be done now.
    pub(super) fn settle(&mut self, now: Instant) {
        self.wanted.unsettled = false;
        let open = !matches!(self.machine.state(), State::Closing | State::Ended);
        let Some(list) = self.wanted.list.take_if(|_| open) else { return };
        self.promote(now);
        let views: Vec<LaneView<'_>> = self
            .feeds
            .iter()
            .map(|feed| LaneView { lane: &feed.lane, url: feed.url(), live: feed.is_live() })
            .collect();
        for change in changes(&views, &list.destinations) {
            self.change(now, change);
        }
        self.note_identities(&list);
        while self.feeds.len().checked_sub(1).is_some_and(|last| self.is_vacant(last)) {
            self.feeds.pop();
        }
        self.wanted.list = Some(list);
        self.stirred = true;
    }

    fn change(&mut self, now: Instant, change: LaneChange<'_>) {
        let stream = self.assignment.stream_id.clone();
        match change {
            LaneChange::Keep(at, to) => {
                let seat = self.feeds[at].lane.seat;
                self.feeds[at].name(Lane::of(to, seat));
                self.feeds[at].back_up(now, to.backup.as_ref());
                self.join(now, at, to);
            }
            LaneChange::Begin(to) => {
                if let Some(at) = self.begin(now, to, LaneSeat::Main) {
                    tracing::info!(event = event::DESTINATION_ADDED, %stream, destination = to.name, upstream = %to.url, "destination added");
                    self.join(now, at, to);
                }
            }
            LaneChange::Renew(at, to) => {
                tracing::info!(event = event::DESTINATION_RESTARTED, %stream, destination = to.name, upstream = %to.url, "session at a destination begins anew");
                let next = self.wanted.upstream(now, &to.url, &stream);
                let seat = self.feeds[at].lane.seat;
                self.feeds[at].renew(now, next);
                self.feeds[at].name(Lane::of(to, seat));
                self.feeds[at].back_up(now, to.backup.as_ref());
                self.join(now, at, to);
                self.tell(now, Input::UpstreamRenewed(at));
                self.wake(at);
            }
            LaneChange::Move(from, to) => {
                if self.begin(now, to, LaneSeat::Mover).is_some() {
                    let from = self.feeds[from].url();
                    tracing::info!(event = event::DESTINATION_MOVING, %stream, destination = to.name, upstream = %to.url, %from, "destination is to move: its new place is dialed");
                }
            }
            LaneChange::Leave(at) => {
                let feed = &self.feeds[at];
                if feed.lane.seat == LaneSeat::Main {
                    tracing::info!(event = event::DESTINATION_REMOVED, %stream, destination = feed.lane.name, upstream = %feed.url(), "destination removed");
                }
                self.leave(now, at);
            }
        }
    }

    /// Tells the machine of a destination's upstream; one that is to take another's place does not count yet.
    fn join(&mut self, now: Instant, at: usize, to: &ListedDestination) {
        if self.feeds[at].lane.seat == LaneSeat::Main {
            self.tell(now, Input::UpstreamJoined { at, required: to.required });
        }
    }

    /// Lets the upstreams take their destinations' places that have become live.
    fn promote(&mut self, now: Instant) {
        for at in 0..self.feeds.len() {
            if self.feeds[at].lane.seat != LaneSeat::Mover || !self.feeds[at].is_live() {
                continue;
            }
            let name = self.feeds[at].lane.name.clone();
            let before = self.feeds.iter().position(|feed| feed.lane.seat == LaneSeat::Main && feed.lane.name == name);
            if let Some(before) = before {
                let ended = self.feeds[before].report();
                self.feeds[at].continue_counts(&ended);
            }
            self.feeds[at].lane.seat = LaneSeat::Main;
            self.tell(now, Input::UpstreamJoined { at, required: false });
            self.tell(now, Input::UpstreamLive(at));
            before.into_iter().for_each(|before| self.leave(now, before));
            let (stream, upstream) = (&self.assignment.stream_id, self.feeds[at].url());
            tracing::info!(event = event::DESTINATION_MOVED, %stream, destination = name, %upstream, "destination moved");
            self.reports.session_changed(now);
        }
    }

    /// Begins an upstream; `None`: there is no place for it yet, or the destination's server would refuse it.
    fn begin(&mut self, now: Instant, to: &ListedDestination, seat: LaneSeat) -> Option<usize> {
        let ends = |feed: &UpstreamFeed| feed.lane.seat == LaneSeat::Left && !feed.is_closed();
        if self.feeds.iter().any(|feed| ends(feed) && feed.url().is_same_place(&to.url)) {
            return None;
        }
        let vacant = (0..self.feeds.len()).find(|at| self.is_vacant(*at));
        let at = vacant.or_else(|| (self.feeds.len() < MAX_FEEDS).then_some(self.feeds.len()))?;
        let upstream = self.wanted.upstream(now, &to.url, &self.assignment.stream_id);
        let feed = UpstreamFeed::new(upstream, self.wanted.bounds, Lane::default());
        let mut feed = if self.index.end() > 0 { feed.late() } else { feed };
        feed.name(Lane::of(to, seat));
        feed.back_up(now, to.backup.as_ref());
        if at == self.feeds.len() {
            self.feeds.push(feed);
            self.wakes.extend(self.feeds.len());
        } else {
            self.feeds[at] = feed;
        }
        self.wake(at);
        self.reports.session_changed(now);
        Some(at)
    }

    fn leave(&mut self, now: Instant, at: usize) {
        self.feeds[at].leave(now);
        self.feeds[at].lane.seat = LaneSeat::Left;
        self.tell(now, Input::UpstreamLeft(at));
        self.wake(at);
        self.reports.session_changed(now);
    }

    fn wake(&mut self, at: usize) {
        self.woken.add(Sources::upstream(at));
        self.stirred = true;
    }

    /// Returns whether another upstream can have this number.
    fn is_vacant(&self, at: usize) -> bool {
        let feed = &self.feeds[at];
        let awaited = self.giving_up.iter().any(|giving_up| giving_up.feeds.contains(&at));
        feed.lane.seat == LaneSeat::Left && feed.is_closed() && !awaited
    }

    /// Notes which upstreams other streams may want: those of the list that none of them has taken.
    fn note_identities(&mut self, list: &DestinationList) {
        let lost = |identity: &Identity| {
            self.feeds.iter().any(|feed| feed.lane.seat == LaneSeat::GivenUp && feed.lane.identity == Some(*identity))
        };
        self.shared =
            list.destinations.iter().filter_map(|to| to.identity).filter(|identity| !lost(identity)).collect();
    }

    /// The identities of upstreams that were left and are not closed: no other stream is to dial them before.
    pub(super) fn leaving_identities(&self) -> Vec<Identity> {
        let leaving = self.feeds.iter().filter(|feed| feed.lane.seat == LaneSeat::Left && !feed.is_closed());
        leaving.filter_map(|feed| feed.lane.identity).filter(|identity| !self.shared.contains(identity)).collect()
    }

    /// The reports of the destinations' upstreams. Of one that is to move, the failure of the new place is shown.
    pub(super) fn upstream_reports(&self) -> Vec<UpstreamReport> {
        let mover = |name: &str| {
            let moves = |feed: &&UpstreamFeed| feed.lane.seat == LaneSeat::Mover && feed.lane.name == name;
            self.feeds.iter().find(moves).map(UpstreamFeed::report).filter(|report| !report.error.is_empty())
        };
        let report = |feed: &UpstreamFeed| {
            let mut report = feed.report();
            if let Some(mover) = mover(&feed.lane.name) {
                report.error = format!("not moved to {}: {}", mover.host, mover.error);
            }
            report
        };
        self.shown_feeds().map(report).collect()
    }

    /// The upstreams that are the destinations' own, in the order of their reports.
    pub(super) fn shown_feeds(&self) -> impl Iterator<Item = &UpstreamFeed> {
        self.feeds.iter().filter(|feed| matches!(feed.lane.seat, LaneSeat::Main | LaneSeat::GivenUp))
    }
}
