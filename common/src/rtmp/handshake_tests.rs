//! Tests of [`super`]: both roles against each other and against rml_rtmp, however the bytes are cut; what is no handshake is refused.

use super::*;

use ring::hmac;
use rml_rtmp::handshake::{Handshake as Oracle, HandshakeProcessResult as Result2};

const PACKET: usize = 1536;
const ALL: usize = HANDSHAKE_BYTES as usize;

/// First packet without a digest: time, zeroes, then whatever (RTMP 1.0, 5.2.3).
fn plain_c1() -> Vec<u8> {
    let mut packet = vec![0; PACKET];
    for (at, byte) in packet.iter_mut().enumerate().skip(8) {
        *byte = (at * 31) as u8;
    }
    packet
}

/// Gives the input in parts of `step` bytes; returns all output and how many bytes were used.
fn feed(handshake: &mut Handshake, input: &[u8], step: usize) -> (Vec<u8>, usize) {
    let (mut output, mut used) = (Vec::new(), 0);
    while used < input.len() && !handshake.is_done() {
        let end = input.len().min(used + step);
        let progress = handshake.handle(&input[used..end]).unwrap();
        assert_eq!(progress.done, handshake.is_done());
        used += progress.used;
        output.extend(progress.output);
    }
    (output, used)
}

#[test]
fn both_roles_agree_however_the_bytes_are_cut() {
    for step in [1, 2, 7, 1535, 1536, 1537, 3072, 3073, 5000] {
        let (mut client, mut server) = (Handshake::client(), Handshake::server());
        assert_eq!(server.start(), b"");
        let c0c1 = client.start();
        assert_eq!((c0c1.len(), c0c1[0]), (1 + PACKET, 3));
        let (answer, used) = feed(&mut server, &c0c1, step);
        assert_eq!((answer.len(), used, server.is_done()), (ALL, 1 + PACKET, false));
        let (c2, used) = feed(&mut client, &answer, step);
        assert_eq!((c2.len(), used, client.is_done()), (PACKET, ALL, true));
        let glued = [&c2[..], b"connect"].concat();
        let (rest, used) = feed(&mut server, &glued, step);
        assert_eq!((rest.len(), used, server.is_done()), (0, PACKET, true), "step {step}");
    }
}

#[test]
fn rml_rtmp_completes_the_handshake_as_client_and_as_server() {
    let (mut oracle, mut server) = (Oracle::new(PeerType::Client), Handshake::server());
    let (answer, _) = feed(&mut server, &oracle.generate_outbound_p0_and_p1().unwrap(), 999);
    let Ok(Result2::Completed { response_bytes, remaining_bytes }) = oracle.process_bytes(&answer) else { panic!() };
    assert_eq!(remaining_bytes, b"");
    feed(&mut server, &response_bytes, 999);
    assert!(server.is_done());

    let (mut oracle, mut client) = (Oracle::new(PeerType::Server), Handshake::client());
    let Ok(Result2::InProgress { response_bytes }) = oracle.process_bytes(&client.start()) else { panic!() };
    let (c2, _) = feed(&mut client, &response_bytes, 999);
    assert!(client.is_done());
    assert!(matches!(oracle.process_bytes(&c2), Ok(Result2::Completed { .. })));
}

#[test]
fn a_first_packet_without_digest_is_echoed() {
    let mut server = Handshake::server();
    let (answer, _) = feed(&mut server, &[&[3][..], &plain_c1()].concat(), 100);
    assert_eq!(answer[0], 3);
    assert_eq!(answer[1 + PACKET..], plain_c1());
}

/// First packet of a Flash Player, signed where scheme 0 (the sum at 8) or 1 (the sum at 772) has its digest; and the digest.
fn signed_c1(scheme: usize) -> (Vec<u8>, Vec<u8>) {
    let mut packet = plain_c1();
    packet[4..8].copy_from_slice(&[9, 0, 124, 2]);
    let sum_at = [8, 772][scheme];
    let sum: usize = packet[sum_at..sum_at + 4].iter().map(|byte| usize::from(*byte)).sum();
    let at = sum_at + 4 + sum % 728;
    let digest = sign(b"Genuine Adobe Flash Player 001", &[&packet[..at], &packet[at + 32..]].concat());
    packet[at..at + 32].copy_from_slice(&digest);
    (packet, digest)
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

#[test]
fn a_first_packet_with_a_digest_of_either_scheme_is_answered_with_one() {
    const TAIL: [u8; 32] = [
        0xF0, 0xEE, 0xC2, 0x4A, 0x80, 0x68, 0xBE, 0xE8, 0x2E, 0x00, 0xD0, 0xD1, 0x02, 0x9E, 0x7E, 0x57, 0x6E, 0xEC,
        0x5D, 0x2D, 0x29, 0x80, 0x6F, 0xAB, 0x93, 0xB8, 0xE6, 0x36, 0xCF, 0xEB, 0x31, 0xAE,
    ];
    for scheme in [0, 1] {
        let (c1, digest) = signed_c1(scheme);
        let mut server = Handshake::server();
        let (answer, _) = feed(&mut server, &[&[3][..], &c1].concat(), ALL);
        let s2 = &answer[1 + PACKET..];
        let key = sign(&[b"Genuine Adobe Flash Media Server 001", &TAIL[..]].concat(), &digest);
        assert_eq!(s2[PACKET - 32..], sign(&key, &s2[..PACKET - 32]), "scheme {scheme}");
    }
}

#[test]
fn the_second_packet_need_not_be_an_echo() {
    for c2 in [vec![0; PACKET], vec![0xFF; PACKET], plain_c1()] {
        let mut server = Handshake::server();
        feed(&mut server, &[&[3][..], &plain_c1()].concat(), ALL);
        feed(&mut server, &c2, ALL);
        assert!(server.is_done());
    }
}

#[test]
fn whole_handshake_in_one_read_completes() {
    let mut server = Handshake::server();
    let input = [&[3][..], &plain_c1(), &[9; PACKET], b"\x03chunks"].concat();
    let progress = server.handle(&input).unwrap();
    assert_eq!((progress.used, progress.output.len(), progress.done), (ALL, ALL, true));
    assert_eq!(server.handle(b"\x03chunks").unwrap(), HandshakeProgress { used: 0, output: vec![], done: true });
}

#[test]
fn other_protocols_get_no_answer() {
    let table: [(&str, &[u8], &str); 9] = [
        ("version 0", &[0], "0x00 instead of 0x03"),
        ("RTMPE", &[6], "RTMPE"),
        ("RTMPE with XTEA", &[8], "RTMPE"),
        ("HTTP GET", b"GET / HTTP/1.1\r\n", "HTTP"),
        ("E of anything", b"EHLO", "0x45"),
        ("TLS", &[0x16, 3, 1, 2, 0, 1], "TLS"),
        ("PROXY version 1", b"PROXY TCP4 1.2.3.4 ", "PROXY"),
        ("PROXY version 2", b"\r\n\r\n\0\r\nQUIT\n", "PROXY"),
        ("version 255", &[255, 3, 3], "0xff"),
    ];
    for (name, bytes, text) in table {
        for mut handshake in [Handshake::server(), Handshake::client()] {
            let error = handshake.handle(bytes).unwrap_err();
            assert_eq!(error, HandshakeError::Version(bytes[0]), "{name}");
            assert!(error.to_string().contains(text), "{name}: {error}");
            assert_eq!(handshake.handle(&[3]), Err(error), "{name}: an error is said again");
        }
    }
}

#[test]
fn server_answers_nothing_before_the_version() {
    let mut server = Handshake::server();
    assert_eq!(server.handle(b""), Ok(HandshakeProgress::default()));
    let progress = server.handle(&[3]).unwrap();
    assert_eq!((progress.used, progress.output.len(), progress.done), (1, 1 + PACKET, false));
}

#[test]
fn handshake_keeps_to_its_memory() {
    assert!(size_of::<Handshake>() < 2048, "{}", size_of::<Handshake>());
}
