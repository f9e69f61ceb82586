//! The cost of a publisher's bytes in a session, and of the chunk headers that are written for them. In: what to do and how often. Out:
//! nothing; the instructions and cache misses are valgrind's to count.
//!
//! `parse_cost runs|events|headers CHUNK MESSAGES [SESSIONS]`: feeds MESSAGES messages, by turns a video frame of 9,000 bytes and an audio
//! frame of 371, in chunks of CHUNK bytes, each in one piece as it would be received, to SESSIONS sessions in turn, which are asked for runs
//! or for single events. The difference between two numbers of messages is what they cost; many sessions make the state of each cold:
//!
//! ```text
//! cargo build --release -p liveedgecast-common --example parse_cost
//! valgrind --tool=cachegrind --cache-sim=yes --cachegrind-out-file=/dev/null target/release/examples/parse_cost runs 4096 20000
//! ```

use std::hint::black_box;

use liveedgecast_common::rtmp::amf0::Value;
use liveedgecast_common::rtmp::message::{Command, Control};
use liveedgecast_common::rtmp::server::{Event, RunEvent, ServerSession};
use liveedgecast_common::rtmp::writer::{continuation_header, first_header};
use liveedgecast_common::rtmp::{MessageHeader, Piece, Scanned, type_id};

const VIDEO: u32 = 9_000;
const AUDIO: u32 = 371;
const VIDEO_CSID: u8 = 6;
const AUDIO_CSID: u8 = 4;

/// A message with a fmt1 header, 33 ms after the one before of its chunk stream.
fn message(csid: u8, type_id: u8, length: u32, chunk: u32) -> Vec<u8> {
    let mut bytes = vec![0x40 | csid, 0, 0, 33];
    bytes.extend_from_slice(&length.to_be_bytes()[1..]);
    bytes.push(type_id);
    let payload = vec![0x27; length as usize];
    for (at, part) in payload.chunks(chunk as usize).enumerate() {
        if at > 0 {
            bytes.push(0xC0 | csid);
        }
        bytes.extend_from_slice(part);
    }
    bytes
}

/// A session whose publisher has been told to start, as a worker gets it.
fn live(chunk: u32) -> ServerSession {
    let text = |text: &str| Value::String(text.to_owned());
    let object = Value::Object(vec![("app".to_owned(), text("live"))]);
    let command = |name: &str, stream, object, arguments, out: &mut Vec<u8>| {
        Command { name: name.to_owned(), transaction: 1.0, object, arguments }.write(out, 3, stream, chunk);
    };
    let mut bytes = Vec::new();
    Control::SetChunkSize(chunk).write(&mut bytes, 128);
    command("connect", 0, object, vec![], &mut bytes);
    command("createStream", 0, Value::Null, vec![], &mut bytes);
    command("publish", 1, Value::Null, vec![text("key"), text("live")], &mut bytes);
    let mut session = ServerSession::new(0);
    while let Some(event) = session.next(&bytes[session.position() as usize..]).expect("it is a good session") {
        if event == Event::Publish {
            session.accept_publish();
        }
    }
    // The first message of each kind says all that the others repeat.
    for csid in [AUDIO_CSID, VIDEO_CSID] {
        let first = MessageHeader { csid: csid.into(), timestamp: 0, length: 1, type_id: type_id::AUDIO, stream_id: 1 };
        let bytes = [&*first_header(&first), &[0x27]].concat();
        let start = session.position();
        while session.next(&bytes[(session.position() - start) as usize..]).expect("it is good media").is_some() {}
    }
    session.take_output();
    ServerSession::restore(&session.state()).expect("it is a good state")
}

/// Adds up everything that the events say.
fn events(session: &mut ServerSession, input: &[u8]) -> u64 {
    let start = session.position();
    let mut sum = 0;
    while let Some(event) = session.next(&input[(session.position() - start) as usize..]).expect("it is good media") {
        match event {
            Event::Media(Scanned::Begin { header, at }) => sum += u64::from(header.timestamp) + at,
            Event::Media(Scanned::Payload { csid, at, len, last }) => {
                sum += u64::from(csid) + at + u64::from(len) + u64::from(last);
            }
            _ => {}
        }
    }
    sum
}

/// The same of the runs.
fn runs(session: &mut ServerSession, input: &[u8], pieces: &mut Vec<Piece>) -> u64 {
    let start = session.position();
    let mut sum = 0;
    while session.position() - start < input.len() as u64 {
        let input = &input[(session.position() - start) as usize..];
        let Some(event) = session.next_run(input, pieces).expect("it is good media") else { break };
        if let RunEvent::Run(run) = event {
            sum += u64::from(run.header.timestamp) + u64::from(run.header.csid) + run.begins.unwrap_or(0);
            sum += u64::from(run.received) + u64::from(run.last);
            sum += pieces.iter().map(|piece| piece.position + u64::from(piece.len)).sum::<u64>();
        }
    }
    sum
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |at: usize, otherwise: u32| arguments.get(at).map_or(otherwise, |text| text.parse().expect("a number"));
    let (chunk, messages, sessions) = (number(1, 4096), number(2, 1000), number(3, 1));
    let kinds = [message(VIDEO_CSID, type_id::VIDEO, VIDEO, chunk), message(AUDIO_CSID, type_id::AUDIO, AUDIO, chunk)];
    match arguments.first().map_or("runs", String::as_str) {
        how @ ("events" | "runs") => {
            let mut pieces = Vec::new();
            let mut sessions: Vec<ServerSession> = (0..sessions).map(|_| live(chunk)).collect();
            let count = sessions.len();
            for at in 0..messages as usize {
                let session = &mut sessions[at % count];
                let input = black_box(&kinds[at / count % 2]);
                black_box(if how == "runs" { runs(session, input, &mut pieces) } else { events(session, input) });
                if session.has_output() {
                    session.take_output();
                }
            }
        }
        "headers" => {
            for at in 0..messages {
                let (csid, length) = if at % 2 == 0 { (VIDEO_CSID, VIDEO) } else { (AUDIO_CSID, AUDIO) };
                let header = MessageHeader { csid: csid.into(), timestamp: at, length, type_id: csid, stream_id: 1 };
                black_box(first_header(black_box(&header)));
                black_box(continuation_header(black_box(&header)));
            }
        }
        other => panic!("{other}: runs, events or headers"),
    }
}
