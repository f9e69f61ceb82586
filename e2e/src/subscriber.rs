//! A client of the activator's events, as curl is: curl itself, whose output is a file. In: an address, the id of the last event. Out: the events so
//! far.

use std::net::SocketAddr;

use serde_json::Value;

use crate::process::{Program, RunningProgram};
use crate::wait::{until, until_some};

/// A subscription that runs.
#[derive(Debug)]
pub struct Subscriber {
    curl: RunningProgram,
}

/// An event as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct SentEvent {
    /// The field `id`.
    pub id: String,
    /// The field `event`.
    pub event: String,
    /// The field `data`.
    pub document: Value,
}

impl Subscriber {
    /// Subscribes to the events from now on.
    #[must_use]
    #[track_caller]
    pub fn of(activator: SocketAddr) -> Self {
        Self::start(activator, None)
    }

    /// Subscribes to the events behind the one with this id.
    #[must_use]
    #[track_caller]
    pub fn behind(activator: SocketAddr, id: &str) -> Self {
        Self::start(activator, Some(id))
    }

    #[track_caller]
    fn start(activator: SocketAddr, last: Option<&str>) -> Self {
        let mut curl = Program::new("curl", "curl").arg("-fsSN");
        if let Some(id) = last {
            curl = curl.args(["-H", &format!("Last-Event-ID: {id}")]);
        }
        let curl = curl.arg(format!("http://{activator}/api/v1/events")).start();
        let this = Self { curl };
        until("the subscription to begin", || this.curl.log().contains("retry: "));
        this
    }

    /// The events so far; comments are left out.
    #[must_use]
    pub fn events(&self) -> Vec<SentEvent> {
        let text = self.curl.log();
        let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
        let field = |block: &str, name: &str| {
            let value = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.map(str::to_owned)
        };
        let event = |block: &str| {
            let document = serde_json::from_str(&field(block, "data")?).ok()?;
            Some(SentEvent { id: field(block, "id")?, event: field(block, "event")?, document })
        };
        whole.split("\n\n").filter_map(event).collect()
    }

    /// The events of this name so far.
    #[must_use]
    pub fn named(&self, event: &str) -> Vec<SentEvent> {
        self.events().into_iter().filter(|sent| sent.event == event).collect()
    }

    /// Waits for the first event of this name.
    #[track_caller]
    pub fn hears(&self, event: &str) -> SentEvent {
        until_some(format!("the event {event}"), || self.named(event).into_iter().next())
    }

    /// Waits for the end of the answer; returns whether it ended in order.
    #[track_caller]
    pub fn ends(&mut self) -> bool {
        self.curl.wait(crate::wait::SOON).success()
    }

    /// Everything that came.
    #[must_use]
    pub fn text(&self) -> String {
        self.curl.log()
    }
}
