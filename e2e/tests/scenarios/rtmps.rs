//! Publishers by RTMPS: real encoders, both versions of TLS, certificates that change, and the wrong protocol on either port.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::UNIX_EPOCH;

use liveedgecast_e2e::certificate::Authority;
use liveedgecast_e2e::process::{Program, kill};
use liveedgecast_e2e::publish::{Gst, Media, Obs, ffmpeg, gstreamer};
use liveedgecast_e2e::relay::{ActivatorProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::wait::{SOON, now, until, wall};

/// Sends the bytes and returns the answer; the connection must end in order.
fn says(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).expect("a server at the address");
    socket.set_read_timeout(Some(SOON)).expect("a socket");
    socket.write_all(bytes).expect("room");
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => panic!("reset after {answer:?}"),
        Err(error) => panic!("no end: {error}"),
    }
}

/// The words of `openssl s_client` about its handshake with the activator.
fn handshake(activator: &ActivatorProcess, authority: &Authority, name: &str, version: &str) -> String {
    let address = activator.rtmps().to_string();
    let program = Program::new("openssl", "openssl").words("s_client -brief -verify_return_error");
    let program = program.args(["-connect", &address, "-servername", name, "-verify_hostname", name, version]);
    let mut client = program.arg("-CAfile").arg(authority.file()).start();
    // Without input it says goodbye after the handshake.
    client.wait(SOON);
    client.log()
}

#[test]
fn encoders_publish_by_rtmps() {
    let (authority, sink) = (Authority::new(), Sink::start());
    let files = authority.files("localhost");
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}"))
        .with("COOLDOWN", "1s")
        .with_certificates(&[&files])
        .start();
    let mut publisher = ffmpeg(Media::Both, &activator.secure_url(&format!("live/{}", key("ffmpeg"))));
    let session = sink.receives(50);
    assert_eq!(session.key, key("ffmpeg"));
    publisher.interrupt();
    assert!(sink.ended().said_goodbye(), "ffmpeg's goodbye arrives");
    activator.is_back_to_zero();
    let location = format!("{} tls-validation-flags=0", activator.secure_url(&format!("live/{}", key("gst"))));
    let mut publisher = gstreamer(Gst::Rtmp2Sink, &location);
    sink.receives_in_session(2, 50);
    publisher.interrupt();
    activator.is_back_to_zero();
}

#[test]
fn stream_by_rtmps_outlives_its_worker() {
    let (authority, sink) = (Authority::new(), Sink::start());
    let files = authority.files("localhost");
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with_certificates(&[&files]).start();
    let mut publisher = ffmpeg(Media::Both, &activator.secure_url(&format!("live/{}", key("moved"))));
    sink.receives(50);
    kill(activator.worker_processes()[0]);
    sink.receives_in_session(2, 50);
    assert!(publisher.is_running(), "{}", publisher.log());
}

#[test]
fn both_versions_of_tls_get_the_certificate_of_the_name_they_ask_for() {
    let authority = Authority::new();
    let (one, two) = (authority.files("one.example"), authority.files("two.example"));
    let activator =
        ActivatorProcess::pushing_to("rtmp://localhost/live/{key}").with_certificates(&[&one, &two]).start();
    for (version, shown) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        for name in ["one.example", "two.example"] {
            let said = handshake(&activator, &authority, name, version);
            assert!(said.contains(shown) && said.contains("Verification: OK"), "{name} {version}: {said}");
        }
    }
    let said = handshake(&activator, &authority, "three.example", "-tls1_3");
    assert!(said.contains("CN = one.example") || said.contains("CN=one.example"), "the first for any other: {said}");
}

#[test]
fn changed_certificates_are_shown_to_the_next_publisher() {
    let authority = Authority::new();
    let files = authority.files("before.example");
    let activator = ActivatorProcess::pushing_to("rtmp://localhost/live/{key}").with_certificates(&[&files]).start();
    assert!(handshake(&activator, &authority, "before.example", "-tls1_3").contains("Verification: OK"));
    let ends = || activator.metric("liveedgecast_certificate_expiry_timestamp_seconds", &["listener=\"rtmps\""]);
    let today = wall(now()).duration_since(UNIX_EPOCH).expect("a time since 1970").as_secs_f64();
    assert!(ends() > Some(today), "{:?} is over at {today}", ends());
    authority.renew(&files, "after.example");
    assert!(handshake(&activator, &authority, "after.example", "-tls1_3").contains("Verification: OK"));
    std::fs::write(&files.key, "nonsense").expect("the file");
    assert!(handshake(&activator, &authority, "after.example", "-tls1_3").contains("Verification: OK"));
    let rejected = activator.events("file.rejected");
    assert!(rejected.len() == 1 && rejected[0]["setting"] == "RTMPS_KEY_FILE", "{rejected:?}");
}

#[test]
fn wrong_protocol_on_either_port_ends_in_order_with_a_line_that_says_what_to_do() {
    let authority = Authority::new();
    let files = authority.files("localhost");
    let activator = ActivatorProcess::pushing_to("rtmp://localhost/live/{key}").with_certificates(&[&files]).start();
    // A ClientHello as far as anybody has to read it.
    let answer = says(activator.rtmp(), &[0x16, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]);
    assert_eq!(answer.first(), Some(&0x15), "an alert that TLS understands: {answer:?}");
    let mut publisher = ffmpeg(Media::Both, &activator.url("live/x").replace("rtmp://", "rtmps://"));
    assert!(!publisher.wait(SOON).success());
    let told = activator.events("publisher.sent_tls");
    assert!(
        told.len() == 1 && told[0]["advice"].as_str().is_some_and(|text| text.contains("RTMPS_LISTEN")),
        "{told:?}"
    );

    let answer = says(activator.rtmps(), &[3; 1537]);
    assert!(answer.is_empty(), "{answer:?}");
    let mut publisher = ffmpeg(Media::Both, &activator.secure_url("live/x").replace("rtmps://", "rtmp://"));
    assert!(!publisher.wait(SOON).success());
    let told = activator.events("rtmps.failed");
    let told: Vec<_> = told.iter().filter(|line| line["class"] == "plain_rtmp" && line["level"] == "INFO").collect();
    assert!(told.len() == 1 && told[0]["advice"].as_str().is_some_and(|text| text.contains("rtmps://")), "{told:?}");
    let failed = activator.metric("liveedgecast_rtmps_handshakes_failed_total", &["reason=\"plain_rtmp\""]);
    assert_eq!(failed, Some(2.0));
}

#[test]
fn strangers_that_never_finish_their_handshake_keep_no_publisher_out() {
    let (authority, sink) = (Authority::new(), Sink::start());
    let files = authority.files("localhost");
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}"))
        .with("MAX_STRANGERS_PER_ADDRESS", "4")
        .with_certificates(&[&files])
        .start();
    let mut strangers: Vec<TcpStream> = (0..20)
        .map(|number| {
            let mut stranger = TcpStream::connect(activator.rtmps()).expect("a connection");
            // Half of them begin a ClientHello.
            if number % 2 == 0 {
                stranger.write_all(&[0x16, 3, 1, 2, 0]).expect("room");
            }
            stranger
        })
        .collect();
    let _publisher = ffmpeg(Media::Both, &activator.secure_url(&format!("live/{}", key("late"))));
    sink.receives(20);
    let evicted = || activator.metric("liveedgecast_rtmps_handshakes_failed_total", &["reason=\"evicted\""]);
    until("the oldest strangers to be evicted", || evicted() >= Some(16.0));
    let first = &mut strangers[0];
    first.set_read_timeout(Some(SOON)).expect("a socket");
    assert!(matches!(first.read(&mut [0; 16]), Ok(0) | Err(_)), "the connection is closed");
}

#[test]
fn wrong_certificate_is_a_clear_error_at_start() {
    let authority = Authority::new();
    let (one, two) = (authority.files("one.example"), authority.files("two.example"));
    std::fs::copy(&two.key, &one.key).expect("the key");
    let settings = ActivatorProcess::pushing_to("rtmp://localhost/live/{key}").with_certificates(&[&one]);
    let mut activator = settings.start_anyhow();
    assert_eq!(activator.wait(SOON).code(), Some(2));
    let log = activator.log();
    assert!(log.contains("RTMPS_KEY_FILE: ") && log.contains("is not the key of the certificate"), "{log}");
}

#[test]
fn obs_publishes_by_rtmps() {
    let (authority, sink) = (Authority::new(), Sink::start());
    let files = authority.files("relay.example");
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with_certificates(&[&files]).start();
    let (url, address) = ("rtmps://relay.example:1936/live", activator.rtmps().ip());
    let mut obs = Obs::trusting(authority.file(), "relay.example", address, url, &key("obs"));
    sink.receives(100);
    obs.quit();
    assert_eq!(sink.ended().key, key("obs"));
}
