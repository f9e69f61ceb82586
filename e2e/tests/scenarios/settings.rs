//! Mistakes in the settings, and the state that a working process shows.

use liveedgecast_e2e::http;
use liveedgecast_e2e::publish::Media;
use liveedgecast_e2e::relay::{ActivatorProcess, KEY_MARK, key};
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

#[test]
fn activator_that_strangers_reach_must_be_told_who_may_publish() {
    let settings = || ActivatorProcess::pushing_to("rtmp://127.0.0.1:9/live/{key}");
    let mut refused = settings().with("RTMP_LISTEN", "0.0.0.0:0").start_anyhow();
    assert_eq!(refused.wait(SOON).code(), Some(2));
    for word in ["0.0.0.0:0", "PUBLISH_KEYS", "--config", "--open", "LIVEEDGECAST_OPEN=yes"] {
        assert!(refused.log().contains(word), "{word} is not mentioned:\n{}", refused.log());
    }
    let open = settings().with("RTMP_LISTEN", "0.0.0.0:0").with("LIVEEDGECAST_OPEN", "yes").start();
    let warned = open.events("activator.open");
    assert!(warned.iter().any(|line| line["message"].to_string().contains("PUBLISH_KEYS")), "{warned:?}");
    let ready = http::get(open.http(), "/readyz").unwrap_or_default();
    assert!(ready.contains("WARNING") && ready.contains("PUBLISH_KEYS"), "{ready}");
}

#[test]
fn names_of_variables_are_checked_and_those_of_before_are_read() {
    let settings = || ActivatorProcess::pushing_to("rtmp://127.0.0.1:9/live/{key}");
    let mut process = settings()
        .with("LIVEEDGECAST_PUBLSH_KEYS", &key("mistake"))
        .with("CAPACITY", "3")
        .with("LIVEEDGECAST_CAPACITY", "4")
        .start_anyhow();
    assert_eq!(process.wait(SOON).code(), Some(2));
    let log = process.log();
    assert!(log.contains("LIVEEDGECAST_PUBLSH_KEYS: is no setting: did you mean LIVEEDGECAST_PUBLISH_KEYS?"), "{log}");
    assert!(log.contains("LIVEEDGECAST_CAPACITY: is also given as CAPACITY"), "{log}");
    assert!(!log.contains(KEY_MARK), "{log}");
    let good = settings().with("LIVEEDGECAST_CAPACITY", "4").with("LIVEEDGECAST_SERVICE_HOST", "10.0.0.1").start();
    assert_eq!(good.api("scale").map(|scale| scale["target"].clone()), Some(4.0.into()));
}
