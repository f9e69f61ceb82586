//! The events of a gateway. In: server-sent events. Out: a line for each, or its JSON. The reader of the stream of events is pure; the rest is a shell.
#![expect(clippy::disallowed_methods, reason = "shell: it waits for events, and dials again")]

use std::time::Duration;

use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::event;
use liveedgecast_common::key::LogSafe;
use serde_json::Value;

use super::failure::CommandFailure;
use super::gateway::GatewayClient;
use super::table::{Tone, printable_json};
use crate::config::EventsArgs;
use crate::events::{HELLO, TOLD};

/// Silence in the middle of what a gateway keeps after which the line is broken: the events are in its memory.
const STUCK: Duration = Duration::from_secs(10);
/// The same for a gateway of an earlier version, which does not say where the kept events end: then they are taken to have come.
const QUIET: Duration = Duration::from_millis(500);
/// Time after which they have come from such a gateway even where there is no silence, because new ones follow each other so fast.
const ENOUGH: Duration = Duration::from_secs(5);
/// Pause before the gateway is dialled again.
const AGAIN: Duration = Duration::from_secs(1);
/// An id of no process, behind which everything is that a gateway keeps.
const BEGINNING: &str = "0000000000000000-0";
/// Longest event; one of ours has some hundred bytes.
const MOST: usize = 1 << 20;

/// Prints events.
pub(super) async fn print(gateway: &GatewayClient, args: &EventsArgs) -> Result<(), CommandFailure> {
    let mut last = (!args.new).then(|| BEGINNING.to_owned());
    let mut reader = ReceivedEvents::default();
    let mut answer = gateway.events(last.as_deref()).await?;
    let enough = now() + ENOUGH;
    loop {
        let pause = (!args.follow).then(|| match reader.end {
            KeptEnd::Unmarked => (now() + QUIET).min(enough),
            KeptEnd::Unknown | KeptEnd::Marked | KeptEnd::Told => now() + STUCK,
        });
        let part = tokio::select! {
            // The end of the time comes first: a gateway that always has more would be heard for ever.
            biased;
            () = sleep_until(pause) => return if reader.end == KeptEnd::Unmarked { Ok(()) } else { Err(broken(gateway)) },
            part = answer.next() => part,
        };
        if let Some(Ok(part)) = part {
            reader.read(&part);
            loop {
                let sent = reader.next();
                if !args.follow && reader.end == KeptEnd::Told {
                    return Ok(());
                }
                let Some(sent) = sent else { break };
                if is_worth_showing(&sent, last.as_deref()) {
                    gateway.terminal.print(&shown(&sent, args.api.json, gateway.terminal.coloured))?;
                }
                last = Some(sent.id);
            }
            continue;
        }
        if !args.follow {
            return if reader.end == KeptEnd::Unmarked { Ok(()) } else { Err(broken(gateway)) };
        }
        gateway.terminal.remark("the connection with the gateway has ended, which is dialled again until it answers");
        reader = ReceivedEvents::default();
        answer = loop {
            sleep_until(Some(now() + AGAIN)).await;
            match gateway.events(last.as_deref()).await {
                Ok(answer) => break answer,
                Err(CommandFailure::Away(_)) => {}
                Err(failure) => return Err(failure),
            }
        };
    }
}

/// The failure where a gateway did not tell all that it keeps.
fn broken(gateway: &GatewayClient) -> CommandFailure {
    CommandFailure::Away(format!(
        "{} has not told all events that it keeps: the connection broke off or stands still; try again, or look at a proxy in between",
        gateway.base()
    ))
}

/// Whether an event is one. The gap before everything that is kept was asked for.
fn is_worth_showing(sent: &ReceivedEvent, last: Option<&str>) -> bool {
    !(sent.event == event::EVENTS_MISSED && last == Some(BEGINNING))
}

/// One line, or the JSON, of an event.
pub(super) fn shown(sent: &ReceivedEvent, json: bool, coloured: bool) -> String {
    if json {
        return printable_json(&sent.data) + "\n";
    }
    let document: Value = serde_json::from_str(&sent.data).unwrap_or_default();
    let time = document["timestamp"].as_str().unwrap_or("-");
    let mut line = format!("{} {}", Tone::Dim.paint(&LogSafe(time).to_string(), coloured), LogSafe(&sent.event));
    for (name, value) in document["data"].as_object().into_iter().flatten() {
        let value = match value {
            Value::Null => continue,
            Value::String(text) if text.is_empty() => continue,
            Value::String(text) if text.contains([' ', '"', '=']) => format!("{:?}", LogSafe(text)),
            Value::String(text) => LogSafe(text).to_string(),
            other => LogSafe(&other.to_string()).to_string(),
        };
        line += &format!(" {}{value}", Tone::Dim.paint(&format!("{}=", LogSafe(name)), coloured));
    }
    line + "\n"
}

/// An event as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReceivedEvent {
    id: String,
    event: String,
    data: String,
}

/// The reader of server-sent events (WHATWG HTML, 9.2.6), in the form that a gateway sends: bytes go in, events come out.
#[derive(Debug, Default)]
pub(super) struct ReceivedEvents {
    bytes: Vec<u8>,
    end: KeptEnd,
}

/// Tells how far this reader is from the end of the events that the gateway kept when it was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum KeptEnd {
    /// Nothing has come yet.
    #[default]
    Unknown,
    /// The gateway is of an earlier version, and does not mark it.
    Unmarked,
    /// The gateway will mark it.
    Marked,
    /// The mark has come.
    Told,
}

impl ReceivedEvents {
    /// Takes bytes, wherever they were split.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        // An event that never ends is left out.
        if self.bytes.len() > MOST {
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole event; comments and the like are left out.
    pub(super) fn next(&mut self) -> Option<ReceivedEvent> {
        loop {
            let end = self.bytes.windows(2).position(|two| two == b"\n\n")?;
            let block: Vec<u8> = self.bytes.drain(..end + 2).collect();
            let block = String::from_utf8_lossy(&block).into_owned();
            self.end = match self.end {
                _ if block == TOLD => KeptEnd::Told,
                KeptEnd::Unknown if block == HELLO => KeptEnd::Marked,
                KeptEnd::Unknown => KeptEnd::Unmarked,
                known => known,
            };
            let mut sent = ReceivedEvent::default();
            for line in block.lines() {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value);
                match name {
                    "id" => value.clone_into(&mut sent.id),
                    "event" => value.clone_into(&mut sent.event),
                    "data" => sent.data += value,
                    _ => {}
                }
            }
            if !sent.data.is_empty() {
                return Some(sent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "retry: 1000\n\n:\n\nid: a-1\nevent: stream.live\ndata: {\"timestamp\":\"t\",\"data\":{\"app\":\"a b\",\"cold\":true,\"none\":null}}\n\n\
        id: a-2\nevent: x\ndata: {}\n\nid: a-3\n";

    #[test]
    fn events_are_read_wherever_their_bytes_are_split() {
        let whole = |size: usize| {
            let (mut reader, mut all) = (ReceivedEvents::default(), Vec::new());
            for part in TEXT.as_bytes().chunks(size) {
                reader.read(part);
                all.extend(std::iter::from_fn(|| reader.next()));
            }
            all
        };
        let all = whole(TEXT.len());
        assert_eq!(all.iter().map(|sent| sent.id.as_str()).collect::<Vec<_>>(), ["a-1", "a-2"]);
        for size in 1..TEXT.len() {
            assert_eq!(whole(size), all, "{size}");
        }
        assert_eq!(shown(&all[0], false, false), "t stream.live app=\"a b\" cold=true\n");
        assert_eq!(shown(&all[1], true, false), "{}\n");
    }

    #[test]
    fn end_of_the_kept_events_is_known_once_it_has_come_and_not_before() {
        let event = |number: u32| format!("id: a-{number}\nevent: x\ndata: {{}}\n\n");
        let text = format!("{HELLO}{}{}{TOLD}{}", event(1), event(2), event(3));
        for size in 1..=text.len() {
            let mut reader = ReceivedEvents::default();
            assert_eq!(reader.end, KeptEnd::Unknown);
            let mut ends = Vec::new();
            for part in text.as_bytes().chunks(size) {
                reader.read(part);
                ends.extend(std::iter::from_fn(|| reader.next()).map(|sent| sent.id).collect::<Vec<_>>());
            }
            assert_eq!((ends.join(" ").as_str(), reader.end), ("a-1 a-2 a-3", KeptEnd::Told), "{size}");
        }
        let end = |text: &str| {
            let mut reader = ReceivedEvents::default();
            reader.read(text.as_bytes());
            let ids: Vec<String> = std::iter::from_fn(|| reader.next().map(|sent| sent.id)).collect();
            (ids.len(), reader.end)
        };
        assert_eq!(end(&format!("{HELLO}{}", event(1))), (1, KeptEnd::Marked));
        assert_eq!(end(&format!("retry: 1000\n\n{}", event(1))), (1, KeptEnd::Unmarked), "of an earlier version");
        assert_eq!(end(&HELLO[..5]), (0, KeptEnd::Unknown));
    }
}
