//! The figures of a stream that are shown to people: codecs, size, times of its upstreams. In: the index, the reports of upstreams, the time. Out: the
//! figures of the next report. They are brought up to date once for each report, and headers are read only when another one has come. A codec of sound without
//! a header is known by its frames. Pure.

use liveedgecast_common::clock::UtcTime;
use liveedgecast_common::control::{MediaFigures, StreamFigures, UpstreamReport, UpstreamState, UpstreamTimes};
use liveedgecast_common::rtmp::describe::{MediaDescription, PlainAudio};
use liveedgecast_common::rtmp::media::HeaderSlot;

use super::index::{HeaderMark, Index, Memory};

/// The figures as they were reported last.
#[derive(Debug, Default)]
pub(super) struct ShownFigures {
    /// The headers that `media` follows from.
    mark: HeaderMark,
    media: MediaFigures,
    /// The sound has a header, which describes it.
    audio_header: bool,
    upstreams: Vec<UpstreamReport>,
}

impl ShownFigures {
    /// The figures of the publisher's stream. `bytes`: bytes received; `first_media`: as in [`StreamFigures`].
    pub(super) fn of_stream(
        &mut self,
        bytes: u64,
        first_media: u64,
        index: &Index,
        memory: &impl Memory,
    ) -> StreamFigures {
        let mark = index.header_mark();
        if mark != self.mark {
            self.mark = mark;
            let headers = index.headers_before(index.end(), memory);
            self.audio_header = headers.iter().any(|header| matches!(header.slot, HeaderSlot::Audio { .. }));
            let described = headers.iter().map(|header| (header.slot, header.type_id, header.payload.as_slice()));
            let MediaDescription {
                video,
                audio,
                width,
                height,
                frame_rate,
                profile,
                object_type,
                channels,
                sample_rate,
            } = MediaDescription::of(described);
            let (video, audio) = (video.to_owned(), audio.to_owned());
            self.media =
                MediaFigures { video, audio, width, height, frame_rate, profile, object_type, channels, sample_rate };
        }
        if !self.audio_header
            && index.kind_bytes().audio > 0
            && let Some(PlainAudio { codec, channels, sample_rate }) = index.plain_audio(memory)
        {
            codec.clone_into(&mut self.media.audio);
            (self.media.object_type, self.media.channels, self.media.sample_rate) = (0, channels, sample_rate);
        }
        StreamFigures {
            bytes,
            kinds: index.kind_bytes(),
            keyframe_interval: index.keyframe_interval().unwrap_or_default(),
            first_media,
            media: self.media.clone(),
            keyframe_age: 0,
        }
    }

    /// Adds the times of states and failures to the reports of the upstreams, and their lags.
    pub(super) fn complete(&mut self, now: UtcTime, upstreams: &mut [UpstreamReport], lags: impl Iterator<Item = u64>) {
        for (upstream, lag) in upstreams.iter_mut().zip(lags) {
            upstream.counts.lag = lag;
        }
        for (at, upstream) in upstreams.iter_mut().enumerate() {
            // Upstreams come and go while a stream runs; before the first list they have no names.
            let named = |known: &&UpstreamReport| !known.name.is_empty() && known.name == upstream.name;
            let unnamed = || self.upstreams.get(at).filter(|known| known.name.is_empty());
            let known = self.upstreams.iter().find(named).or_else(unnamed);
            let known = known.filter(|known| known.host == upstream.host);
            upstream.times = times(now, known, upstream);
        }
        self.upstreams.clear();
        self.upstreams.extend_from_slice(upstreams);
    }
}

fn times(now: UtcTime, before: Option<&UpstreamReport>, report: &UpstreamReport) -> UpstreamTimes {
    let fails = |report: &UpstreamReport| matches!(report.state, UpstreamState::Backoff | UpstreamState::Failed);
    let same =
        before.filter(|before| (before.state, before.counts.reconnects) == (report.state, report.counts.reconnects));
    // A failure that repeats itself is a new one each time that the upstream is dialed in vain.
    let again = fails(report) && !before.is_some_and(fails);
    let failure = before.filter(|before| before.error == report.error && !again);
    UpstreamTimes {
        since: same.map_or(now, |same| same.times.since),
        failed: if report.error.is_empty() { UtcTime(0) } else { failure.map_or(now, |failure| failure.times.failed) },
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::control::UpstreamCounts;

    use super::*;

    fn report(state: UpstreamState, error: &str, reconnects: u64) -> UpstreamReport {
        let counts = UpstreamCounts { reconnects, ..UpstreamCounts::default() };
        UpstreamReport { host: "a:1935".into(), state, error: error.into(), counts, ..UpstreamReport::default() }
    }

    #[test]
    fn times_are_those_of_the_state_and_of_the_newest_failure() {
        use UpstreamState::{Backoff, Dialing, Failed, Live};
        let mut shown = ShownFigures::default();
        // Time, report; the state's beginning, the time of the failure.
        let table = [
            (1, report(Dialing, "", 0), 1, 0),
            (2, report(Dialing, "", 0), 1, 0),
            (3, report(Live, "", 0), 3, 0),
            (4, report(Backoff, "reset", 0), 4, 4),
            (5, report(Backoff, "reset", 0), 4, 4),
            (6, report(Dialing, "reset", 0), 6, 4),
            (7, report(Backoff, "reset", 0), 7, 7),
            (8, report(Failed, "denied", 0), 8, 8),
            (9, report(Live, "denied", 1), 9, 8),
            // It was lost and back between two reports.
            (10, report(Live, "denied", 2), 10, 8),
            (11, report(Live, "reset", 2), 10, 11),
            (12, report(Live, "", 2), 10, 0),
        ];
        for (now, report, since, failed) in table {
            let mut upstreams = [report];
            shown.complete(UtcTime(now), &mut upstreams, [now].into_iter());
            let times = UpstreamTimes { since: UtcTime(since), failed: UtcTime(failed) };
            assert_eq!((upstreams[0].times, upstreams[0].counts.lag), (times, now), "at {now}");
        }
        let mut other = [UpstreamReport { host: "b:1935".into(), ..report(Live, "", 2) }];
        shown.complete(UtcTime(13), &mut other, [0].into_iter());
        assert_eq!(other[0].times.since, UtcTime(13), "another upstream in its place");
    }
}
