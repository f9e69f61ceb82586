//! Headers as proxies send them, whole and in pieces, good and bad.

use proptest::prelude::*;

use super::*;

/// A header of version 2 with this command, family and body.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&BINARY[..], &[command, family], &length, body].concat()
}

const FOUR: &[u8] = &[198, 51, 100, 7, 203, 0, 113, 1, 0xC7, 0x38, 7, 0x8F];

fn six() -> Vec<u8> {
    let mut body = vec![0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    body.extend_from_slice(&[0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    body.extend_from_slice(&[0xC7, 0x38, 7, 0x8F]);
    body
}

/// Good headers, and the client that they name.
fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        (text("PROXY TCP4 198.51.100.7 203.0.113.1 51000 1935\r\n"), Some("198.51.100.7:51000")),
        (text("PROXY TCP6 2001:db8::1 2001:db8::2 51000 1935\r\n"), Some("[2001:db8::1]:51000")),
        (text("PROXY TCP6 ::ffff:198.51.100.7 ::1 0 65535\r\n"), Some("198.51.100.7:0")),
        (text("PROXY UNKNOWN\r\n"), None),
        (text("PROXY UNKNOWN ffff::1 whatever 1 2\r\n"), None),
        (v2(0x21, 0x11, FOUR), Some("198.51.100.7:51000")),
        (v2(0x21, 0x11, &[FOUR, &[3, 0, 4, 1, 2, 3, 4]].concat()), Some("198.51.100.7:51000")),
        (v2(0x21, 0x21, &six()), Some("[2001:db8::1]:51000")),
        (v2(0x20, 0x00, &[]), None),
        (v2(0x20, 0x11, FOUR), None),
        (v2(0x21, 0x00, &[9; 20]), None),
        (v2(0x21, 0x31, &[0; 216]), None),
    ]
}

#[test]
fn good_headers_name_their_client_and_ask_for_no_byte_behind_them() {
    for (header, client) in good() {
        let client = client.map(|client| client.parse().unwrap());
        let mut known = 0;
        // The reader takes what it is told to.
        let found = loop {
            match decode(&header[..known]).unwrap() {
                ProxyProgress::More(more) => known += more,
                ProxyProgress::Whole(found) => break found,
            }
        };
        assert_eq!((found.client, found.length, known), (client, header.len(), header.len()), "{header:?}");
        for cut in 0..header.len() {
            assert!(matches!(decode(&header[..cut]), Ok(ProxyProgress::More(1..))), "{cut} of {header:?}");
        }
        let followed = [&header[..], b"\x03C1 of RTMP"].concat();
        assert_eq!(decode(&followed), Ok(ProxyProgress::Whole(found)));
        assert!(is_announced(&header[..6]));
    }
}

#[test]
fn bad_headers_are_refused() {
    let rows: [(Vec<u8>, ProxyError); 17] = [
        (b"\x03".to_vec(), ProxyError::Absent),
        (b"\x16\x03\x01".to_vec(), ProxyError::Absent),
        (b"POST / HTTP/1.1\r\n".to_vec(), ProxyError::Absent),
        (b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(), ProxyError::Malformed),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n".to_vec(), ProxyError::Malformed),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n".to_vec(), ProxyError::Malformed),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n".to_vec(), ProxyError::Malformed),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n".to_vec(), ProxyError::Malformed),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n".to_vec(), ProxyError::Malformed),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(), ProxyError::Malformed),
        (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n".to_vec(), ProxyError::Malformed),
        ([&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(), ProxyError::TooLong),
        (v2(0x11, 0x11, FOUR), ProxyError::Malformed),
        (v2(0x22, 0x11, FOUR), ProxyError::Malformed),
        (v2(0x21, 0x11, &FOUR[..11]), ProxyError::Malformed),
        (v2(0x21, 0x21, &six()[..35]), ProxyError::Malformed),
        (v2(0x21, 0x11, &[0; 5000]), ProxyError::TooLong),
    ];
    for (bytes, error) in rows {
        assert_eq!(decode(&bytes), Err(error), "{:?}", String::from_utf8_lossy(&bytes));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered_and_more_is_never_more_than_the_longest_header(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_usize..3) {
        let start: &[u8] = [&b""[..], TEXT, BINARY][kind];
        let bytes = [start, &bytes].concat();
        match decode(&bytes) {
            Ok(ProxyProgress::More(more)) => prop_assert!(more > 0 && bytes.len() + more <= MAX_BINARY),
            Ok(ProxyProgress::Whole(header)) => prop_assert!(header.length <= bytes.len()),
            Err(_) => {}
        }
    }
}
