//! `up.sh` and `down.sh`, run as operators run them.

use liveedgecast_e2e::cluster::api::path;
use liveedgecast_e2e::cluster::install::Installation;
use liveedgecast_e2e::cluster::{NAMESPACE, door, said, script};
use liveedgecast_e2e::compare::assert_arrived_whole;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::key;
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, until};

use crate::{Relays, published, receives, receives_more};

on_a_cluster! {
    down_is_refused_while_a_stream_is_live
    up_and_down_can_each_run_twice
    wrong_input_leaves_nothing_behind
}

fn down_is_refused_while_a_stream_is_live(relays: &Relays<'_>) {
    let relay = relays.installed(&Installation::default());
    let tap = Tap::before(relay.socket());
    let mut publisher = published(&tap, "live");
    receives(&relay.sink, "live", 50);
    for arguments in [&[][..], &["--dry-run"]] {
        let output = script("down.sh", arguments, &[]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("1 stream waits or is live"), "the stream is not told: {}", said(&output));
        assert!(!said(&output).contains(&key("live")), "a stream key is shown");
    }
    receives_more(&relay.sink, "live", 50);
    assert!(relay.keda_listens(), "something was removed");
    publisher.interrupt();
}

/// A value that `up.sh` printed.
fn told<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name} is not told: {text}")).trim()
}

fn up_and_down_can_each_run_twice(relays: &Relays<'_>) {
    relays.nothing();
    let sink = Sink::start();
    let upstream = door::to(sink.address(), relays.cluster.host);
    let push_url = format!("rtmp://{upstream}/live/{{key}}");
    let arguments = ["--image", &relays.cluster.image];
    let output = script("up.sh", &arguments, &[("RTMP_PUSH_URL", &push_url)]);
    assert!(output.status.success(), "{}", said(&output));
    relays.mark();
    let first = said(&output);
    let (address, key) = (told(&first, "publish to "), told(&first, "with key "));

    // The first publisher arrives the moment that `up.sh` ends, and is served.
    let host = address.trim_start_matches("rtmp://").trim_end_matches("/live");
    let target = if host.contains(':') { host.to_owned() } else { format!("{host}:1935") };
    let tap = Tap::before(target.parse().expect("an address"));
    let mut publisher = ffmpeg(Media::Both, &tap.url(&format!("live/{key}")));
    sink.receives(50);
    println!("held for {:?} right after up.sh", tap.only().held());
    let mut stranger = ffmpeg(Media::Both, &format!("{address}/another-{key}"));
    assert!(!stranger.wait(SOON).success(), "another key is taken");

    // A second run needs no further arguments, changes nothing, and no publisher notices.
    let objects = || {
        let of = |kind: &str| relays.cluster.api.list(&path(kind));
        let all = ["deployments", "services", "secrets", "scaledobjects"].into_iter().flat_map(of);
        let mut all: Vec<String> = all.map(|it| format!("{} {}", it["metadata"]["uid"], it["spec"])).collect();
        all.sort();
        all
    };
    let before = objects();
    let output = script("up.sh", &arguments, &[]);
    assert!(output.status.success(), "{}", said(&output));
    let second = said(&output);
    assert_eq!((told(&second, "publish to "), told(&second, "with key ")), (address, key));
    assert_eq!(objects(), before);
    let arrived = sink.only().recording.frames();
    sink.receives(arrived + 50);
    publisher.interrupt();
    assert_arrived_whole(&tap.only().publisher.media, sink.ended().media());

    until("the stream to be forgotten", || script("down.sh", &["--dry-run"], &[]).status.success());
    let output = script("down.sh", &[], &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(relays.cluster.api.get(&format!("/api/v1/namespaces/{NAMESPACE}")).is_none(), "{}", said(&output));
    assert!(!relays.cluster.api.list("/api/v1/pods?labelSelector=app%3Dkeda-operator").is_empty(), "KEDA stays");
    let output = script("down.sh", &[], &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output), "there are no objects of up.sh\n");
}

fn wrong_input_leaves_nothing_behind(relays: &Relays<'_>) {
    relays.nothing();
    let image = ["--image", "liveedgecast:any"];
    let url = ("RTMP_PUSH_URL", "rtmp://upstream.example/live/{key}");
    for (name, arguments, environment, code, sentence) in [
        ("up.sh", &image[..], &[][..], 2, "RTMP_PUSH_URL is not set"),
        ("up.sh", &image, &[("RTMP_PUSH_URL", "http://upstream.example/live/{key}")], 2, "RTMP_PUSH_URL, number 1"),
        ("up.sh", &[], &[url], 1, "say --image REF or --push REGISTRY"),
        ("up.sh", &["--image", "not a reference"], &[url], 2, "not a reference to an image"),
        ("up.sh", &["--image", "a", "--overlay", "none"], &[url], 2, "--overlay needs one of"),
        ("up.sh", &["--image", "a", "--open"], &[url, ("PUBLISH_KEYS", "key")], 2, "exclude each other"),
        ("install-keda.sh", &[], &[("KEDA_MANIFEST", "/dev/null")], 1, "not a manifest of KEDA"),
        ("install-keda.sh", &["--version", "2"], &[], 2, "not a version"),
        ("down.sh", &["all"], &[], 2, "unknown argument: all"),
    ] {
        let output = script(name, arguments, environment);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{name} {arguments:?}: {text}");
        assert!(text.contains(sentence), "{name} {arguments:?}: {text}");
        let namespace = relays.cluster.api.get(&format!("/api/v1/namespaces/{NAMESPACE}"));
        assert!(namespace.is_none(), "{name} {arguments:?} has applied something");
    }
}
