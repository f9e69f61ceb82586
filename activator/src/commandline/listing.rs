//! The commands that list streams and workers. In: a gateway, what to list. Out: tables, or the API's JSON.
#![expect(clippy::disallowed_methods, reason = "shell: ages are by the wall clock")]

use std::time::Duration;

use liveedgecast_common::clock::utc;
use liveedgecast_common::key::LogSafe;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answers::{self, ListedStream, ListedUpstream, ListedWorker};
use super::failure::CommandFailure;
use super::gateway::GatewayClient;
use super::table::{AlignedTable, Cell, Tone, printable_json};
use super::times::{parse_time, short};

const STREAMS: &str = "/api/v1/streams";
const WORKERS: &str = "/api/v1/workers";

/// Lists streams, or shows one.
pub(super) async fn streams(gateway: &GatewayClient, one: Option<&str>, json: bool) -> Result<(), CommandFailure> {
    let all = gateway.list(STREAMS).await?;
    let streams: Vec<ListedStream> = read(&all);
    let now = utc().0;
    let Some(one) = one else {
        if json {
            return print_json(gateway, &Value::Array(all));
        }
        return gateway.terminal.print(&table_of_streams(&streams, now).text(gateway.terminal.coloured));
    };
    let stream = answers::stream(&streams, one)?;
    if json {
        let found = all.iter().find(|value| value["id"] == stream.id.as_str()).unwrap_or(&Value::Null);
        return print_json(gateway, found);
    }
    let mut text = table_of_streams(std::slice::from_ref(stream), now).text(gateway.terminal.coloured);
    text.push('\n');
    text += &table_of_destinations(&stream.upstreams, now).text(gateway.terminal.coloured);
    gateway.terminal.print(&text)
}

/// Lists workers.
pub(super) async fn workers(gateway: &GatewayClient, json: bool) -> Result<(), CommandFailure> {
    let all = gateway.list(WORKERS).await?;
    if json {
        return print_json(gateway, &Value::Array(all));
    }
    gateway.terminal.print(&table_of_workers(&read(&all)).text(gateway.terminal.coloured))
}

/// The one stream that a person named.
pub(super) async fn stream_named(gateway: &GatewayClient, text: &str) -> Result<ListedStream, CommandFailure> {
    let streams: Vec<ListedStream> = read(&gateway.list(STREAMS).await?);
    answers::stream(&streams, text).cloned()
}

/// The one worker that a person named.
pub(super) async fn worker_named(gateway: &GatewayClient, text: &str) -> Result<ListedWorker, CommandFailure> {
    answers::worker(&all_workers(gateway).await?, text).cloned()
}

/// Every worker.
pub(super) async fn all_workers(gateway: &GatewayClient) -> Result<Vec<ListedWorker>, CommandFailure> {
    Ok(read(&gateway.list(WORKERS).await?))
}

/// Every stream.
pub(super) async fn all_streams(gateway: &GatewayClient) -> Result<Vec<ListedStream>, CommandFailure> {
    Ok(read(&gateway.list(STREAMS).await?))
}

/// Prints JSON over several lines.
pub(super) fn print_json(gateway: &GatewayClient, value: &Value) -> Result<(), CommandFailure> {
    gateway.terminal.print(&printable_json(&format!("{value:#}\n")))
}

/// The values that can be read; an activator of another version may have others.
fn read<T: DeserializeOwned>(values: &[Value]) -> Vec<T> {
    values.iter().filter_map(|value| T::deserialize(value).ok()).collect()
}

/// A table of streams without rows.
pub(super) fn table_of_streams_alone() -> AlignedTable {
    let headings =
        ["STREAM", "PUBLISHER", "APP", "STATE", ">FOR", ">BITRATE", "VIDEO", "AUDIO", "WORKER", ">DESTINATIONS"];
    AlignedTable::new(&headings)
}

/// The row of a stream.
pub(super) fn stream_cells(stream: &ListedStream, now: u64) -> Vec<Cell> {
    let live = stream.upstreams.iter().filter(|upstream| upstream.state == "live").count();
    let all = stream.upstreams.len();
    let tone = if live == all { Tone::Plain } else { Tone::Bad };
    vec![
        Cell::foreign(&stream.id),
        Cell::foreign(stream.publisher.as_deref().unwrap_or("-")),
        Cell::foreign(&stream.app),
        Cell::state(&stream.state),
        Cell::plain(age(stream.since.as_deref(), now)),
        Cell::plain(bitrate(stream.bitrate)),
        Cell::foreign(&video(stream)),
        Cell::foreign(stream.audio.as_ref().map_or("-", |audio| &audio.codec)),
        Cell::foreign(stream.worker.as_deref().unwrap_or("-")),
        Cell::plain(if all == 0 { "-".to_owned() } else { format!("{live} of {all} live") }).toned(tone),
    ]
}

/// The row of a destination in the table of streams, below its stream. `rate`: what leaves now.
pub(super) fn upstream_cells(upstream: &ListedUpstream, rate: Cell, now: u64) -> Vec<Cell> {
    let error = if upstream.state == "live" { "" } else { upstream.error.as_str() };
    vec![
        Cell::plain(format!("  {}", LogSafe(&upstream.name))),
        Cell::foreign(&upstream.host),
        Cell::plain(if upstream.backup { "backup" } else { "" }),
        Cell::state(&upstream.state),
        Cell::plain(age(upstream.since.as_deref(), now)),
        rate,
        Cell::plain(format!("lag {}", lag(upstream.lag))),
        Cell::plain(format!("lost {}", upstream.lost)),
        Cell::foreign(error).toned(Tone::Bad),
    ]
}

/// The table of streams; what is wrong with a destination stands below its stream.
pub(super) fn table_of_streams(streams: &[ListedStream], now: u64) -> AlignedTable {
    let mut table = table_of_streams_alone();
    for stream in streams {
        table.row(stream_cells(stream, now));
        for upstream in stream.upstreams.iter().filter(|upstream| upstream.state != "live") {
            table.note(Cell::plain(trouble(upstream, now)).toned(Tone::of_state(&upstream.state)));
        }
    }
    table
}

/// The table of one stream's destinations.
pub(super) fn table_of_destinations(upstreams: &[ListedUpstream], now: u64) -> AlignedTable {
    let headings =
        ["DESTINATION", "HOST", "STATE", ">FOR", ">LAG", ">SENT", ">LOST", ">REPLAYED", ">RECONNECTS", "LAST ERROR"];
    let mut table = AlignedTable::new(&headings);
    for upstream in upstreams {
        let backup = if upstream.backup { " (backup)" } else { "" };
        table.row(vec![
            Cell::foreign(&upstream.name),
            Cell::foreign(&format!("{}{backup}", upstream.host)),
            Cell::state(&upstream.state),
            Cell::plain(age(upstream.since.as_deref(), now)),
            Cell::plain(lag(upstream.lag)),
            Cell::plain(bytes(upstream.bytes)),
            Cell::plain(upstream.lost.to_string()),
            Cell::plain(upstream.replayed.to_string()),
            Cell::plain(upstream.reconnects.to_string()),
            Cell::foreign(if upstream.error.is_empty() { "-" } else { &upstream.error }),
        ]);
    }
    table
}

/// The table of workers.
pub(super) fn table_of_workers(workers: &[ListedWorker]) -> AlignedTable {
    let mut table = AlignedTable::new(&["WORKER", "STATE", ">STREAMS", ">CAPACITY"]);
    for worker in workers {
        table.row(vec![
            Cell::foreign(&worker.name),
            Cell::state(&worker.state),
            Cell::plain(worker.streams.to_string()),
            Cell::plain(worker.capacity.to_string()),
        ]);
    }
    table
}

/// A destination that is not live, in words.
fn trouble(upstream: &ListedUpstream, now: u64) -> String {
    let (name, state) = (LogSafe(&upstream.name), LogSafe(&upstream.state));
    let since = age(upstream.since.as_deref(), now);
    match upstream.error.as_str() {
        "" => format!("{name}: {state} for {since}"),
        error => format!("{name}: {state} for {since}: {}", LogSafe(error)),
    }
}

/// Time since a time of the API.
fn age(since: Option<&str>, now: u64) -> String {
    let since = since.and_then(parse_time);
    since.map_or_else(|| "-".to_owned(), |since| short(Duration::from_millis(now.saturating_sub(since))))
}

fn video(stream: &ListedStream) -> String {
    let Some(video) = &stream.video else { return "-".to_owned() };
    let mut text = video.codec.clone().unwrap_or_else(|| "?".to_owned());
    if let (Some(width), Some(height)) = (video.width, video.height) {
        text += &format!(" {width}x{height}");
    }
    if let Some(rate) = video.frame_rate {
        text += format!("@{rate:.4}").trim_end_matches('0').trim_end_matches('.');
    }
    text
}

/// Bits per second.
pub(super) fn bitrate(bits: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let bits = bits as f64;
    match bits {
        0.0 => "-".to_owned(),
        ..1e6 => format!("{:.0} kb/s", bits / 1e3),
        _ => format!("{:.1} Mb/s", bits / 1e6),
    }
}

/// Bytes.
fn bytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let bytes = bytes as f64;
    match bytes {
        ..1e6 => format!("{:.0} kB", bytes / 1e3),
        ..1e9 => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.2} GB", bytes / 1e9),
    }
}

/// Seconds of lag.
fn lag(seconds: f64) -> String {
    if seconds < 10.0 { format!("{:.0} ms", seconds * 1000.0) } else { format!("{seconds:.0} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_is_shown_with_what_is_wrong_with_its_destinations() {
        let json = serde_json::json!([{
            "id": "a1", "app": "live", "publisher": "studio", "since": "1970-01-01T00:00:00.000Z", "state": "live",
            "worker": "w-1", "bitrate": 2_500_000, "video": {"codec": "h264", "width": 1280, "height": 720, "frame_rate": 29.97},
            "audio": {"codec": "aac"}, "unknown": 1,
            "upstreams": [
                {"name": "good", "state": "live"},
                {"name": "away", "state": "backoff", "since": "1970-01-01T00:01:00Z", "error": "refused\u{1b}[2J"},
            ],
        }]);
        let mut streams: Vec<ListedStream> = read(json.as_array().unwrap());
        let text = table_of_streams(&streams, 65_000).text(false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>().join(" "),
            "a1 studio live live 1m05s 2.5 Mb/s h264 1280x720@29.97 aac w-1 1 of 2 live"
        );
        assert_eq!(lines[2], "  away: backoff for 5s: refused\\u{1b}[2J");
        let text = table_of_destinations(&streams[0].upstreams, 65_000).text(false);
        assert!(text.lines().count() == 3 && !text.contains('\x1b'), "{text}");
        streams[0].upstreams.clear();
        let text = table_of_streams(&streams, 65_000).text(false);
        assert!(text.ends_with(" -\n"), "a publisher that waits has no sessions: {text}");
    }

    #[test]
    fn amounts_are_short() {
        assert_eq!([bitrate(0), bitrate(999_400), bitrate(2_500_000)], ["-", "999 kb/s", "2.5 Mb/s"]);
        assert_eq!([bytes(1500), bytes(2_000_000), bytes(3_210_000_000)], ["2 kB", "2.0 MB", "3.21 GB"]);
        assert_eq!([lag(0.0125), lag(12.0)], ["12 ms", "12 s"]);
    }
}
