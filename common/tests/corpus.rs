//! Replays the fuzz corpus, and the tables that most of it was made from, through the functions that the fuzz targets call.
//!
//! `cargo test -p liveedgecast-common --test corpus -- --ignored` writes the tables into the corpus again.
#![expect(clippy::disallowed_methods, reason = "tests over files")]

use std::fs;
use std::path::PathBuf;

use liveedgecast_common::rtmp::Ingest;
use liveedgecast_common::rtmp::server::{Event, ServerSession};

#[path = "../../e2e/fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "there it is a crate of its own")]
mod entry;
mod samples;
mod tables;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../e2e/fuzz/corpus").join(target)
}

/// Golden files whose name has this prefix.
fn golden(prefix: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("an entry"));
    let names = files.map(|file| (file.file_name().into_string().expect("a name"), file.path()));
    let mut found: Vec<_> = names
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, path)| (name, fs::read(path).expect("a file")))
        .collect();
    found.sort();
    found
}

/// Longer rows of the tables are repetitions, which a fuzzer finds by itself. A snapshot in the middle of a message has to be longer.
fn longest_seed(target: &str) -> usize {
    if matches!(target, "page" | "frames") { 20_000 } else { 3500 }
}

/// Name and bytes of every row that is a seed of a target.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add = |table: &str, name: &str, bytes: Vec<u8>| {
        let words: Vec<_> =
            name.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let number = seeds.len();
        seeds.push((format!("{table}-{number:03}-{}", words.join("-").to_lowercase()), bytes));
    };
    match target {
        "scanner" => {
            for row in tables::chunk::rows() {
                add("chunk", row.name, [&[7], &row.bytes[..]].concat());
            }
            for (name, timestamp, payload, ..) in tables::aggregate::rows() {
                let header = tables::chunk::fmt0(6, timestamp.min(0xFF_FFFE), payload.len() as u32, 22, 1);
                add("aggregate", name, [&[200], &header[..], &payload].concat());
            }
            for (name, type_id, prefix, _) in tables::media::ROWS {
                let header = tables::chunk::fmt0(6, 0, prefix.len() as u32, *type_id, 1);
                add("media", name, [&[200], &header[..], prefix].concat());
            }
        }
        "amf0" => {
            for (name, bytes, _) in tables::amf0::refused() {
                add("refused", name, bytes);
            }
            for (name, bytes) in tables::amf0::commands() {
                add("command", name, bytes);
            }
        }
        "snapshot" => {
            for row in tables::chunk::rows().into_iter().filter(|row| row.bytes.len() > 20) {
                let split = row.bytes.len() * 2 / 3;
                let mut ingest = Ingest::new(0);
                while let Ok(Some(_)) = ingest.next(&row.bytes[ingest.position() as usize..split]) {}
                let saved = postcard::to_stdvec(&ingest.state()).expect("a state can be saved");
                let rest = &row.bytes[ingest.position() as usize..];
                add("chunk", row.name, [&(saved.len() as u16).to_le_bytes(), &saved[..], rest].concat());
            }
        }
        "handshake" => {
            // Random bytes of a real handshake would make other seeds each time; these are plain packets.
            let packet: Vec<u8> = (0..1536).map(|at: u32| if at < 8 { 0 } else { (at * 31) as u8 }).collect();
            let plain = [&[3][..], &packet, &packet, b"connect"].concat();
            for (name, first) in [("server", 100), ("client", 0x80 | 100)] {
                add(name, "whole", [&[first][..], &plain].concat());
                add(name, "version", vec![first, 3]);
                add(name, "half", [&[first][..], &plain[..1700]].concat());
                for (other, bytes) in [("RTMPE", &[6][..]), ("TLS", &[0x16, 3, 1]), ("HTTP", b"GET / HTTP/1.1\r\n\r\n")]
                {
                    add(name, other, [&[first][..], bytes].concat());
                }
            }
            add("server", "zeroes", [&[50, 3][..], &[0; 3072]].concat());
        }
        "session" => {
            for (index, row) in tables::session::rows().into_iter().enumerate() {
                add("publisher", row.name, [&[37, index as u8], &row.bytes[..]].concat());
            }
        }
        "client" => {
            for row in tables::client::rows() {
                add("upstream", row.name, [&[6], &row.bytes[..]].concat());
            }
        }
        "session_state" => {
            for row in tables::session::rows() {
                let split = row.bytes.len() * 3 / 4;
                let mut session = ServerSession::new(0);
                while let Ok(Some(event)) = session.next(&row.bytes[session.position() as usize..split]) {
                    if event == Event::Publish {
                        session.accept_publish();
                    }
                }
                session.take_output();
                let saved = postcard::to_stdvec(&session.state()).expect("a state can be saved");
                let Ok(length) = u16::try_from(saved.len()) else { continue };
                let rest = &row.bytes[session.position() as usize..];
                add("publisher", row.name, [&length.to_le_bytes(), &saved[..], rest].concat());
            }
        }
        "page" => {
            let (media, at) = samples::media_bytes();
            for (name, snapshot, rest) in
                [("fresh", samples::fresh(), &media[100..]), ("mid message", samples::mid_message(), &media[at..])]
            {
                let saved = snapshot.encode();
                add("snapshot", name, [&(saved.len() as u16).to_le_bytes(), &saved[..], rest].concat());
            }
        }
        "frames" => {
            for (name, bytes) in golden("frames-") {
                // The content after the assignment; an assignment is put before it.
                let head = bytes[1..].first_chunk().map_or(0, |length| 5 + u32::from_be_bytes(*length) as usize);
                add("golden", &name, [&[6], &bytes[if bytes[0] == 1 { head } else { 0 }..]].concat());
            }
            for (name, bytes) in ["assignment-", "destinations-"].into_iter().flat_map(golden) {
                add("golden", &name, bytes);
            }
        }
        "preface" => {
            for (name, bytes) in golden("preface-") {
                add("golden", &name, [&[6], &bytes[..]].concat());
            }
        }
        _ => {}
    }
    seeds
}

#[test]
fn every_target_survives_its_tables() {
    for (target, run) in entry::TARGETS {
        for (name, bytes) in seeds(target) {
            println!("{target}: {name}");
            run(&bytes);
        }
    }
}

#[test]
fn every_target_survives_its_corpus() {
    for (target, run) in entry::TARGETS {
        let mut files: Vec<_> = fs::read_dir(corpus(target)).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{target} has no corpus");
        for file in files {
            println!("{}", file.display());
            run(&fs::read(&file).unwrap());
        }
    }
}

#[test]
#[ignore = "writes files: run it after changing a table"]
fn write_the_tables_into_the_corpus() {
    for (target, _) in entry::TARGETS {
        fs::create_dir_all(corpus(target)).unwrap();
        for (name, bytes) in seeds(target).into_iter().filter(|(_, bytes)| bytes.len() <= longest_seed(target)) {
            fs::write(corpus(target).join(name), bytes).unwrap();
        }
    }
}
