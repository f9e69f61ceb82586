//! Upstreams that refuse, each in its own way, and upstreams that only seem to.

use std::time::Duration;

use liveedgecast_e2e::certificate::SelfSigned;
use liveedgecast_e2e::nginx::Nginx;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::{ActivatorProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::{SOON, until, until_some};

/// State and error of the single stream's upstream at this host and port.
fn upstream(activator: &ActivatorProcess, host: &str) -> Option<(String, String)> {
    let streams = activator.streams();
    let found = streams.first()?["upstreams"].as_array()?.iter().find(|upstream| upstream["host"] == host)?.clone();
    Some((found["state"].as_str()?.to_owned(), found["error"].as_str()?.to_owned()))
}

#[test]
fn upstreams_that_answer_late_are_live_at_their_first_or_second_connection() {
    let late = [("connect", 7), ("createStream", 7), ("publish", 12)];
    let sinks = late.map(|(command, seconds)| {
        let sink = Sink::start();
        sink.answer_late(command, Duration::from_secs(seconds));
        sink
    });
    let urls: Vec<_> = sinks.iter().map(|sink| sink.url("live/{key}")).collect();
    let activator = ActivatorProcess::pushing_to(&urls.join(" ")).start();
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("late"))));
    for (sink, (command, _)) in sinks.iter().zip(late) {
        sink.receives(20);
        assert!(sink.connections() <= 2, "{command}: {} connections", sink.connections());
    }
    assert!(publisher.is_running());
}

#[test]
fn nginx_that_refuses_by_closing_refuses_the_publisher() {
    let nginx = Nginx::refusing_by_hook();
    let activator = ActivatorProcess::pushing_to(&nginx.url("live/{key}")).with("COOLDOWN", "1s").start();
    let tap = Tap::before(activator.rtmp());
    let mut publisher = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("hook"))));
    assert!(!publisher.wait(SOON).success(), "refused by the hook, and yet taken");
    let told = tap.only().server.statuses();
    assert!(told.iter().any(|(_, status)| status == "NetStream.Publish.BadName"), "{told:?}");
    activator.is_back_to_zero();
}

#[test]
fn nginx_that_refuses_in_either_way_is_failed_with_a_reason() {
    let (good, by_hook, by_rule) = (Sink::start(), Nginx::refusing_by_hook(), Nginx::denying());
    let urls = [good.url("live/{key}"), by_hook.url("live/{key}"), by_rule.url("live/{key}")];
    let activator = ActivatorProcess::pushing_to(&urls.join(" ")).start();
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("refused"))));
    for (nginx, reason) in [(&by_hook, "at publish"), (&by_rule, "right after Publish.Start")] {
        let host = nginx.address().to_string();
        until(format!("{host} to have failed {reason}"), || {
            upstream(&activator, &host).is_some_and(|(state, error)| state == "failed" && error.contains(reason))
        });
    }
    let arrived = good.only().recording.frames();
    good.receives(arrived + 50);
    assert!(publisher.is_running(), "a publisher that was told to start is dropped for an upstream's sake");
}

#[test]
fn nginx_that_starts_and_closes_is_retried_rarely_and_the_publisher_stays() {
    let nginx = Nginx::denying();
    let activator = ActivatorProcess::pushing_to(&nginx.url("live/{key}")).start();
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("rule"))));
    let host = nginx.address().to_string();
    let (_, error) = until_some("the upstream to have failed", || {
        upstream(&activator, &host).filter(|(state, _)| state == "failed")
    });
    // nginx closes while media are on their way, so the end arrives as a close or as a reset.
    let ends = ["closed by the upstream", "Connection reset by peer"];
    assert!(ends.iter().any(|end| error.contains(end)), "{error}");
    assert!(error.contains("3 times in a row right after Publish.Start"), "{error}");
    assert!(publisher.is_running());
}

#[test]
fn a_held_publisher_is_published_when_its_taken_name_becomes_free() {
    let sink = Sink::start();
    sink.take_one_publisher_per_name();
    let name = format!("live/{}", key("taken"));
    let mut stale = ffmpeg(Media::Both, &sink.url(&name));
    sink.receives(10);
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).start();
    let mut publisher = ffmpeg(Media::Both, &activator.url(&name));
    // The back-off makes this take some ten seconds.
    until("the name to be asked for some times", || sink.refusals() >= 6);
    stale.interrupt();
    until_some("the publisher at the upstream", || {
        sink.last().filter(|session| !session.refused && session.recording.frames() > 50)
    });
    assert!(publisher.is_running());
}

#[test]
fn a_name_that_stays_taken_is_refused_after_a_while() {
    let sink = Sink::start();
    sink.refuse("NetStream.Publish.BadName");
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("COOLDOWN", "1s").start();
    let tap = Tap::before(activator.rtmp());
    let mut publisher = ffmpeg(Media::Both, &tap.url(&format!("live/{}", key("taken"))));
    assert!(!publisher.wait(SOON).success());
    let said = tap.only();
    assert!(said.held() > Some(Duration::from_secs(14)), "held for {:?}", said.held());
    let told = said.server.statuses();
    assert!(told.iter().any(|(_, status)| status == "NetStream.Publish.BadName"), "{told:?}");
    activator.is_back_to_zero();
}

#[test]
fn a_self_signed_certificate_in_ssl_cert_file_is_trusted() {
    let mut certificate = None;
    let sink = Sink::start_tls(|address| certificate.insert(SelfSigned::new(&address.ip().to_string())).server());
    let file = certificate.as_ref().map(|certificate| certificate.file().display().to_string()).unwrap_or_default();
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("SSL_CERT_FILE", &file).start();
    let _publisher = ffmpeg(Media::Both, &activator.url(&format!("live/{}", key("self-signed"))));
    sink.receives(50);
}
