//! Golden bytes of everything on our own wire, per version: `golden/WHAT-VERSION-WHICH`. The newest version is written as it is there; every
//! version there has been is read. A test that fails here after a change means a new version, not new files.
//!
//! `cargo test -p liveedgecast-common --test golden -- --ignored` writes the files of the newest version.
#![expect(clippy::disallowed_methods, reason = "tests over files")]
#![expect(clippy::unwrap_used, reason = "tests, helpers included")]

use std::fs;
use std::path::PathBuf;

use liveedgecast_common::handoff::{
    self, ActivatorSide, Assignment, DestinationList, Frame, Snapshot, Transport, WorkerSide, page, preface::Step,
    snapshot,
};
use liveedgecast_common::rtmp::server::{Event, ServerSession};
use liveedgecast_common::rtmp::{MessageHeader, Scanned};
use liveedgecast_common::sys::STATE_BYTES;

mod samples;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn to_worker() -> [Frame; 4] {
    use liveedgecast_common::handoff::PublisherEnd::Reset;
    [
        Frame::Assign(Box::new(samples::assignment(Transport::Link, false))),
        Frame::Data(b"bytes".to_vec().into()),
        Frame::Kick("by hand".to_owned()),
        Frame::End(Reset),
    ]
}

fn to_activator() -> [Frame; 9] {
    use liveedgecast_common::handoff::{Close::Graceful, Decline};
    [
        Frame::Accepted,
        Frame::Started,
        Frame::Reply(b"bytes".to_vec().into()),
        Frame::Checkpoint(Box::new(samples::mid_message())),
        Frame::Alive,
        Frame::Returned { why: Decline::Moving },
        Frame::Checkpoint(Box::new(samples::fresh())),
        Frame::Duplicate,
        Frame::Done { how: Graceful, reason: "deleteStream".to_owned() },
    ]
}

/// A frame that came with a later release.
fn parted() -> Frame {
    Frame::Parted(Box::new(Snapshot { unread: b"unread".to_vec(), ..samples::fresh() }))
}

/// A frame that came with a later release.
fn destinations(list: DestinationList) -> [Frame; 2] {
    [Frame::Assign(Box::new(samples::assignment(Transport::Link, false))), Frame::Destinations(Box::new(list))]
}

/// Name and bytes of every file of the newest version.
fn newest() -> Vec<(&'static str, Vec<u8>)> {
    let (worker, activator, keys) = samples::preface();
    let (mut frames_to_worker, mut frames_to_activator) = (Vec::new(), Vec::new());
    let mut writer = keys.activator_end().1;
    to_worker().iter().for_each(|frame| writer.write(&mut frames_to_worker, frame).unwrap());
    let mut writer = keys.worker_end().1;
    to_activator().iter().for_each(|frame| writer.write(&mut frames_to_activator, frame).unwrap());
    let mut frame_parted = Vec::new();
    keys.worker_end().1.write(&mut frame_parted, &parted()).unwrap();
    let (mut frames_destinations, mut writer) = (Vec::new(), keys.activator_end().1);
    destinations(samples::destinations())
        .iter()
        .for_each(|frame| writer.write(&mut frames_destinations, frame).unwrap());
    let mut page = vec![0; STATE_BYTES];
    assert!(page::publish(&mut page, &samples::mid_message()));
    page.truncate(page.iter().rposition(|byte| *byte != 0).unwrap() + 1);
    vec![
        ("snapshot-1-fresh", samples::fresh().encode()),
        ("snapshot-1-mid-message", samples::mid_message().encode()),
        ("assignment-1-link", samples::assignment(Transport::Link, false).encode()),
        ("assignment-1-descriptor-resumed", samples::assignment(Transport::Descriptor, true).encode()),
        ("preface-1-worker", worker),
        ("preface-1-activator", activator),
        ("frames-1-to-worker", frames_to_worker),
        ("frames-1-to-activator", frames_to_activator),
        ("frames-1-parted", frame_parted),
        ("frames-2-destinations", frames_destinations),
        ("destinations-2", samples::destinations().encode()),
        ("page-1", page),
    ]
}

#[test]
fn the_newest_version_is_written_as_it_was() {
    for (name, bytes) in newest() {
        assert!(golden(name) == bytes, "{name} is written otherwise now: that is another version");
    }
    let versions = [snapshot::VERSION, handoff::assignment::VERSION, handoff::destinations::VERSION];
    assert_eq!(versions, [1, 1, 2], "files of a new version are needed, and the old ones stay");
}

#[test]
fn every_version_of_a_snapshot_is_read() {
    assert_eq!(Snapshot::decode(&golden("snapshot-1-fresh")).unwrap(), samples::fresh());
    assert_eq!(Snapshot::decode(&golden("snapshot-1-mid-message")).unwrap(), samples::mid_message());
    // From a real stream, and read to its end by a real decoder in `e2e`.
    let stream = Snapshot::decode(&golden("snapshot-1-mid-stream")).unwrap();
    assert!(ServerSession::restore(&stream.session).unwrap().is_started());
    let mut page = golden("page-1");
    page.resize(STATE_BYTES, 0);
    assert_eq!(page::read(&page).unwrap(), samples::mid_message());
}

#[test]
fn every_version_of_an_assignment_is_read() {
    let link = Assignment::decode(&golden("assignment-1-link")).unwrap();
    assert_eq!(link, samples::assignment(Transport::Link, false));
    let descriptor = Assignment::decode(&golden("assignment-1-descriptor-resumed")).unwrap();
    assert_eq!(descriptor, samples::assignment(Transport::Descriptor, true));
}

#[test]
fn every_version_of_a_list_of_destinations_is_read() {
    assert_eq!(DestinationList::decode(&golden("destinations-1")).unwrap(), samples::destinations_of_version_1());
    assert_eq!(DestinationList::decode(&golden("destinations-2")).unwrap(), samples::destinations());
}

#[test]
fn a_recorded_connection_is_read_by_both_ends() {
    let mut activator = ActivatorSide::new(&samples::secret(), [2; 32]);
    let (mut worker, hello) = WorkerSide::new(&samples::secret(), *b"0123456789abcdef", [1; 32]);
    assert!(golden("preface-1-worker").starts_with(&hello));
    let Step::Done(keys) = activator.handle(&golden("preface-1-worker")).step else { panic!("not done") };
    assert_eq!(worker.handle(&golden("preface-1-activator")).step, Step::Done(keys.clone()));
    let read = |mut reader: liveedgecast_common::handoff::frame::Reader, name| {
        reader.buffer().extend_from_slice(&golden(name));
        let frames: Vec<Frame> = std::iter::from_fn(|| reader.next().unwrap()).collect();
        assert!(reader.buffer().is_empty());
        frames
    };
    assert_eq!(read(keys.worker_end().0, "frames-1-to-worker"), to_worker());
    assert_eq!(read(keys.activator_end().0, "frames-1-to-activator"), to_activator());
    assert_eq!(read(keys.activator_end().0, "frames-1-parted"), [parted()]);
    let lists = [
        ("frames-1-destinations", samples::destinations_of_version_1()),
        ("frames-2-destinations", samples::destinations()),
    ];
    for (name, list) in lists {
        assert_eq!(read(keys.worker_end().0, name), destinations(list));
    }
}

/// Messages that are complete, of a session that is fed `bytes` and already has `open`.
fn messages(session: &mut ServerSession, bytes: &[u8], open: Vec<(u32, Vec<u8>)>) -> Vec<(MessageHeader, Vec<u8>)> {
    let start = session.position();
    let mut open: Vec<(u32, Option<MessageHeader>, Vec<u8>)> =
        open.into_iter().map(|(csid, received)| (csid, None, received)).collect();
    let mut complete = Vec::new();
    for event in samples::feed(session, bytes) {
        match event {
            Event::Media(Scanned::Begin { header, .. }) => open.push((header.csid, Some(header), Vec::new())),
            Event::Media(Scanned::Payload { csid, at, len, last }) => {
                let index = open.iter().position(|(open, ..)| *open == csid).unwrap();
                open[index].2.extend_from_slice(&bytes[(at - start) as usize..][..len as usize]);
                if last {
                    let (_, header, payload) = open.remove(index);
                    let length = payload.len() as u32;
                    let nameless = MessageHeader { csid, timestamp: 42, length, type_id: 8, stream_id: 1 };
                    complete.push((header.unwrap_or(nameless), payload));
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(open.is_empty());
    complete
}

/// A worker that has only the bytes of the snapshot, of any version, reads from there on the same messages as the first worker would have.
#[test]
fn second_worker_resumes_in_the_middle_of_a_message() {
    let (bytes, at) = samples::media_bytes();
    let mut first = samples::held();
    first.accept_publish();
    let whole = messages(&mut first, &bytes, Vec::new());
    assert_eq!(whole.len(), 7);
    first.take_output();

    // One line per version.
    let versions = &["snapshot-1-mid-message"];
    for name in versions {
        let snapshot = Snapshot::decode(&golden(name)).unwrap();
        let open = snapshot.stream.unwrap().open.into_iter().map(|open| (open.csid, open.received)).collect();
        let mut second = ServerSession::restore(&snapshot.session).unwrap();
        assert!(second.is_started() && second.publish().unwrap().key.expose() == "s3cr3t-key?t=t0ken");
        assert_eq!(second.position(), samples::START + (samples::until_publish().len() + at) as u64);
        assert!(messages(&mut second, &bytes[at..], open) == whole[4..], "{name}");
        assert_eq!(second.state(), first.state());
    }
}

#[test]
#[ignore = "writes files: run it for a new version"]
fn write_the_newest_version() {
    fs::create_dir_all(folder()).unwrap();
    for (name, bytes) in newest() {
        fs::write(folder().join(name), bytes).unwrap();
    }
}
