//! A publisher of given messages, for streams that no real encoder produces: given messages, in a given order, at given times. In: a URL
//! and the messages. Out: a guard; dropping it ends the publisher without a goodbye.
#![expect(clippy::disallowed_methods, reason = "shell: a thread that sends in real time")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use liveedgecast_common::key::StreamKey;
use liveedgecast_common::rtmp::MessageHeader;
use liveedgecast_common::rtmp::client::{ClientEvent, ClientSession};
use liveedgecast_common::rtmp::writer::write_message;
use liveedgecast_common::url::PushTemplate;

use crate::publish::clip;
use crate::record::Message;
use crate::wait::now;

/// Longest time for one answer of the server, including a cold start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A message to be published, with its time.
#[derive(Clone, Debug)]
pub struct Cue {
    /// Time of sending, counted from the first message.
    pub due: Duration,
    /// The message itself.
    pub message: Message,
}

/// Encodes H.264 and AAC of so many seconds, each message at its own time.
///
/// # Panics
/// ffmpeg is not there.
#[must_use]
pub fn cues(seconds: u32) -> Vec<Cue> {
    let cue = |message: Message| Cue { due: Duration::from_millis(message.timestamp.into()), message };
    clip(seconds).into_iter().map(cue).collect()
}

/// A running publisher.
#[derive(Debug)]
pub struct Replay {
    stopped: Arc<AtomicBool>,
}

impl Replay {
    /// Starts publishing the stream `key` of the application `live` at this address.
    #[must_use]
    pub fn start(address: SocketAddr, key: &str, cues: Vec<Cue>) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let (key, stop) = (key.to_owned(), Arc::clone(&stopped));
        thread::spawn(move || {
            if let Err(error) = publish(address, &key, &cues, &stop) {
                eprintln!("the publisher of {key} ended: {error:#}");
            }
        });
        Self { stopped }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

fn publish(address: SocketAddr, key: &str, cues: &[Cue], stopped: &AtomicBool) -> anyhow::Result<()> {
    let template = PushTemplate::parse(&format!("rtmp://{address}/live/{{key}}"))?;
    let mut client = ClientSession::new(&template.resolve("live", &StreamKey::parse(key)?)?, None);
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    client.start();
    let mut buffer = [0; 4096];
    loop {
        socket.write_all(&client.take_output())?;
        match client.poll_event() {
            Some(ClientEvent::Started) => break,
            Some(_) => {}
            None => {
                let read = socket.read(&mut buffer)?;
                anyhow::ensure!(read > 0, "the server closed the connection");
                client.handle(&buffer[..read])?;
            }
        }
    }
    let began = now();
    for Cue { due, message } in cues {
        thread::sleep((began + *due).saturating_duration_since(now()));
        if stopped.load(Ordering::Relaxed) {
            break;
        }
        let csid = u32::from(message.type_id);
        let stream_id = client.message_stream();
        let header =
            MessageHeader { csid, timestamp: message.timestamp, length: 0, type_id: message.type_id, stream_id };
        let mut bytes = Vec::new();
        write_message(&mut bytes, &header, &message.payload, client.chunk_size());
        socket.write_all(&bytes)?;
    }
    Ok(())
}
