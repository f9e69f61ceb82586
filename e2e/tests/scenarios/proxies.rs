//! Publishers behind HAProxy, which names them by PROXY headers of both versions, with and without TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use liveedgecast_e2e::certificate::Authority;
use liveedgecast_e2e::haproxy::Haproxy;
use liveedgecast_e2e::publish::{Media, ffmpeg};
use liveedgecast_e2e::relay::{ActivatorProcess, key};
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::wait::{SOON, until};
use socket2::SockRef;

/// Addresses from which the scenarios' proxies connect.
const LOOPBACK: &str = "127.0.0.0/8";

#[test]
fn publisher_behind_haproxy_has_its_own_address() {
    let (authority, sink) = (Authority::new(), Sink::start());
    let files = authority.files("localhost");
    let activator = ActivatorProcess::pushing_to(&sink.url("live/{key}"))
        .with("TRUSTED_PROXIES", LOOPBACK)
        .with_certificates(&[&files])
        .start();
    let ways = [("send-proxy", false), ("send-proxy-v2", false), ("send-proxy", true), ("send-proxy-v2", true)];
    for (number, (send, tls)) in ways.into_iter().enumerate() {
        let (scheme, port) = if tls { ("rtmps", activator.rtmps()) } else { ("rtmp", activator.rtmp()) };
        let proxy = Haproxy::before(port, send);
        let mut publisher =
            ffmpeg(Media::Both, &format!("{scheme}://{}/live/{}", proxy.address(), key(&format!("at-{number}"))));
        sink.receives_in_session(number + 1, 20);
        let published = activator.events("stream.published");
        let client = published[number]["client"].as_str().expect("an address").to_owned();
        // ffmpeg's own address, and not that of the proxy.
        assert!(client.starts_with("127.0.0.1:"), "{send}, {scheme}: {client}");
        publisher.interrupt();
        until("the end of the stream", || activator.demand() == Some((0, 0, 0)));
    }
}

#[test]
fn header_of_an_address_that_is_not_trusted_ends_in_order() {
    let authority = Authority::new();
    let files = authority.files("localhost");
    let activator = ActivatorProcess::pushing_to("rtmp://localhost/live/{key}")
        .with("TRUSTED_PROXIES", "192.0.2.0/24, 2001:db8::/32")
        .with_certificates(&[&files])
        .start();
    for (port, event) in [(activator.rtmp(), "proxy.untrusted"), (activator.rtmps(), "rtmps.failed")] {
        let proxy = Haproxy::before(port, "send-proxy-v2");
        let mut publisher = ffmpeg(Media::Both, &format!("rtmp://{}/live/x", proxy.address()));
        assert!(!publisher.wait(SOON).success());
        let told = activator.events(event);
        assert!(told[0]["advice"].as_str().is_some_and(|text| text.contains("TRUSTED_PROXIES")), "{told:?}");
    }
}

#[test]
fn trusted_proxy_that_sends_no_header_is_refused_with_a_line_that_says_what_to_do() {
    let activator =
        ActivatorProcess::pushing_to("rtmp://localhost/live/{key}").with("TRUSTED_PROXIES", LOOPBACK).start();
    let mut publisher = ffmpeg(Media::Both, &activator.url("live/x"));
    assert!(!publisher.wait(SOON).success());
    let told = activator.events("proxy.refused");
    assert!(told[0]["advice"].as_str().is_some_and(|text| text.contains("TRUSTED_PROXIES")), "{told:?}");
    assert_eq!(activator.metric("liveedgecast_proxy_headers_missing_total", &[]), Some(1.0));
}

#[test]
fn health_checks_of_a_proxy_are_counted_and_no_warning() {
    let activator =
        ActivatorProcess::pushing_to("rtmp://localhost/live/{key}").with("TRUSTED_PROXIES", LOOPBACK).start();
    for reset in [false, true] {
        let socket = TcpStream::connect(activator.rtmp()).expect("a connection");
        if reset {
            SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("a socket");
        }
    }
    until("both to be counted", || activator.metric("liveedgecast_proxy_probes_total", &[]) == Some(2.0));
    assert_eq!(activator.metric("liveedgecast_proxy_headers_missing_total", &[]), Some(0.0));
    assert!(activator.events("proxy.refused").is_empty());
    assert!(activator.events("proxy.probed").iter().all(|line| line["level"] == "DEBUG"));
}

#[test]
fn clients_of_one_proxy_are_limited_one_by_one() {
    let activator = ActivatorProcess::pushing_to("rtmp://localhost/live/{key}")
        .with("TRUSTED_PROXIES", LOOPBACK)
        .with("MAX_STRANGERS_PER_ADDRESS", "2")
        .start();
    // A connection that stays undecided, of this client.
    let connect = |client: &str| {
        let mut socket = TcpStream::connect(activator.rtmp()).expect("a connection");
        socket.set_read_timeout(Some(SOON)).expect("a socket");
        let header = format!("PROXY TCP4 {client} 203.0.113.1 51000 1935\r\n");
        socket.write_all(header.as_bytes()).expect("room");
        socket
    };
    let mut flood: Vec<TcpStream> = (0..3).map(|_| connect("198.51.100.7")).collect();
    let mut others: Vec<TcpStream> = (0..9).map(|last| connect(&format!("198.51.100.{}", 100 + last))).collect();
    let evicted = activator_evicted(&activator);
    assert_eq!(evicted, 1.0, "one connection of the client with three");
    assert!(matches!(flood[0].read(&mut [0; 1]), Ok(0) | Err(_)), "its oldest connection is closed");
    for socket in flood[1..].iter_mut().chain(&mut others) {
        // The handshake goes on.
        let hello: Vec<u8> = [3, 0, 0, 0, 0, 0, 0, 0, 0].into_iter().chain(std::iter::repeat_n(5, 1528)).collect();
        socket.write_all(&hello).expect("room");
        socket.read_exact(&mut [0; 1537]).expect("an answer");
    }
}

/// Connections closed for newer ones of their address, once there is one.
fn activator_evicted(activator: &ActivatorProcess) -> f64 {
    let count = || activator.metric("liveedgecast_connections_turned_away_total", &["reason=\"address_strangers\""]);
    until("an eviction", || count() > Some(0.0));
    count().unwrap_or_default()
}
