//! Mistakes in the settings, and the state that a working process shows.

use liveedgecast_e2e::http;
use liveedgecast_e2e::publish::Media;
use liveedgecast_e2e::relay::{ActivatorProcess, KEY_MARK};
use liveedgecast_e2e::wait::SOON;

use crate::Relay;

#[test]
fn all_mistakes_are_reported_at_once_and_no_port_is_opened() {
    let settings = ActivatorProcess::pushing_to("http://example.com/live rtmp://example.com/one");
    let mut process = settings.with("CAPACITY", "many").with("HANDOFF", "telepathy").start_anyhow();
    assert!(!process.wait(SOON).success());
    for setting in ["RTMP_PUSH_URL", "CAPACITY", "HANDOFF", "/{key}"] {
        assert!(process.log().contains(setting), "{setting} is not mentioned:\n{}", process.log());
    }
}

#[test]
fn a_live_stream_is_shown_without_its_key() {
    let relay = Relay::by("auto");
    let _publisher = relay.published(Media::Both, "shown");
    relay.sink.receives(50);
    for path in ["/metrics", "/healthz", "/readyz", "/api/v1/demand", "/api/v1/streams", "/api/v1/workers"] {
        let answer = http::request(relay.activator.http(), "GET", path).expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(!answer.body.contains(KEY_MARK), "{path} shows a key");
    }
    assert_eq!(http::request(relay.activator.http(), "GET", "/nothing").expect("an answer").status, 404);
    let stream = relay.activator.has_a_stream_that_is("live");
    assert!(stream["worker"].is_string() && stream["upstreams"].is_array(), "{stream}");
}
