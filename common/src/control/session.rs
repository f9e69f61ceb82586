//! A stream as the worker that serves it reports it. In: the stream's own task, or a [`wire::Session`] of a peer. Out: the same as a
//! [`Session`], bounded, and back. Next: the worker's `register`, the activator's dispatcher.

use super::limits::{MAX_CODEC, MAX_EPOCH, MAX_IDENTITIES, MAX_STREAM_ID, MAX_TEXT, MAX_TEXTS, MAX_UPSTREAMS};
use super::{Malformed, wire};
use crate::clock::UtcTime;
use crate::key::{Identity, LogSafe, MAX_NAME_BYTES};

/// A stream that a worker serves, or served a moment ago.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Id of the publisher's stay.
    pub stream_id: String,
    /// App's name, without its query.
    pub app: String,
    /// Name of the publisher in the configuration file; empty if it has none, or the worker does not know it yet.
    pub publisher: String,
    /// Step in the stream's life.
    pub state: SessionState,
    /// Keyed hashes: the stream's own identity first, then those of its upstreams that carry no `{key}`.
    pub identities: Vec<Identity>,
    /// Number of the offer that the worker took it by.
    pub epoch: u64,
    /// Cause of the end; empty before.
    pub reason: String,
    /// Whole messages of the publisher since this worker has the stream; messages that it found in the ring of another worker count again.
    pub messages: u64,
    /// Figures of the publisher's stream.
    pub figures: StreamFigures,
    /// Revision of the list of destinations that the worker has; 0 before the first.
    pub revision: u64,
    /// The upstreams of the destinations.
    pub upstreams: Vec<UpstreamReport>,
}

/// The figures of a publisher's stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamFigures {
    /// Bytes received since this worker has the stream.
    pub bytes: u64,
    /// Bytes of the payloads of whole messages of video and audio, in the same time.
    pub kinds: KindBytes,
    /// Milliseconds between the last two keyframes; 0: not known.
    pub keyframe_interval: u32,
    /// Microseconds from the time that this worker took the stream until it wrote the first of its media to an upstream; 0: it has not.
    pub first_media: u64,
    /// Codecs and size, by the stream's headers.
    pub media: MediaFigures,
    /// Milliseconds since the last keyframe, or since the video began if none has come; 0 without video. Activators are told of it as a metric alone.
    pub keyframe_age: u64,
}

/// Bytes of a stream's messages by their kind: payloads alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindBytes {
    /// Bytes of video.
    pub video: u64,
    /// Bytes of audio.
    pub audio: u64,
}

/// Codecs and size of a stream; empty and 0 where they are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaFigures {
    /// Video codec in lower case.
    pub video: String,
    /// Audio codec in lower case.
    pub audio: String,
    /// Width of the picture in pixels.
    pub width: u32,
    /// Height of the picture in pixels.
    pub height: u32,
    /// Pictures in 1000 seconds, by the publisher's word.
    pub frame_rate: u32,
    /// Profile, constraint flags and level of H.264.
    pub profile: [u8; 3],
    /// Object type of AAC.
    pub object_type: u8,
    /// Channels of the audio.
    pub channels: u8,
    /// Samples of a channel in a second.
    pub sample_rate: u32,
}

/// Times of an upstream, by the worker's clock; zero where they are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTimes {
    /// Beginning of the state.
    pub since: UtcTime,
    /// Time of the newest failure.
    pub failed: UtcTime,
}

/// Steps in the life of a stream, as workers report them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionState {
    /// A state that this version does not know.
    #[default]
    Unknown,
    /// No upstream has started yet.
    Starting,
    /// An upstream has started.
    Live,
    /// The publisher's connection was lost; the grace time runs.
    Grace,
    /// The publisher has left for good; upstreams take the rest, or are being closed.
    Ending,
    /// The stream is over.
    Ended,
}

/// An upstream of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamReport {
    /// Name of the destination; empty before the first list of destinations.
    pub name: String,
    /// Host and port alone: an upstream's path is a secret.
    pub host: String,
    /// The backup of the destination is in use.
    pub backup: bool,
    /// Step in the upstream's life.
    pub state: UpstreamState,
    /// Newest failure; empty for none.
    pub error: String,
    /// Class of that failure; empty for none, and from a worker of an earlier release.
    pub fault: String,
    /// Figures of this upstream.
    pub counts: UpstreamCounts,
    /// Times of its state and of the failure.
    pub times: UpstreamTimes,
}

/// Steps in the life of an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamState {
    /// A state that this version does not know.
    #[default]
    Unknown,
    /// Name resolution, connection and TLS.
    Dialing,
    /// RTMP's handshake and commands, up to the start.
    Starting,
    /// The upstream takes the stream.
    Live,
    /// The upstream failed and is dialed again after a pause.
    Backoff,
    /// The upstream failed in a way that time alone does not mend.
    Failed,
    /// Done, or being closed.
    Closed,
}

/// Figures of one upstream since the stream began on this worker. `messages` and `lost` may go down: a break of the session turns messages
/// that count as written into lost ones, and a later session that delivers them turns them back. The worker's metrics only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamCounts {
    /// Bytes written, chunk headers included.
    pub bytes: u64,
    /// Messages written.
    pub messages: u64,
    /// Messages that it did not get.
    pub lost: u64,
    /// Messages written again after a flap.
    pub replayed: u64,
    /// Sessions that were live, without the first.
    pub reconnects: u64,
    /// Age of the oldest message that is to be written, in milliseconds. It is no counter, and no metric.
    pub lag: u64,
    /// Milliseconds of the stream that were passed over. Activators are told of it as a metric alone.
    pub skipped: u64,
}

/// The counters of a session, without what they belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Id of the publisher's stay.
    pub stream_id: String,
    /// As in [`Session::messages`].
    pub messages: u64,
    /// As in [`StreamFigures::bytes`].
    pub bytes: u64,
    /// As in [`StreamFigures::kinds`].
    pub kinds: KindBytes,
    /// As in [`StreamFigures::keyframe_interval`].
    pub keyframe_interval: u32,
    /// Those of each upstream, in the order of the session's upstreams, without [`UpstreamCounts::reconnects`].
    pub upstreams: Vec<UpstreamCounts>,
}

impl SessionCounters {
    /// The counters of a session.
    #[must_use]
    pub fn of(session: &Session) -> Self {
        let counts = |upstream: &UpstreamReport| UpstreamCounts { reconnects: 0, ..upstream.counts };
        Self {
            stream_id: session.stream_id.clone(),
            messages: session.messages,
            bytes: session.figures.bytes,
            kinds: session.figures.kinds,
            keyframe_interval: session.figures.keyframe_interval,
            upstreams: session.upstreams.iter().map(counts).collect(),
        }
    }

    /// Puts these counters into their session.
    pub fn bring_up_to_date(&self, session: &mut Session) {
        session.messages = self.messages;
        let figures = &mut session.figures;
        (figures.bytes, figures.kinds, figures.keyframe_interval) = (self.bytes, self.kinds, self.keyframe_interval);
        for (upstream, counts) in session.upstreams.iter_mut().zip(&self.upstreams) {
            upstream.counts = UpstreamCounts { reconnects: upstream.counts.reconnects, ..*counts };
        }
    }
}

/// A column of [`UpstreamCounts`] as a metric of the worker. The wire (`control.proto`) and the API (`UpstreamView` of the activator) list their
/// fields themselves.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Name of the worker's metric, without its prefix.
    pub metric: &'static str,
    /// Help text of that metric.
    pub help: &'static str,
    /// Value of the column.
    pub of: fn(&UpstreamCounts) -> u64,
}

impl UpstreamCounts {
    /// The higher one of both values, for each figure that counts.
    #[must_use]
    pub fn highest(&self, other: &Self) -> Self {
        Self {
            bytes: self.bytes.max(other.bytes),
            messages: self.messages.max(other.messages),
            lost: self.lost.max(other.lost),
            replayed: self.replayed.max(other.replayed),
            reconnects: self.reconnects.max(other.reconnects),
            lag: self.lag,
            skipped: self.skipped.max(other.skipped),
        }
    }

    /// Every field of it.
    pub const FIGURES: [Figure; 5] = [
        Figure {
            metric: "upstream_sent_bytes_total",
            help: "Bytes of media written to upstreams",
            of: |counts| counts.bytes,
        },
        Figure {
            metric: "upstream_sent_messages_total",
            help: "Messages written to upstreams",
            of: |counts| counts.messages,
        },
        Figure {
            metric: "upstream_lost_messages_total",
            help: "Messages that an upstream did not get",
            of: |counts| counts.lost,
        },
        Figure {
            metric: "upstream_replayed_messages_total",
            help: "Messages written again after a flap",
            of: |counts| counts.replayed,
        },
        Figure {
            metric: "upstream_reconnects_total",
            help: "Upstream sessions after the first of a stream",
            of: |counts| counts.reconnects,
        },
    ];
}

impl UpstreamState {
    /// Every state, [`Self::Unknown`] last.
    pub const ALL: [Self; 7] =
        [Self::Dialing, Self::Starting, Self::Live, Self::Backoff, Self::Failed, Self::Closed, Self::Unknown];

    /// The word for logs, metrics, the API and the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Dialing => "dialing",
            Self::Starting => "starting",
            Self::Live => "live",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
            Self::Closed => "closed",
        }
    }
}

impl Session {
    /// Returns whether more than growing counters is different: such a change is told to activators at once, the others wait. Reconnects
    /// are no such counter, since each of them is an event of its own.
    #[must_use]
    pub fn differs_beyond_counters(&self, other: &Self) -> bool {
        let Self {
            stream_id,
            app,
            publisher,
            state,
            identities,
            epoch,
            reason,
            messages: _,
            figures,
            revision,
            upstreams,
        } = self;
        let upstream = |(one, two): (&UpstreamReport, &UpstreamReport)| {
            // Its times follow from its state and its error.
            let UpstreamReport { name, host, backup, state, error, fault, counts, times: _ } = one;
            (name, host, backup, state, error, fault, counts.reconnects)
                != (&two.name, &two.host, &two.backup, &two.state, &two.error, &two.fault, two.counts.reconnects)
        };
        (stream_id, app, publisher, state, identities)
            != (&other.stream_id, &other.app, &other.publisher, &other.state, &other.identities)
            || (epoch, reason) != (&other.epoch, &other.reason)
            || figures.media != other.figures.media
            || figures.first_media != other.figures.first_media
            || *revision != other.revision
            || upstreams.len() != other.upstreams.len()
            || upstreams.iter().zip(&other.upstreams).any(upstream)
    }
}

/// The result takes 12 KiB at most: [`MAX_UPSTREAMS`] with their counters, [`MAX_TEXTS`] of hosts, names and errors, as many identities, an id,
/// an app, a name and a reason. Every text is fit to be shown.
impl TryFrom<wire::Session> for Session {
    type Error = Malformed;

    fn try_from(session: wire::Session) -> Result<Self, Malformed> {
        let state = session.state().into();
        let wire::Session {
            stream_id,
            identities,
            state: _,
            epoch,
            mut app,
            mut upstreams,
            mut reason,
            messages,
            figures,
            bytes,
            video_bytes,
            audio_bytes,
            keyframe_interval,
            revision,
            first_media,
            mut publisher,
        } = session;
        if !is_stream_id(&stream_id) || epoch > MAX_EPOCH {
            return Err(Malformed::Session);
        }
        let mut identities: Vec<Identity> =
            identities.iter().filter_map(|bytes| identity(bytes)).take(MAX_IDENTITIES).collect();
        upstreams.truncate(MAX_UPSTREAMS);
        let mut left = 3 * MAX_TEXT;
        // Streams are counted by app, so a good name stays what it is.
        if app.len() > MAX_NAME_BYTES || app.chars().any(char::is_control) {
            shown(&mut app, &mut left);
        }
        shown(&mut reason, &mut left);
        shown(&mut publisher, &mut left);
        let mut left = MAX_TEXTS;
        upstreams.iter_mut().for_each(|upstream| shown(&mut upstream.host, &mut left));
        upstreams.iter_mut().for_each(|upstream| shown(&mut upstream.fault, &mut left));
        upstreams.iter_mut().for_each(|upstream| shown(&mut upstream.name, &mut left));
        upstreams.iter_mut().for_each(|upstream| shown(&mut upstream.error, &mut left));
        let mut upstreams: Vec<UpstreamReport> = upstreams.into_iter().map(UpstreamReport::from).collect();
        // `collect` builds in place, so without this a session keeps the memory of everything that the worker has sent.
        identities.shrink_to_fit();
        upstreams.shrink_to_fit();
        let media = figures.unwrap_or_default().into();
        let kinds = KindBytes { video: video_bytes, audio: audio_bytes };
        let figures = StreamFigures { bytes, kinds, keyframe_interval, first_media, media, keyframe_age: 0 };
        Ok(Self { stream_id, app, publisher, state, identities, epoch, reason, messages, figures, revision, upstreams })
    }
}

impl From<Session> for wire::Session {
    fn from(session: Session) -> Self {
        let Session {
            stream_id,
            app,
            publisher,
            state,
            identities,
            epoch,
            reason,
            messages,
            figures,
            revision,
            upstreams,
        } = session;
        let StreamFigures { bytes, kinds, keyframe_interval, first_media, media, keyframe_age: _ } = figures;
        Self {
            stream_id,
            identities: identities.iter().map(|identity| identity.0.to_vec()).collect(),
            state: wire::session::State::from(state).into(),
            epoch,
            app,
            upstreams: upstreams.into_iter().map(wire::Upstream::from).collect(),
            reason,
            messages,
            figures: Some(media.into()),
            bytes,
            video_bytes: kinds.video,
            audio_bytes: kinds.audio,
            keyframe_interval,
            revision,
            first_media,
            publisher,
        }
    }
}

/// The texts are taken as they are: [`Session`] bounds those of all upstreams together.
impl From<wire::Upstream> for UpstreamReport {
    fn from(upstream: wire::Upstream) -> Self {
        let wire::Upstream {
            host,
            state,
            bytes,
            messages,
            lost,
            replayed,
            reconnects,
            error,
            fault,
            name,
            backup,
            since,
            failed,
        } = upstream;
        let state = UpstreamState::ALL.into_iter().find(|known| known.as_str() == state).unwrap_or_default();
        let counts =
            UpstreamCounts { bytes, messages, lost, replayed, reconnects: reconnects.into(), lag: 0, skipped: 0 };
        let times = UpstreamTimes { since: UtcTime(since), failed: UtcTime(failed) };
        Self { name, host, backup, state, error, fault, counts, times }
    }
}

impl From<UpstreamReport> for wire::Upstream {
    fn from(upstream: UpstreamReport) -> Self {
        let UpstreamReport { name, host, backup, state, error, fault, counts, times } = upstream;
        let UpstreamCounts { bytes, messages, lost, replayed, reconnects, lag: _, skipped: _ } = counts;
        let UpstreamTimes { since: UtcTime(since), failed: UtcTime(failed) } = times;
        let reconnects = u32::try_from(reconnects).unwrap_or(u32::MAX);
        let state = state.as_str().to_owned();
        Self { host, state, bytes, messages, lost, replayed, reconnects, error, fault, name, backup, since, failed }
    }
}

/// A codec is a short word in lower case; any other text counts as not known.
impl From<wire::StreamFigures> for MediaFigures {
    fn from(figures: wire::StreamFigures) -> Self {
        let wire::StreamFigures {
            video,
            audio,
            width,
            height,
            frame_rate,
            profile,
            object_type,
            channels,
            sample_rate,
        } = figures;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let codec =
            |text: String| if text.len() <= MAX_CODEC && text.chars().all(plain) { text } else { String::new() };
        let [_, profile @ ..] = profile.to_be_bytes();
        let small = |number: u32| u8::try_from(number).unwrap_or_default();
        Self {
            video: codec(video),
            audio: codec(audio),
            width,
            height,
            frame_rate,
            profile,
            object_type: small(object_type),
            channels: small(channels),
            sample_rate,
        }
    }
}

impl From<MediaFigures> for wire::StreamFigures {
    fn from(figures: MediaFigures) -> Self {
        let MediaFigures {
            video,
            audio,
            width,
            height,
            frame_rate,
            profile: [profile, constraints, level],
            object_type,
            channels,
            sample_rate,
        } = figures;
        let profile = u32::from_be_bytes([0, profile, constraints, level]);
        let (object_type, channels) = (object_type.into(), channels.into());
        Self { video, audio, width, height, frame_rate, profile, object_type, channels, sample_rate }
    }
}

impl From<wire::StreamCounters> for SessionCounters {
    fn from(counters: wire::StreamCounters) -> Self {
        let wire::StreamCounters { stream_id, messages, upstreams, bytes, video_bytes, audio_bytes, keyframe_interval } =
            counters;
        let counts = |upstream: wire::UpstreamCounters| {
            let wire::UpstreamCounters { bytes, messages, lost, replayed, lag } = upstream;
            UpstreamCounts { bytes, messages, lost, replayed, reconnects: 0, lag, skipped: 0 }
        };
        let upstreams = upstreams.into_iter().take(MAX_UPSTREAMS).map(counts).collect();
        let kinds = KindBytes { video: video_bytes, audio: audio_bytes };
        Self { stream_id, messages, bytes, kinds, keyframe_interval, upstreams }
    }
}

impl From<SessionCounters> for wire::StreamCounters {
    fn from(counters: SessionCounters) -> Self {
        let SessionCounters { stream_id, messages, bytes, kinds, keyframe_interval, upstreams } = counters;
        let counts = |upstream: UpstreamCounts| {
            let UpstreamCounts { bytes, messages, lost, replayed, reconnects: _, lag, skipped: _ } = upstream;
            wire::UpstreamCounters { bytes, messages, lost, replayed, lag }
        };
        let upstreams = upstreams.into_iter().map(counts).collect();
        let KindBytes { video: video_bytes, audio: audio_bytes } = kinds;
        Self { stream_id, messages, upstreams, bytes, video_bytes, audio_bytes, keyframe_interval }
    }
}

impl From<wire::session::State> for SessionState {
    fn from(state: wire::session::State) -> Self {
        match state {
            wire::session::State::Unknown => Self::Unknown,
            wire::session::State::Starting => Self::Starting,
            wire::session::State::Live => Self::Live,
            wire::session::State::Grace => Self::Grace,
            wire::session::State::Ended => Self::Ended,
            wire::session::State::Ending => Self::Ending,
        }
    }
}

impl From<SessionState> for wire::session::State {
    fn from(state: SessionState) -> Self {
        match state {
            SessionState::Unknown => Self::Unknown,
            SessionState::Starting => Self::Starting,
            SessionState::Live => Self::Live,
            SessionState::Grace => Self::Grace,
            SessionState::Ended => Self::Ended,
            SessionState::Ending => Self::Ending,
        }
    }
}

/// True for a text that a peer may call a stream.
#[must_use]
pub fn is_stream_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_STREAM_ID && text.chars().all(|c| c.is_ascii_graphic())
}

fn identity(bytes: &[u8]) -> Option<Identity> {
    bytes.try_into().ok().map(Identity)
}

/// Makes a text fit for a log line and for the bytes that are `left` for texts.
fn shown(text: &mut String, left: &mut usize) {
    let mut fit = LogSafe(text).to_string();
    let most = fit.len().min(MAX_TEXT).min(*left);
    fit.truncate((0..=most).rev().find(|at| fit.is_char_boundary(*at)).unwrap_or_default());
    fit.shrink_to_fit();
    *left -= fit.len();
    *text = fit;
}
