//! Without TLS: every stage, every way to end it.

use super::*;

fn plain(address: SocketAddr) -> Driver {
    Driver::new(&format!("rtmp://{address}/live/KEY"))
}

async fn go_live(driver: &mut Driver, listener: &TcpListener) -> Peer<TcpStream> {
    let peer = driver
        .while_peer(async {
            let mut peer = Peer::accept(listener).await;
            peer.reach(Upto::Publish).await;
            peer
        })
        .await;
    driver.until_word("live").await;
    assert_eq!(driver.take_events(), [UpstreamEvent::Live]);
    peer
}

#[tokio::test]
async fn stream_goes_out_and_ends_cleanly() {
    let (listener, address) = listen().await;
    let mut driver = plain(address);
    let mut peer = go_live(&mut driver, &listener).await;
    assert!(driver.upstream.is_live());
    assert_eq!(driver.upstream.message_stream(), 3);
    assert_eq!(driver.error(), "");
    assert!(driver.upstream.connection.as_ref().unwrap().socket().nodelay().unwrap());

    let video = driver.video(200_000);
    driver.write(&video).await;
    assert_eq!(driver.while_peer(peer.media(200_000)).await, 200_000);
    driver.upstream.close(true);
    assert!(!driver.upstream.is_live());
    driver.while_peer(async { (peer.command("FCUnpublish").await, peer.command("deleteStream").await) }).await;
    assert!(matches!(driver.while_peer(peer.said()).await, Said::Fin));
    assert_eq!(driver.take_events(), []);
    drop(peer);
    driver.until("closed", |driver| driver.events == [UpstreamEvent::Closed]).await;
    let status = driver.upstream.report();
    assert_eq!(
        (status.state.as_str(), status.counts.bytes, status.counts.reconnects),
        ("closed", video.len() as u64, 0)
    );
    assert_eq!(status.host, address.to_string());
}

#[tokio::test]
async fn session_closed_within_a_message_ends_without_commands() {
    let (listener, address) = listen().await;
    let mut driver = plain(address);
    let mut peer = go_live(&mut driver, &listener).await;
    let video = driver.video(1000);
    driver.write(&video[..500]).await;
    driver.upstream.close(false);
    driver
        .while_peer(async {
            let mut last = peer.said().await;
            while matches!(last, Said::Media(_)) {
                last = peer.said().await;
            }
            assert!(matches!(last, Said::Fin), "{last:?}");
        })
        .await;
}

#[tokio::test]
async fn peer_that_never_closes_is_left_after_a_while() {
    let (listener, address) = listen().await;
    let mut driver = plain(address);
    let mut peer = go_live(&mut driver, &listener).await;
    driver.upstream.close(true);
    assert!(matches!(
        driver
            .while_peer(async {
                peer.command("deleteStream").await;
                peer.said().await
            })
            .await,
        Said::Fin
    ));
    driver.pass();
    driver.until("closed", |driver| driver.events == [UpstreamEvent::Closed]).await;
}

#[tokio::test]
async fn upstream_that_does_not_answer_at_any_stage_is_asked_again() {
    for (upto, stage) in EVERY_STAGE {
        let (listener, address) = listen().await;
        let mut driver = plain(address);
        let _peer = driver
            .while_peer(async {
                let mut peer = Peer::accept(&listener).await;
                peer.reach(upto).await;
                peer
            })
            .await;
        driver.until("the stage", |driver| driver.upstream.stage.as_str() == stage).await;
        driver.pass();
        driver.until_word("backoff").await;
        assert_eq!(driver.error(), format!("no answer at {stage}"));
        driver.pass();
        go_live(&mut driver, &listener).await;
        assert_eq!(driver.upstream.counters.attempts, 2);
    }
}

#[tokio::test]
async fn upstream_that_closes_after_any_stage_is_asked_again() {
    for (upto, stage) in EVERY_STAGE {
        for reset in [false, true] {
            let (listener, address) = listen().await;
            let mut driver = plain(address);
            driver
                .while_peer(async {
                    let mut peer = Peer::accept(&listener).await;
                    peer.reach(upto).await;
                    if reset {
                        peer.reset();
                    }
                })
                .await;
            driver.until_word("backoff").await;
            // A close that came with unread bytes is a reset, and one that came before our write a broken pipe.
            assert!(driver.error().ends_with(&format!(" at {stage}")), "{}", driver.error());
            driver.pass();
            go_live(&mut driver, &listener).await;
        }
    }
}

#[tokio::test]
async fn upstream_that_closes_when_live_is_noticed_at_once() {
    for reset in [false, true] {
        let (listener, address) = listen().await;
        let mut driver = plain(address);
        let peer = go_live(&mut driver, &listener).await;
        if reset {
            peer.reset()
        } else {
            drop(peer)
        }
        driver.until_word("backoff").await;
        let events = driver.take_events();
        assert!(matches!(events[..], [UpstreamEvent::Lost { unacknowledged: 0, .. }]), "{events:?}");
        assert!(!driver.upstream.is_live());
        let write = poll_fn(|cx| driver.upstream.poll_write_vectored(cx, &[IoSlice::new(b"late")]));
        assert!(write.await.is_err());
        driver.pass();
        go_live(&mut driver, &listener).await;
        assert_eq!(driver.upstream.report().counts.reconnects, 1);
    }
}

#[tokio::test]
async fn upstream_whose_sessions_never_lasted_is_back_at_a_deadline() {
    let (listener, address) = listen().await;
    let mut driver = plain(address);
    driver.upstream.trouble = Some((Fault::NeverLasted, false));
    let _peer = go_live(&mut driver, &listener).await;
    assert!(driver.upstream.trouble.is_some());
    driver.pass();
    poll_fn(|cx| {
        driver.poll(cx);
        Poll::Ready(())
    })
    .await;
    assert_eq!((driver.upstream.trouble, driver.upstream.next_timeout()), (None, None));
}

#[tokio::test]
async fn bytes_that_the_peer_did_not_take_are_reported() {
    let (listener, address) = listen().await;
    let mut driver = plain(address);
    let peer = go_live(&mut driver, &listener).await;
    // The peer does not read: its kernel takes some, ours the rest.
    let written = driver.fill().await;
    let held = driver.upstream.unacknowledged();
    assert!(held > 0 && held <= written, "{held} of {written}");
    peer.reset();
    driver.until_word("backoff").await;
    let events = driver.take_events();
    let [UpstreamEvent::Lost { unacknowledged, .. }] = events[..] else { panic!("{events:?}") };
    assert!(unacknowledged > 0 && unacknowledged <= written, "{unacknowledged} of {written}");
}

#[tokio::test]
async fn bytes_that_the_peer_has_taken_are_acknowledged() {
    let (listener, address) = listen().await;
    let mut driver = plain(address);
    let mut peer = go_live(&mut driver, &listener).await;
    for _ in 0..20 {
        let video = driver.video(100_000);
        assert_eq!(driver.write_while_peer(&video, peer.media(100_000)).await.0, 100_000);
    }
    // Acknowledged by the kernel of the peer, in its own time.
    while driver.upstream.unacknowledged() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn name_that_is_taken_is_tried_again() {
    let (listener, address) = listen().await;
    let mut driver = plain(address);
    let mut peer = driver
        .while_peer(async {
            let mut peer = Peer::accept(&listener).await;
            peer.reach(Upto::CreateStream).await;
            peer.command("publish").await;
            // As nginx-rtmp does: the connection stays open.
            peer.say_status("onStatus", 0.0, "error", "NetStream.Publish.BadName", "Already publishing").await;
            peer
        })
        .await;
    driver.until_word("backoff").await;
    assert_eq!(driver.take_events(), [], "a stale session, for now");
    assert_eq!(driver.error(), "NetStream.Publish.BadName: Already publishing");
    assert!(matches!(driver.while_peer(peer.said()).await, Said::Fin));
    driver.pass();
    go_live(&mut driver, &listener).await;
}

#[tokio::test]
async fn answer_in_http_fails_as_no_rtmp() {
    let (listener, address) = listen().await;
    let mut driver = plain(address);
    driver
        .while_peer(async {
            let mut peer = Peer::accept(&listener).await;
            peer.stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            peer.read().await;
            peer
        })
        .await;
    driver.until_word("failed").await;
    assert!(driver.error().contains("HTTP"), "{}", driver.error());
}

#[tokio::test]
async fn pings_and_acknowledgements_go_between_messages() {
    let (listener, address) = listen().await;
    let mut driver = plain(address);
    let mut peer = go_live(&mut driver, &listener).await;
    let mut ping = Vec::new();
    Control::WindowAckSize(2).write(&mut ping, 128);
    Control::UserControl(liveedgecast_common::rtmp::message::UserControl::PingRequest(99)).write(&mut ping, 128);
    peer.stream.write_all(&ping).await.unwrap();
    driver.until("an answer", |driver| driver.upstream.session.as_ref().unwrap().has_output()).await;
    let control = driver.upstream.take_control();
    driver.write(&control).await;
    let mut said = Vec::new();
    while said.len() < 2 {
        if let Said::Control(control) = driver.while_peer(peer.said()).await {
            said.push(control);
        }
    }
    assert!(said.iter().any(|control| matches!(control, Control::Acknowledgement(_))), "{said:?}");
    assert!(said.iter().any(|control| matches!(control, Control::UserControl(_))), "{said:?}");
    assert!(driver.upstream.take_control().is_empty());
}

#[tokio::test]
async fn upstream_that_writes_byte_by_byte_goes_live() {
    let (listener, address) = listen().await;
    let mut driver = plain(address);
    let _peer = driver
        .while_peer(async {
            let mut peer = Peer::accept(&listener).await;
            let mut handshake = Handshake::server();
            while peer.unread.len() < 1537 {
                peer.read().await;
            }
            let progress = handshake.handle(&peer.unread).unwrap();
            peer.unread.drain(..progress.used);
            for byte in &progress.output {
                peer.stream.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            while peer.unread.len() < 1536 {
                peer.read().await;
            }
            let progress = handshake.handle(&peer.unread).unwrap();
            assert!(progress.done);
            peer.unread.drain(..progress.used);
            let mut bytes = Vec::new();
            let mut answer = |name: &str, transaction, argument| {
                let command =
                    Command { name: name.to_owned(), transaction, object: Value::Null, arguments: vec![argument] };
                command.write(&mut bytes, 3, 0, 128);
            };
            answer("_result", 1.0, Value::Null);
            answer("_result", 4.0, Value::Number(1.0));
            let code = ("code".to_owned(), Value::string("NetStream.Publish.Start"));
            answer("onStatus", 0.0, Value::Object(vec![code]));
            for byte in bytes {
                peer.stream.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            peer
        })
        .await;
    driver.until_word("live").await;
}

#[tokio::test]
async fn c2_and_connect_come_in_one_segment() {
    let (listener, address) = listen().await;
    let mut driver = plain(address);
    driver
        .while_peer(async {
            let mut peer = Peer::accept(&listener).await;
            let mut handshake = Handshake::server();
            while peer.unread.len() < 1537 {
                peer.read().await;
            }
            let progress = handshake.handle(&peer.unread).unwrap();
            peer.unread.clear();
            peer.stream.write_all(&progress.output).await.unwrap();
            peer.read().await;
            assert!(peer.unread.len() > 1536 + 100, "{}", peer.unread.len());
        })
        .await;
}

#[tokio::test]
async fn credentials_take_three_connections() {
    let (listener, address) = listen().await;
    let mut driver = Driver::new(&format!("rtmp://foo:bar@{address}/live/KEY"));
    let refusals = [
        ("live", "[ AccessManager.Reject ] : [ code=403 need auth; authmod=adobe ] : "),
        (
            "live?authmod=adobe&user=foo",
            "[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=needauth&user=foo&salt=S&challenge=C&opaque=O",
        ),
    ];
    let app = |connect: &Command| connect.object.property("app").and_then(Value::as_str).unwrap().to_owned();
    for (expected, description) in refusals {
        driver
            .while_peer(async {
                let mut peer = Peer::accept(&listener).await;
                peer.handshake().await;
                assert_eq!(app(&peer.command("connect").await), expected);
                peer.say_status("_error", 1.0, "error", "NetConnection.Connect.Rejected", description).await;
                assert!(matches!(peer.said().await, Said::Fin));
            })
            .await;
    }
    let _peer = driver
        .while_peer(async {
            let mut peer = Peer::accept(&listener).await;
            peer.handshake().await;
            let app = app(&peer.command("connect").await);
            assert!(app.starts_with("live?authmod=adobe&user=foo&challenge=") && app.ends_with("&opaque=O"), "{app}");
            peer.say_status("_result", 1.0, "status", "NetConnection.Connect.Success", "").await;
            peer.command("createStream").await;
            peer.say("_result", 4.0, vec![Value::Number(1.0)]).await;
            peer.command("publish").await;
            peer.say_status("onStatus", 0.0, "status", "NetStream.Publish.Start", "").await;
            peer
        })
        .await;
    driver.until_word("live").await;
    assert_eq!(driver.take_events(), [UpstreamEvent::Live]);
    assert_eq!(driver.upstream.counters.attempts, 1);
}

#[tokio::test]
async fn redirect_is_followed_with_the_same_key() {
    let (listener, address) = listen().await;
    let (other, other_address) = listen().await;
    let mut driver = plain(address);
    driver
        .while_peer(async {
            let mut peer = Peer::accept(&listener).await;
            peer.handshake().await;
            peer.command("connect").await;
            let text = |name: &str, value: &str| (name.to_owned(), Value::string(value));
            let redirect = text("redirect", &format!("rtmp://{other_address}/there"));
            let ex = Value::Object(vec![("code".to_owned(), Value::Number(302.0)), redirect]);
            let code = text("code", "NetConnection.Connect.Rejected");
            let info = Value::Object(vec![text("level", "error"), code, ("ex".to_owned(), ex)]);
            peer.say("_error", 1.0, vec![info]).await;
            assert!(matches!(peer.said().await, Said::Fin));
        })
        .await;
    let _peer = driver
        .while_peer(async {
            let mut peer = Peer::accept(&other).await;
            peer.handshake().await;
            let connect = peer.command("connect").await;
            let text = |name| connect.object.property(name).and_then(Value::as_str).unwrap().to_owned();
            assert_eq!((text("app"), text("tcUrl")), ("there".to_owned(), format!("rtmp://{other_address}/there")));
            peer.say_status("_result", 1.0, "status", "NetConnection.Connect.Success", "").await;
            peer.command("createStream").await;
            peer.say("_result", 4.0, vec![Value::Number(3.0)]).await;
            assert_eq!(peer.command("publish").await.argument(0).and_then(Value::as_str), Some("KEY"));
            peer.say_status("onStatus", 0.0, "status", "NetStream.Publish.Start", "").await;
            peer
        })
        .await;
    driver.until_word("live").await;
    assert_eq!(driver.upstream.report().host, address.to_string(), "the upstream keeps its name");
}

#[tokio::test]
async fn wrong_credentials_are_reported() {
    let (listener, address) = listen().await;
    let mut driver = Driver::new(&format!("rtmp://foo:bar@{address}/live/KEY"));
    driver
        .while_peer(async {
            let mut peer = Peer::accept(&listener).await;
            peer.handshake().await;
            peer.command("connect").await;
            let description = "[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=authfailed&opaque=O";
            peer.say_status("_error", 1.0, "error", "NetConnection.Connect.Rejected", description).await;
            assert!(matches!(peer.said().await, Said::Fin));
        })
        .await;
    driver.until_word("failed").await;
    assert_eq!(driver.take_events(), [UpstreamEvent::Refused { fault: Fault::Denied }]);
    assert_eq!(driver.error(), "wrong password");
}

#[tokio::test]
async fn upstream_that_does_not_listen_yet_is_asked_again() {
    // Bound and not listening, the port cannot be taken by another process.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let mut driver = plain(socket.local_addr().unwrap());
    driver.until_word("backoff").await;
    assert!(driver.error().contains("refused"), "{}", driver.error());
    // Then a server listens.
    let listener = socket.listen(8).unwrap();
    driver.pass();
    go_live(&mut driver, &listener).await;
}

#[tokio::test]
async fn name_that_cannot_exist_is_resolved_again() {
    // A label is at most 63 bytes: told by the resolver without asking anybody.
    let mut driver = Driver::new(&format!("rtmp://{}.example/live/KEY", "x".repeat(64)));
    driver.until_word("backoff").await;
    assert!(!driver.error().is_empty());
    driver.pass();
    driver.until("another attempt", |driver| driver.upstream.counters.attempts == 2).await;
}

#[tokio::test]
async fn second_address_is_dialed_when_the_first_refuses() {
    let (listener, address) = listen().await;
    // No server listens on this one of the loopback addresses.
    let refusing = SocketAddr::from(([127, 0, 0, 2], address.port()));
    let mut driver = plain(address);
    driver.upstream.lookup = Some(Box::pin(async move { Ok(vec![refusing, address]) }));
    assert_eq!(driver.upstream.machine.poll_output(), Some(Output::Resolve));
    go_live(&mut driver, &listener).await;
    assert_eq!(driver.upstream.counters.sessions, 1);
}

#[tokio::test]
async fn flood_from_the_upstream_does_not_keep_the_task() {
    let (listener, address) = listen().await;
    let mut driver = plain(address);
    let mut peer = go_live(&mut driver, &listener).await;
    let mut ping = Vec::new();
    Control::UserControl(liveedgecast_common::rtmp::message::UserControl::PingRequest(1)).write(&mut ping, 128);
    let flood = ping.repeat(20_000);
    // The server does not read the answers: they are bounded, and the upstream goes on.
    driver.while_peer(async { peer.stream.write_all(&flood).await.unwrap() }).await;
    let position = |driver: &Driver| driver.upstream.session.as_ref().unwrap().position();
    driver.until("all of it", |driver| position(driver) >= flood.len() as u64).await;
    let taken = driver.upstream.take_control();
    assert!(!taken.is_empty() && taken.len() < 8192, "{}", taken.len());
    assert!(driver.upstream.is_live());
}

/// A listener whose queue is full: the kernel drops every further SYN, as a dead host would.
fn silent() -> (SocketAddr, std::net::TcpStream, tokio::net::TcpListener) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    (address, std::net::TcpStream::connect(address).unwrap(), listener)
}

#[tokio::test]
async fn upstream_that_does_not_answer_the_connection_is_given_up() {
    let (address, _first, _listener) = silent();
    let mut driver = plain(address);
    driver.until("a dial", |driver| !driver.upstream.dials.is_empty()).await;
    while driver.word() == "dialing" {
        driver.pass();
        driver.while_peer(tokio::task::yield_now()).await;
    }
    assert_eq!((driver.word().as_str(), driver.error().as_str()), ("backoff", "no answer to the connection"));
}

#[tokio::test]
async fn next_address_is_dialed_while_the_first_is_silent() {
    let (dead, _first, _listener) = silent();
    let (listener, address) = listen().await;
    let mut driver = plain(address);
    driver.upstream.lookup = Some(Box::pin(async move { Ok(vec![dead, address]) }));
    assert_eq!(driver.upstream.machine.poll_output(), Some(Output::Resolve));
    driver.until("a dial", |driver| driver.upstream.dials.len() == 1).await;
    driver.pass();
    go_live(&mut driver, &listener).await;
}

#[tokio::test]
async fn upstream_closed_by_us_at_any_stage_is_done_at_once() {
    for (upto, stage) in EVERY_STAGE {
        let (listener, address) = listen().await;
        let mut driver = plain(address);
        let mut peer = driver
            .while_peer(async {
                let mut peer = Peer::accept(&listener).await;
                peer.reach(upto).await;
                peer
            })
            .await;
        driver.until("the stage", |driver| driver.upstream.stage.as_str() == stage).await;
        driver.upstream.close(true);
        driver.while_peer(tokio::task::yield_now()).await;
        assert_eq!(driver.take_events(), [UpstreamEvent::Closed], "{stage}");
        // The connection is gone with it.
        while peer.read().await {}
    }
}

#[tokio::test]
async fn first_server_is_shown_when_the_backup_in_use_is_taken_away() {
    let (listener, backup) = listen().await;
    let mut driver = Driver::new("rtmp://127.0.0.1:9/live/KEY");
    let given = BackupDestination { url: url(&format!("rtmp://{backup}/live/KEY")), after: Duration::from_millis(1) };
    driver.upstream.set_backup(driver.now, Some(&given));
    let on_backup = |driver: &Driver| driver.upstream.report().backup;
    while !on_backup(&driver) {
        driver.until_word("backoff").await;
        driver.pass();
    }
    let _peer = go_live(&mut driver, &listener).await;
    assert!(on_backup(&driver));
    driver.upstream.set_backup(driver.now, None);
    assert!(!on_backup(&driver));
    assert_eq!(driver.upstream.server.authority(), "127.0.0.1:9");
}
