//! Publishers with tokens (JWT): a shared secret, and an issuer that serves its keys and changes them.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use data_encoding::BASE64URL_NOPAD;
use liveedgecast_e2e::certificate::Authority;
use liveedgecast_e2e::loopback;
use liveedgecast_e2e::process::Program;
use liveedgecast_e2e::publish::{Media, Obs, ffmpeg};
use liveedgecast_e2e::relay::ActivatorProcess;
use liveedgecast_e2e::sink::Sink;
use liveedgecast_e2e::wait::{SOON, now, until, wall};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use crate::RETURNS;

/// The secret of issuer and activator.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Seconds since 1970, so many from now.
fn seconds(from_now: i64) -> i64 {
    let since = wall(now()).duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970");
    i64::try_from(since.as_secs()).expect("a time before the end") + from_now
}

/// A token, signed by `sign`.
fn signed(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// A token that is signed with the shared secret.
fn shared(claims: &Value) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    signed(&json!({"alg": "HS256"}), claims, |message| hmac::sign(&key, message).as_ref().to_vec())
}

/// A key of an issuer.
struct IssuerKey {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl IssuerKey {
    fn new(id: &'static str) -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        Self { id, pair: EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).expect("the key") }
    }

    fn set(&self) -> String {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (BASE64URL_NOPAD.encode(x), BASE64URL_NOPAD.encode(y));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": self.id, "use": "sig", "x": x, "y": y}]}).to_string()
    }

    fn token(&self, claims: &Value) -> String {
        signed(&json!({"alg": "ES256", "kid": self.id}), claims, |message| {
            self.pair.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
        })
    }
}

/// A server of a JWK Set.
struct KeyServer {
    address: SocketAddr,
    /// The set; `None`: the server has an error.
    set: Arc<Mutex<Option<String>>>,
    fetches: Arc<Mutex<usize>>,
}

impl KeyServer {
    fn start() -> Self {
        let listener = TcpListener::bind(loopback::socket(8090)).expect("a listener");
        let address = listener.local_addr().expect("its address");
        let this = Self { address, set: Arc::default(), fetches: Arc::default() };
        let (set, fetches) = (Arc::clone(&this.set), Arc::clone(&this.fetches));
        #[expect(clippy::disallowed_methods, reason = "a server of the scenario")]
        std::thread::spawn(move || {
            // One at a time: its client fetches one at a time.
            for socket in listener.incoming().flatten() {
                while answer(&socket, &set, &fetches).is_some() {}
            }
        });
        this
    }

    fn url(&self) -> String {
        format!("http://{}/jwks", self.address)
    }

    fn serves(&self, set: Option<String>) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = set;
    }

    fn fetches(&self) -> usize {
        *self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers one request; `None`: the client has ended.
fn answer(mut socket: &TcpStream, set: &Mutex<Option<String>>, fetches: &Mutex<usize>) -> Option<()> {
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    while line.trim_end() != "" || line.is_empty() {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
    }
    *fetches.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    let (status, body) = match set.lock().unwrap_or_else(PoisonError::into_inner).clone() {
        Some(set) => (200, set),
        None => (500, String::new()),
    };
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    socket.write_all(answer.as_bytes()).ok()?;
    None
}

#[test]
fn bearer_of_a_token_publishes_under_its_own_name_and_no_token_is_passed_on() {
    let sink = Sink::start();
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("LIVEEDGECAST_JWT_SECRET", SECRET);
    let activator = settings.with("COOLDOWN", "1s").with("GRACE", RETURNS).start();
    let good = json!({"sub": "cam", "exp": seconds(300), "app": "live"});
    let refused = [
        ("live/cam".to_owned(), "there is no token"),
        ("live/cam?token=nonsense".to_owned(), "the token is no signed JWT"),
        (format!("live/cam?token={}", shared(&json!({"sub": "cam", "exp": seconds(-61)}))), "the token has expired"),
        (format!("live/cam?token={}", shared(&json!({"sub": "cam"}))), "no usable time of expiry"),
        (format!("live/other?token={}", shared(&good)), "the token is for another stream key"),
        (format!("show/cam?token={}", shared(&good)), "the token is for another application"),
    ];
    for (name, told) in refused {
        let mut publisher = ffmpeg(Media::AudioOnly, &activator.url(&name));
        assert!(!publisher.wait(SOON).success(), "{name}");
        assert!(publisher.log().contains(told), "{told}: {}", publisher.log());
    }
    assert!(activator.processes().is_empty(), "a refused publisher has woken something");
    let refusals =
        |why: &str| activator.metric("liveedgecast_publishers_refused_total", &[&format!("reason=\"{why}\"")]);
    assert_eq!((refusals("token_expired"), refusals("token_missing")), (Some(1.0), Some(1.0)));

    let token = shared(&good);
    let mut publisher = ffmpeg(Media::Both, &activator.url(&format!("live/cam?token={token}&x=1")));
    assert_eq!(sink.receives(30).key, "cam?x=1");
    assert_eq!(activator.streams()[0]["publisher"], "cam");
    publisher.kill();
    // The token in place of the key, and another text.
    let renewed = shared(&json!({"sub": "cam", "exp": seconds(301)}));
    let mut again = ffmpeg(Media::Both, &activator.url(&format!("live/{renewed}?x=1")));
    let arrived = sink.only().recording.frames();
    sink.receives(arrived + 50);
    assert_eq!(sink.connections(), 1, "the stream of the lost publisher goes on");
    assert!(again.is_running());
    // Longer than a URL of ffmpeg may be.
    let long = shared(&json!({"sub": "long", "exp": seconds(300), "groups": "g".repeat(2900)}));
    let program = Program::new("ffmpeg", "ffmpeg").words("-hide_banner -nostdin -v info -nostats -re -f lavfi");
    let program = program.words("-i sine=frequency=440:sample_rate=44100 -c:a aac -f flv -rtmp_playpath");
    let _long = program.arg(format!("long?token={long}")).arg(activator.url("live")).start();
    until("the stream with a long token", || sink.sessions().iter().any(|session| session.key == "long"));
    let seen = format!("{}{:?}", activator.process.log(), activator.streams());
    assert!(seen.contains("the token has expired"), "the log says what is wrong: {seen}");
    for token in [token, renewed, long] {
        assert!(!seen.contains(&token), "a token is shown: {seen}");
    }
}

#[test]
fn obs_studio_publishes_by_rtmps_with_a_token_behind_its_key() {
    let (authority, sink) = (Authority::new(), Sink::start());
    let files = authority.files("relay.example");
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("LIVEEDGECAST_JWT_SECRET", SECRET);
    let activator = settings.with_certificates(&[&files]).start();
    let token = shared(&json!({"sub": "cam", "exp": seconds(300), "app": "live"}));
    let (url, address) = ("rtmps://relay.example:1936/live", activator.rtmps().ip());
    let mut obs = Obs::trusting(authority.file(), "relay.example", address, url, &format!("cam?token={token}"));
    sink.receives(100);
    assert_eq!(activator.streams()[0]["publisher"], "cam");
    obs.quit();
    let session = sink.ended();
    assert!(session.key == "cam" && session.said_goodbye(), "{}", session.key);
    assert!(!activator.process.log().contains(&token), "the log shows a token");
}

#[test]
fn issuer_serves_its_keys_changes_them_and_goes_away() {
    let (sink, server) = (Sink::start(), KeyServer::start());
    let settings = ActivatorProcess::pushing_to(&sink.url("live/{key}")).with("COOLDOWN", "1s");
    let settings = settings.with("LIVEEDGECAST_JWT_JWKS_URL", &server.url());
    let settings = settings.with("LIVEEDGECAST_JWT_ISSUER", "me").with("LIVEEDGECAST_JWT_AUDIENCE", "you");
    let activator = settings.start();
    let claims = |name: &str| json!({"sub": name, "exp": seconds(300), "iss": "me", "aud": "you"});
    let url = |key: &IssuerKey, name: &str| activator.url(&format!("live/{name}?token={}", key.token(&claims(name))));
    let fetched =
        |result: &str| activator.metric("liveedgecast_jwks_fetches_total", &[&format!("result=\"{result}\"")]);
    let (first, second) = (IssuerKey::new("first"), IssuerKey::new("second"));
    assert_eq!(server.fetches(), 0, "keys are fetched when a token needs them");

    // A temporary refusal is a start and a close, so ffmpeg ends well or badly.
    let mut early = ffmpeg(Media::AudioOnly, &url(&first, "early"));
    early.wait(SOON);
    assert_eq!((fetched("away"), server.fetches()), (Some(1.0), 1));
    until("the mistake in the log", || !activator.events("jwks.failed").is_empty());

    server.serves(Some(first.set()));
    let mut publishers = Vec::new();
    until("the first key to be fetched", || {
        let mut publisher = ffmpeg(Media::Both, &url(&first, "one"));
        until("the publisher to start, or to end", || !publisher.is_running() || sink.connections() == 1);
        let has_started = publisher.is_running();
        publishers.push(publisher);
        has_started
    });
    let known = server.fetches();
    publishers.push(ffmpeg(Media::Both, &url(&first, "two")));
    until("the second stream", || sink.sessions().iter().any(|session| session.key == "two"));
    assert_eq!(server.fetches(), known, "a key that is known is not fetched again");

    let mut stranger = ffmpeg(Media::AudioOnly, &url(&IssuerKey::new("first"), "cam"));
    assert!(!stranger.wait(SOON).success(), "another's key under a known id");
    assert!(stranger.log().contains("the token's signature is wrong"), "{}", stranger.log());

    server.serves(Some(second.set()));
    until("the second key to be fetched", || {
        let mut publisher = ffmpeg(Media::Both, &url(&second, "three"));
        let is_there = || sink.sessions().iter().any(|session| session.key == "three");
        until("the publisher to start, or to end", || !publisher.is_running() || is_there());
        publishers.push(publisher);
        is_there()
    });
    let sessions = sink.connections();
    // Until the next fetch is permitted, the issuer may have made that key a moment ago.
    until("the refusal of a key that the issuer has withdrawn", || {
        let mut old = ffmpeg(Media::AudioOnly, &url(&first, "five"));
        old.wait(SOON);
        old.log().contains("the token is signed by an unknown key")
    });
    assert_eq!(sink.connections(), sessions, "no upstream was reached");

    server.serves(None);
    publishers.push(ffmpeg(Media::Both, &url(&second, "four")));
    until("a stream while the server is away", || sink.sessions().iter().any(|session| session.key == "four"));
}
