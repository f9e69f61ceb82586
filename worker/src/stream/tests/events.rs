//! Each source of a stream's events wakes it: alone, while nothing else happens, and in any order with the others.

use bytes::Bytes;
use liveedgecast_common::control::UpstreamState;
use liveedgecast_common::handoff::Frame;
use liveedgecast_common::key::Identity;
use liveedgecast_common::rtmp::message::{Control, UserControl};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::kit::*;
use super::*;

/// Events of the sources.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// The publisher sends media.
    Media,
    /// The publisher pings, and is answered.
    Ping,
    /// The activator speaks on a connection that brings no media.
    Activator,
    /// The engine asks for upstreams.
    Contest,
    /// The upstream ends its connection, and the next one is live.
    Cut,
    /// The upstream reads nothing until its connection is full, and then goes on.
    Stall,
}

const ALL: [Happening; 6] =
    [Happening::Media, Happening::Ping, Happening::Activator, Happening::Contest, Happening::Cut, Happening::Stall];

/// Sessions that an upstream may end right after `Publish.Start`, one fewer than make a refusal.
const MOST_CUTS: usize = 2;

/// A stream to a narrow upstream, and what has been sent so far.
struct Eventful {
    live: LiveStream,
    link: bool,
    sent: Vec<Message>,
    contests: usize,
}

impl Eventful {
    async fn start(link: bool) -> Self {
        let sink = Sink::narrow().await;
        let live = if link { live_by_link_to(sink).await } else { live_by_descriptor_to(sink).await };
        let mut stream = Self { live, link, sent: Vec::new(), contests: 0 };
        stream.send(&[metadata(), audio_header(), video_header(), video(0, true, 100)]).await;
        stream.arrived("the headers").await;
        stream
    }

    async fn give(&mut self, bytes: Vec<u8>) {
        if self.link {
            self.live.activator.tell(Frame::Data(Bytes::from(bytes))).await;
        } else {
            self.live.encoder.socket.write_all(&bytes).await.unwrap();
        }
    }

    async fn send(&mut self, messages: &[Message]) {
        let bytes = self.live.encoder.encode(messages);
        self.sent.extend_from_slice(messages);
        self.give(bytes).await;
    }

    async fn frame(&mut self, keyframe: bool, length: usize) {
        let timestamp = 40 * self.sent.len() as u32;
        self.send(&[video(timestamp, keyframe, length)]).await;
    }

    /// Waits until the upstream's last session has the last message.
    async fn arrived(&self, what: &str) {
        let sink = &self.live.sink;
        until(what, || {
            let last = sink.sessions.borrow().len() - 1;
            sink.with(last, |got| got.messages.last() == self.sent.last() || ends_like(&got.messages, &self.sent))
                == Some(true)
        })
        .await;
    }

    async fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Media => {
                self.frame(false, 200).await;
                self.arrived("media").await;
            }
            Happening::Ping => {
                let mut bytes = Vec::new();
                let number = self.sent.len() as u32;
                Control::UserControl(UserControl::PingRequest(number)).write(&mut bytes, 128);
                self.give(bytes).await;
                let mut answer = Vec::new();
                Control::UserControl(UserControl::PingResponse(number)).write(&mut answer, 128);
                self.answered(&answer).await;
            }
            // Nothing comes of it, but what follows must be handled.
            Happening::Activator => self.live.activator.tell(Frame::Alive).await,
            Happening::Contest => {
                self.contests += 1;
                let stream_id = StreamId(format!("other {}", self.contests));
                let identities: Vec<Identity> = Vec::new();
                let contest = Contest { stream_id: stream_id.clone(), identities, destinations: Vec::new() };
                self.live.engine.command(StreamCommand::Contend(contest));
                let decided = |report: &Report| match report {
                    Report::ContestDecided { stream_id: of, .. } if *of == stream_id => Some(()),
                    _ => None,
                };
                self.live.engine.report("the contest's decision", decided).await;
            }
            Happening::Cut => {
                let sessions = self.live.sink.sessions.borrow().len();
                self.live.sink.cut();
                until("another session", || {
                    let sink = &self.live.sink;
                    sink.with(sessions, |got| got.published) == Some(true)
                })
                .await;
                self.frame(true, 300).await;
                self.arrived("the keyframe in another session").await;
            }
            Happening::Stall => {
                self.live.sink.deaf.set(true);
                for _ in 0..4 {
                    self.frame(false, 30_000).await;
                }
                self.live.sink.deaf.set(false);
                self.arrived("what was held up").await;
            }
        }
    }

    /// Waits for an answer to the publisher.
    async fn answered(&mut self, answer: &[u8]) {
        if self.link {
            let activator = &self.live.activator;
            let has = |frame: &Frame| matches!(frame, Frame::Reply(bytes) if bytes.windows(answer.len()).any(|part| part == answer));
            return until("the answer by link", || activator.has(has)).await;
        }
        let mut got = Vec::new();
        while !got.windows(answer.len()).any(|part| part == answer) {
            let reading = self.live.encoder.socket.read_buf(&mut got);
            let read = tokio::time::timeout(std::time::Duration::from_secs(20), reading).await;
            assert!(read.expect("the answer comes").unwrap() > 0);
        }
    }

    async fn end(mut self, how: usize) {
        match how {
            0 => self.live.engine.command(StreamCommand::Kick("enough".to_owned())),
            1 => self.live.activator.tell(Frame::Kick("enough".to_owned())).await,
            2 if !self.link => self.live.encoder.goodbye().await,
            _ => {
                let bytes = {
                    self.live.encoder.client.end();
                    self.live.encoder.client.take_output()
                };
                self.give(bytes).await;
            }
        }
        let state = self
            .live
            .engine
            .report("the end", |report| match report {
                Report::Session(session) if session.state == SessionState::Ended => Some(session.upstreams[0].state),
                _ => None,
            })
            .await;
        assert_eq!(state, UpstreamState::Closed);
        self.live.engine.ended().await;
    }
}

#[test]
fn each_source_alone_wakes_the_stream() {
    for link in [false, true] {
        for happening in ALL {
            run(async {
                let mut stream = Eventful::start(link).await;
                for _ in 0..2 {
                    stream.happens(happening).await;
                }
                stream.happens(Happening::Media).await;
            });
        }
        for how in 0..3 {
            run(async { Eventful::start(link).await.end(how).await });
        }
    }
}

#[test]
fn events_in_any_order_are_all_handled() {
    // An upstream that ends three young sessions has refused, and the waits after that are the next attempt's, not an event's.
    let happenings = prop::collection::vec(prop::sample::select(ALL.to_vec()), 1..12).prop_map(|mut happenings| {
        let mut cuts = 0;
        happenings.retain(|happening| {
            let cut = matches!(happening, Happening::Cut);
            cuts += usize::from(cut);
            !cut || cuts <= MOST_CUTS
        });
        happenings
    });
    let mut runner = TestRunner::new(Config { cases: 24, max_shrink_iters: 0, ..Config::default() });
    runner
        .run(&(any::<bool>(), happenings, 0..3_usize), |(link, happenings, how)| {
            run(async {
                let mut stream = Eventful::start(link).await;
                for happening in happenings {
                    stream.happens(happening).await;
                }
                stream.end(how).await;
            });
            Ok(())
        })
        .unwrap();
}
