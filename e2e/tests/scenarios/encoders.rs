//! Rare behaviour of real encoders: small windows, frames of megabytes, a goodbye that does not end the connection.

use liveedgecast_common::rtmp::message::Control;
use liveedgecast_e2e::encoder::Encoder;
use liveedgecast_e2e::publish::{Gst, gstreamer};
use liveedgecast_e2e::relay::key;
use liveedgecast_e2e::wait::{SOON, until};

use crate::Relay;

by_descriptor_and_by_link! {
    a_publisher_with_a_small_window_and_large_frames_keeps_its_worker
    keyframes_of_five_megabytes_arrive
    a_publisher_publishes_again_on_its_connection_after_a_goodbye
    rtmp2sink_ends_with_status_0_twenty_times_in_a_row
}

/// Sends frames one after the other, as fast as the upstream takes them.
fn send(relay: &Relay, encoder: &mut Encoder, frames: impl IntoIterator<Item = (u32, bool, usize)>) {
    let before = relay.sink.last().map_or(0, |session| session.recording.frames());
    for (count, (timestamp, keyframe, length)) in frames.into_iter().enumerate() {
        encoder.frame(timestamp, keyframe, length);
        if count % 8 == 7 {
            relay.sink.receives(before + count - 7);
        }
    }
}

fn a_publisher_with_a_small_window_and_large_frames_keeps_its_worker(handoff: &str) {
    let relay = Relay::by(handoff);
    let mut encoder = Encoder::connect(relay.activator.rtmp(), "live");
    // Window size that phone libraries announce.
    encoder.control(&Control::WindowAckSize(100_000));
    encoder.publish(&key("window"));
    // 13 MB with a single keyframe, more than an activator keeps.
    send(&relay, &mut encoder, (0..200).map(|at| (at * 26, at == 0, 65_000)));
    let session = relay.sink.receives(200);
    assert_eq!(relay.sink.sessions().len(), 1, "one session at the upstream");
    assert!(session.media().iter().filter(|message| message.is_frame()).all(|frame| frame.payload.len() == 65_000));
    let back = relay.activator.metric("liveedgecast_streams_back_total", &[]);
    assert_eq!(back, Some(0.0), "a worker was given up");
    encoder.goodbye(&key("window"));
    assert!(relay.sink.ended().said_goodbye());
}

fn keyframes_of_five_megabytes_arrive(handoff: &str) {
    let relay = Relay::by(handoff);
    let mut encoder = Encoder::connect(relay.activator.rtmp(), "live");
    encoder.publish(&key("large"));
    for group in 0..3 {
        let from = group * 2_000;
        encoder.frame(from, true, 4_500_000 + group as usize * 250_000);
        encoder.frame(from + 40, false, 20_000);
        relay.sink.receives(2 * (group as usize + 1));
    }
    let session = relay.sink.only();
    let lengths: Vec<usize> =
        session.media().iter().filter(|message| message.is_frame()).map(|frame| frame.payload.len()).collect();
    assert_eq!(lengths, [4_500_000, 20_000, 4_750_000, 20_000, 5_000_000, 20_000]);
    encoder.goodbye(&key("large"));
    assert!(relay.sink.ended().said_goodbye());
}

fn a_publisher_publishes_again_on_its_connection_after_a_goodbye(handoff: &str) {
    let relay = Relay::by(handoff);
    let mut encoder = Encoder::connect(relay.activator.rtmp(), "live");
    for (count, name) in ["first", "second", "first"].into_iter().enumerate() {
        encoder.publish(&key(name));
        send(&relay, &mut encoder, (0..20).map(|at| (at * 40, at == 0, 3_000)));
        relay.sink.receives_in_session(count + 1, 20);
        encoder.goodbye(&key(name));
        until("the end at the upstream", || relay.sink.sessions()[count].ended.is_some());
        assert!(!encoder.is_closed(), "the connection is the publisher's to end");
    }
    // The activator closes an idle connection after a while.
    until("the connection to be closed", || encoder.is_closed());
    relay.activator.is_back_to_zero();
}

fn rtmp2sink_ends_with_status_0_twenty_times_in_a_row(handoff: &str) {
    let relay = Relay::by(handoff);
    for end in 1..=20 {
        let mut publisher = gstreamer(Gst::Rtmp2Sink, &relay.activator.url(&format!("live/{}", key("ends"))));
        relay.sink.receives_in_session(end, 10);
        publisher.interrupt();
        let status = publisher.wait(SOON);
        assert!(status.success(), "end {end} of 20: {status}\n{}", publisher.log());
        until("its end at the upstream", || relay.sink.sessions()[end - 1].ended.is_some());
    }
    assert_eq!(relay.sink.sessions().len(), 20);
}
