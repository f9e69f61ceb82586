//! The live view. In: a gateway, keys. Out: frames on a terminal, or one frame with `--once`. `frame` is pure, `screen` owns the terminal.
//!
//! The gateway is asked once a second, and at once when it has told an event.
#![expect(clippy::disallowed_methods, reason = "shell: it waits for keys, events and the next second")]

mod frame;
mod screen;

use std::collections::VecDeque;
use std::time::Duration;

use liveedgecast_common::clock::{now, sleep_until, utc};
use tokio::signal::unix::{SignalKind, signal};

use self::frame::{Seen, View};
use self::screen::{Keyboard, PressedKey, Screen};
use super::events::{ReceivedEvents, shown};
use super::failure::CommandFailure;
use super::gateway::GatewayClient;
use super::listing::{all_streams, all_workers};
use crate::config::TopArgs;
use crate::net::HttpAnswerStream;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// The shortest time between two looks, however many events there are.
const LEAST: Duration = Duration::from_millis(200);
/// Events that are shown at most.
const EVENTS: usize = 50;

/// Shows the gateway until a key or a signal ends it.
pub(super) async fn run(gateway: &GatewayClient, args: &TopArgs) -> Result<(), CommandFailure> {
    if args.api.json {
        let text = "the live view has no JSON: `streams --json`, `workers --json` and `events --json` are for programs";
        return Err(CommandFailure::Usage(text.to_owned()));
    }
    let mut view = View::new(gateway.base());
    view.see(look(gateway).await?);
    if args.once {
        let lines = view.lines(screen::width_of_one(), usize::MAX, gateway.terminal.coloured);
        return gateway.terminal.print(&(lines.join("\n") + "\n"));
    }
    let ended = |error| CommandFailure::Refused(format!("signals cannot be received: {error}"));
    let mut asked = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal).into_iter();
    let mut next = || asked.next().unwrap_or_else(|| signal(SignalKind::hangup()));
    let (mut terminate, mut interrupt, mut hang_up) =
        (next().map_err(ended)?, next().map_err(ended)?, next().map_err(ended)?);
    let screen = Screen::open()?;
    let mut keyboard = Keyboard::open();
    let mut told = HeardEvents::default();
    told.open(gateway).await;
    let (mut last, mut due) = (now(), now() + LOOK);
    loop {
        let (width, height) = screen::size();
        screen.draw(&view.lines(width, height, gateway.terminal.coloured))?;
        tokio::select! {
            key = keyboard.next() => match key {
                PressedKey::Quit => return Ok(()),
                PressedKey::Up => view.scroll(-1),
                PressedKey::Down => view.scroll(1),
                PressedKey::PageUp => view.scroll(-10),
                PressedKey::PageDown => view.scroll(10),
                PressedKey::Other => {}
            },
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hang_up.recv() => return Ok(()),
            any = told.next() => {
                if any {
                    view.events = told.lines.clone().into();
                    due = due.min(last + LEAST).max(now());
                }
            }
            () = sleep_until(Some(due)) => {
                match look(gateway).await {
                    Ok(seen) => view.see(seen),
                    Err(failure @ CommandFailure::Away(_)) => view.away = failure.text(),
                    Err(failure) => return Err(failure),
                }
                if told.answer.is_none() && view.away.is_none() {
                    told.open(gateway).await;
                }
                (last, due) = (now(), now() + LOOK);
            }
        }
    }
}

async fn look(gateway: &GatewayClient) -> Result<Seen, CommandFailure> {
    let streams = all_streams(gateway).await?;
    let workers = all_workers(gateway).await?;
    Ok(Seen { at: utc().0, streams, workers })
}

/// The events so far.
#[derive(Default)]
struct HeardEvents {
    answer: Option<HttpAnswerStream>,
    reader: ReceivedEvents,
    lines: VecDeque<String>,
}

impl HeardEvents {
    /// Asks for the events from now on. Without them the view is one of seconds.
    async fn open(&mut self, gateway: &GatewayClient) {
        self.answer = gateway.events(None).await.ok();
        self.reader = ReceivedEvents::default();
    }

    /// Whether events have come; waits while none do. Cancel safe.
    async fn next(&mut self) -> bool {
        let Some(answer) = &mut self.answer else { return std::future::pending().await };
        let Some(Ok(part)) = answer.next().await else {
            self.answer = None;
            return false;
        };
        self.reader.read(&part);
        let mut any = false;
        while let Some(event) = self.reader.next() {
            self.lines.push_back(shown(&event, false, false).trim_end().to_owned());
            if self.lines.len() > EVENTS {
                self.lines.pop_front();
            }
            any = true;
        }
        any
    }
}
