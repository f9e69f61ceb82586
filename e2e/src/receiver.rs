//! A receiver of events, as users write one: an HTTP server that checks each signature (standardwebhooks.com) before it believes a body. In: a secret.
//! Out: the bodies that it took, and how many requests and connections there were.
#![expect(clippy::disallowed_methods, reason = "shell: threads that serve")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::BASE64;
use ring::hmac;
use serde_json::Value;

use crate::loopback;
use crate::wait::until_some;

/// The secret of scenarios, in the form of the specification.
pub const SIGNING_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A running receiver; its threads end with the test program.
#[derive(Debug)]
pub struct EventReceiver {
    address: SocketAddr,
    state: Arc<ReceiverState>,
}

#[derive(Debug, Default)]
struct ReceiverState {
    /// Status of answers to good requests.
    status: AtomicU16,
    connections: AtomicUsize,
    requests: AtomicUsize,
    /// Bodies that were taken, in their order.
    taken: Mutex<Vec<Value>>,
    /// Mistakes of requests.
    wrong: Mutex<Vec<String>>,
}

impl EventReceiver {
    /// Starts a receiver that takes everything.
    ///
    /// # Panics
    /// It cannot listen.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind(loopback::socket(8090)).expect("an address");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(ReceiverState { status: AtomicU16::new(200), ..ReceiverState::default() });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                shared.connections.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || serve(socket, &shared));
            }
        });
        Self { address, state }
    }

    /// The URL for `LIVEEDGECAST_EVENTS_URL`; its path has a token that no log may show.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/hook?token={}", self.address, crate::relay::KEY_MARK)
    }

    /// Answers with this status from now on.
    pub fn answer_with(&self, status: u16) {
        self.state.status.store(status, Ordering::Relaxed);
    }

    /// The documents that were taken so far.
    #[must_use]
    pub fn taken(&self) -> Vec<Value> {
        self.state.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests so far, taken or not.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// The mistakes of requests so far.
    #[must_use]
    pub fn wrong(&self) -> Vec<String> {
        self.state.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the first document of this type.
    #[track_caller]
    pub fn takes(&self, event: &str) -> Value {
        until_some(format!("the delivery of {event}"), || self.taken().into_iter().find(|told| told["type"] == event))
    }
}

fn serve(socket: TcpStream, state: &ReceiverState) {
    let Ok(mut writer) = socket.try_clone() else { return };
    let mut reader = BufReader::new(socket);
    while let Some((headers, body)) = request(&mut reader) {
        state.requests.fetch_add(1, Ordering::Relaxed);
        let status = match verified(&headers, &body) {
            Ok(document) => {
                let status = state.status.load(Ordering::Relaxed);
                if status == 200 {
                    state.taken.lock().unwrap_or_else(PoisonError::into_inner).push(document);
                }
                status
            }
            Err(why) => {
                state.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(why);
                401
            }
        };
        if write!(writer, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

fn request(reader: &mut impl BufRead) -> Option<(BTreeMap<String, String>, Vec<u8>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut headers = BTreeMap::from([(":request".to_owned(), line.trim_end().to_owned())]);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some((headers, body))
}

/// The document of a request whose signature is good.
fn verified(headers: &BTreeMap<String, String>, body: &[u8]) -> Result<Value, String> {
    let header = |name: &str| headers.get(name).cloned().ok_or(format!("no {name}: {headers:?}"));
    let (id, timestamp, signature) =
        (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
    let secret = SIGNING_SECRET.strip_prefix("whsec_").and_then(|text| BASE64.decode(text.as_bytes()).ok());
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret.unwrap_or_default());
    let content = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
    let sent = signature.strip_prefix("v1,").and_then(|text| BASE64.decode(text.as_bytes()).ok());
    hmac::verify(&key, &content, &sent.unwrap_or_default()).map_err(|_| format!("not signed: {headers:?}"))?;
    if header("content-type")? != "application/json" || !header(":request")?.starts_with("POST /hook?token=") {
        return Err(format!("an odd request: {headers:?}"));
    }
    let document: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if document["id"] != id.as_str() {
        return Err(format!("{id} is not the id of {document}"));
    }
    Ok(document)
}
