//! One frame of the live view. In: what the gateway has answered, the size of the terminal. Out: lines that fit. Pure.

use std::collections::HashMap;
use std::time::Duration;

use liveedgecast_common::clock::UtcTime;
use liveedgecast_common::key::LogSafe;

use crate::commandline::answers::{ListedStream, ListedWorker};
use crate::commandline::listing::{bitrate, stream_cells, table_of_streams_alone, table_of_workers, upstream_cells};
use crate::commandline::table::{AlignedTable, Cell, Tone};

/// Events that keep their room below everything else.
const LAST_EVENTS: usize = 5;

/// An answer of the gateway.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Milliseconds since 1970.
    pub(super) at: u64,
    pub(super) streams: Vec<ListedStream>,
    pub(super) workers: Vec<ListedWorker>,
}

/// The parts that are shown.
#[derive(Debug)]
pub(super) struct View {
    base: String,
    seen: Seen,
    /// Bytes that each destination of each stream had got, the time before.
    before: HashMap<(String, String), u64>,
    /// Bits per second of each destination.
    rates: HashMap<(String, String), u64>,
    from: usize,
    /// The newest events last.
    pub(super) events: Vec<String>,
    /// The reason why the gateway does not answer.
    pub(super) away: Option<String>,
}

impl View {
    pub(super) fn new(base: String) -> Self {
        Self {
            base,
            seen: Seen::default(),
            before: HashMap::new(),
            rates: HashMap::new(),
            from: 0,
            events: Vec::new(),
            away: None,
        }
    }

    /// Takes a new answer.
    pub(super) fn see(&mut self, seen: Seen) {
        let time = Duration::from_millis(seen.at.saturating_sub(self.seen.at));
        let mut bytes = HashMap::new();
        self.rates.clear();
        for stream in &seen.streams {
            for upstream in &stream.upstreams {
                let key = (stream.id.clone(), upstream.name.clone());
                if let Some(before) = self.before.get(&key).filter(|_| !time.is_zero()) {
                    let bits = u128::from(upstream.bytes.saturating_sub(*before)) * 8000 / time.as_millis();
                    self.rates.insert(key.clone(), u64::try_from(bits).unwrap_or(u64::MAX));
                }
                bytes.insert(key, upstream.bytes);
            }
        }
        (self.before, self.seen, self.away) = (bytes, seen, None);
    }

    /// Moves the list of streams.
    pub(super) fn scroll(&mut self, by: isize) {
        self.from = self.from.saturating_add_signed(by).min(self.seen.streams.len().saturating_sub(1));
    }

    /// The lines, at most `height`, each at most `width` wide.
    pub(super) fn lines(&self, width: usize, height: usize, coloured: bool) -> Vec<String> {
        let mut top = vec![self.summary(coloured)];
        if let Some(away) = &self.away {
            top.push(Tone::Bad.paint(&LogSafe(away).to_string(), coloured));
        }
        top.push(String::new());
        let mut table = table_of_streams_alone();
        for stream in self.seen.streams.iter().skip(self.from) {
            self.stream(stream, &mut table);
        }
        let mut middle = table.lines(coloured);
        if self.seen.streams.is_empty() {
            middle = vec![Tone::Dim.paint("no streams", coloured)];
        }
        let mut bottom = vec![String::new()];
        bottom.extend(table_of_workers(&self.seen.workers).lines(coloured));
        let events = &self.events[self.events.len().saturating_sub(LAST_EVENTS)..];
        if !events.is_empty() {
            bottom.push(String::new());
            bottom.extend(events.iter().map(|event| Tone::Dim.paint(event, coloured)));
        }
        // Streams come first where there is little room; half of it is theirs.
        let room = height.saturating_sub(top.len());
        bottom.truncate(room.saturating_sub(middle.len().min(room.div_ceil(2))));
        middle.truncate(room - bottom.len());
        top.into_iter().chain(middle).chain(bottom).take(height).map(|line| cut(&line, width)).collect()
    }

    fn summary(&self, coloured: bool) -> String {
        let streams = &self.seen.streams;
        let live = streams.iter().filter(|stream| stream.state == "live").count();
        let red =
            streams.iter().flat_map(|stream| &stream.upstreams).filter(|upstream| upstream.state != "live").count();
        let bits: u64 = streams.iter().map(|stream| stream.bitrate).sum();
        let (taken, places) = self
            .seen
            .workers
            .iter()
            .fold((0, 0), |(taken, places), worker| (taken + worker.streams, places + u64::from(worker.capacity)));
        let time = UtcTime(self.seen.at).to_string();
        let (title, clock) = (format!("liveedgecast {}", self.base), time.get(11..19).unwrap_or_default());
        let (title, clock) = (Tone::Good.paint(&title, coloured), Tone::Dim.paint(&format!("{clock} UTC"), coloured));
        let away = format!("{red} destination{} not live", if red == 1 { "" } else { "s" });
        let away = if red > 0 { Tone::Bad.paint(&away, coloured) } else { "all destinations live".to_owned() };
        let (count, workers, quit) = (streams.len(), self.seen.workers.len(), Tone::Dim.paint("q quits", coloured));
        format!(
            "{title}  {clock}  streams {live} of {count} live, {}  {away}  workers {workers}, {taken} of {places} places  {quit}",
            bitrate(bits)
        )
    }

    /// The rows of a stream and its destinations.
    fn stream(&self, stream: &ListedStream, table: &mut AlignedTable) {
        table.row(stream_cells(stream, self.seen.at));
        for upstream in &stream.upstreams {
            let rate = self.rates.get(&(stream.id.clone(), upstream.name.clone())).copied();
            let rate = Cell::plain(rate.map_or_else(|| "-".to_owned(), bitrate));
            table.row(upstream_cells(upstream, rate, self.seen.at));
        }
    }
}

/// As much of a line as fits, with a sign where there is more; what only colours takes no room.
fn cut(line: &str, width: usize) -> String {
    let (mut shown, mut last, mut out, mut coloured, mut chars) = (0, 0, String::new(), false, line.chars());
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            out.push(c);
            coloured = true;
            for c in chars.by_ref() {
                out.push(c);
                if c == 'm' {
                    break;
                }
            }
        } else if shown < width {
            last = out.len();
            out.push(c);
            shown += 1;
        } else {
            if width > 0 {
                out.truncate(last);
                out.push('…');
            }
            break;
        }
    }
    if coloured && !out.ends_with("\x1b[0m") { out + "\x1b[0m" } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commandline::answers::ListedUpstream;

    fn seen(at: u64, bytes: u64) -> Seen {
        let upstream = |name: &str, state: &str, error: &str| ListedUpstream {
            name: name.to_owned(),
            host: "a:1".to_owned(),
            state: state.to_owned(),
            bytes,
            lag: 0.01,
            error: error.to_owned(),
            ..ListedUpstream::default()
        };
        let stream = |id: &str| ListedStream {
            id: id.to_owned(),
            state: "live".to_owned(),
            bitrate: 1_000_000,
            upstreams: vec![upstream("main", "live", ""), upstream("other", "failed", "refused\x1b[2J")],
            ..ListedStream::default()
        };
        let workers = vec![ListedWorker { name: "w".to_owned(), capacity: 50, ..ListedWorker::default() }];
        Seen { at, streams: ["s1", "s2", "s3"].map(stream).into(), workers }
    }

    #[test]
    fn line_that_is_too_long_says_so() {
        assert_eq!([cut("abc", 3), cut("abcd", 3), cut("abcd", 0)], ["abc", "ab…", ""]);
        let rows = [
            ("a\x1b[31mbc\x1b[0m", "a\x1b[31mbc\x1b[0m"),
            ("a\x1b[31mbcd\x1b[0m", "a\x1b[31mb…\x1b[0m"),
            ("a\x1b[31mbc\x1b[0m d", "a\x1b[31mb…\x1b[0m"),
        ];
        for (line, expected) in rows {
            assert_eq!(cut(line, 3), expected, "{line:?}");
        }
    }

    #[test]
    fn frame_shows_streams_destinations_workers_and_events_within_its_size() {
        let mut view = View::new("http://a".to_owned());
        view.see(seen(1000, 0));
        view.see(seen(2000, 250_000));
        view.events = (0..9).map(|number| format!("event {number}")).collect();
        let text = view.lines(200, usize::MAX, false).join("\n");
        for word in
            ["s1", "s3", "2.0 Mb/s", "3 destinations not live", "refused\\u{1b}[2J", "0 of 50 places", "event 8"]
        {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(!text.contains("event 3") && !text.contains('\x1b'), "{text}");
        for (width, height) in [(0, 0), (1, 1), (10, 3), (40, 8), (80, 24), (200, 60)] {
            for coloured in [false, true] {
                let lines = view.lines(width, height, coloured);
                assert!(lines.len() <= height, "{height}: {lines:?}");
                let plain = |line: &String| {
                    let mut parts = line.split('\x1b');
                    let first = parts.next().unwrap_or_default().chars().count();
                    first
                        + parts
                            .map(|part| part.split_once('m').map_or(0, |(_, rest)| rest.chars().count()))
                            .sum::<usize>()
                };
                assert!(lines.iter().all(|line| plain(line) <= width), "{width}: {lines:?}");
            }
        }
        view.scroll(1);
        assert!(!view.lines(200, 60, false).join("\n").contains("s1 "));
        view.scroll(-9);
        assert!(view.lines(200, 60, false).join("\n").contains("s1 "));
        view.away = Some("no gateway answers".to_owned());
        assert!(view.lines(200, 60, false)[1].contains("no gateway answers"));
    }
}
