//! Fuzz targets of the handoff. In: bytes that another process sends, or that a broken writer left in a state page.

use liveedgecast_common::handoff::frame::Reader;
use liveedgecast_common::handoff::preface::{PrefaceProgress, Step};
use liveedgecast_common::handoff::{
    ActivatorSide, Assignment, DestinationList, Frame, FrameError, SessionKeys, Snapshot, WorkerSide, page,
};
use liveedgecast_common::key::Secret;
use liveedgecast_common::rtmp::server::ServerSession;
use liveedgecast_common::sys::STATE_BYTES;

/// First two bytes: the length of the first part. First part: a snapshot. The rest: further bytes of the publisher. An accepted snapshot
/// can be encoded and reads back the same (also from a state page), and a session resumes from it without harm.
pub fn page(data: &[u8]) {
    assert!(page::read(data).is_none() || data.len() >= STATE_BYTES / 2);
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let Some((saved, stream)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))) else { return };
    let Ok(snapshot) = Snapshot::decode(saved) else { return };
    let _ = format!("{snapshot:?}");
    let written = snapshot.encode();
    let again = Snapshot::decode(&written).expect("what we write can be read");
    // The comparison is of bytes: a NaN equals nothing.
    assert_eq!(again.encode(), written);
    let mut memory = vec![0; STATE_BYTES];
    assert!(page::publish(&mut memory, &snapshot));
    assert!(page::read(&memory).expect("a page holds what was published").encode() == written);

    let Ok(mut session) = ServerSession::restore(&snapshot.session) else { return };
    let start = session.position();
    while let Ok(Some(_)) = session.next(&stream[(session.position() - start) as usize..]) {
        for state in [session.state(), session.state_before_chunk()] {
            assert!(ServerSession::restore(&state).is_ok());
        }
    }
}

/// First byte: the size of the pieces. The rest: frames as they arrive at a worker (behind an assignment) and at an activator. Every size
/// of pieces gives the same frames.
pub fn frames(data: &[u8]) {
    let _ = Assignment::decode(data);
    let _ = DestinationList::decode(data);
    let Some((&cut, bytes)) = data.split_first() else { return };
    let keys = keys();
    let mut assigned = Vec::new();
    let assignment = Assignment::decode(include_bytes!("../../../common/tests/golden/assignment-1-link"));
    let assign = Frame::Assign(Box::new(assignment.expect("it is a good one")));
    keys.activator_end().1.write(&mut assigned, &assign).expect("it is not too large");
    assigned.extend_from_slice(bytes);
    let step = usize::from(cut) + 1;
    assert!(read(keys.worker_end().0, &assigned, step) == read(keys.worker_end().0, &assigned, assigned.len()));
    assert!(read(keys.activator_end().0, bytes, step) == read(keys.activator_end().0, bytes, bytes.len().max(1)));
}

fn read(mut reader: Reader, bytes: &[u8], step: usize) -> (Vec<Frame>, Option<FrameError>) {
    let mut frames = Vec::new();
    for piece in bytes.chunks(step) {
        reader.buffer().extend_from_slice(piece);
        loop {
            match reader.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    let _ = format!("{frames:?}");
    (frames, None)
}

fn secret() -> Secret {
    Secret::new("fuzz")
}

fn keys() -> SessionKeys {
    let mut activator = ActivatorSide::new(&secret(), [2; 32]);
    let (mut worker, hello) = WorkerSide::new(&secret(), [0; 16], [1; 32]);
    let proof = worker.handle(&activator.handle(&hello).output).output;
    match activator.handle(&proof).step {
        Step::Done(keys) => keys,
        step => panic!("{step:?}"),
    }
}

/// First byte: the size of the pieces. The rest: bytes that arrive at either side of a preface. Every size of pieces gives the same end;
/// without the secret, no preface succeeds.
pub fn preface(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let step = usize::from(cut) + 1;
    let activator = |step| {
        let mut side = ActivatorSide::new(&Secret::new("nobody can guess this"), [2; 32]);
        run(bytes, step, |piece| side.handle(piece))
    };
    let worker = |step| {
        let (mut side, _) = WorkerSide::new(&Secret::new("nobody can guess this"), [0; 16], [1; 32]);
        run(bytes, step, |piece| side.handle(piece))
    };
    let whole = bytes.len().max(1);
    let (at_activator, at_worker) = (activator(step), worker(step));
    assert!(at_activator == activator(whole) && at_worker == worker(whole));
    assert!(!matches!(at_activator.1, Step::Done(_)) && !matches!(at_worker.1, Step::Done(_)));
}

fn run(bytes: &[u8], step: usize, mut handle: impl FnMut(&[u8]) -> PrefaceProgress) -> (Vec<u8>, Step) {
    let (mut output, mut last) = (Vec::new(), Step::More);
    for piece in bytes.chunks(step) {
        let progress = handle(piece);
        assert!(progress.used <= piece.len() && (progress.used == piece.len() || progress.step != Step::More));
        output.extend(progress.output);
        last = progress.step;
    }
    (output, last)
}
