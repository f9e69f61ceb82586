//! A link's connection over real sockets.

use std::future::poll_fn;

use liveedgecast_common::handoff::{PublisherEnd, Transport};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;
use crate::testkit::{assignment, frame, keys};

/// The worker's end of a link that has its assignment, the activator's socket, and its writer.
async fn link() -> (HandoffStream, TcpStream, Writer) {
    let keys = keys();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (theirs, ours) = tokio::join!(listener.accept(), TcpStream::connect(listener.local_addr().unwrap()));
    let (mut theirs, (_, mut writer)) = (theirs.unwrap().0, keys.activator_end());
    let mut ours = HandoffStream::new(ours.unwrap(), keys.worker_end());
    let mut assigned = Vec::new();
    writer.write(&mut assigned, &Frame::Assign(Box::new(assignment("a", "a", Transport::Link)))).unwrap();
    theirs.write_all(&assigned).await.unwrap();
    assert!(matches!(frame(&mut ours).await, Ok(Frame::Assign(_))));
    (ours, theirs, writer)
}

async fn arrival(link: &mut HandoffStream, space: &mut [u8]) -> Result<LinkArrival, HandoffError> {
    loop {
        poll_fn(|cx| link.poll_readable(cx)).await;
        if let Some(arrival) = link.receive(space)? {
            return Ok(arrival);
        }
    }
}

#[tokio::test]
async fn everything_that_has_come_is_taken_at_once_and_the_readiness_given_back() {
    let (mut link, mut activator, mut writer) = link().await;
    let mut bytes = Vec::new();
    for part in ["one, ", "two, ", "three"] {
        writer.write(&mut bytes, &Frame::Data(part.as_bytes().to_vec().into())).unwrap();
    }
    activator.write_all(&bytes).await.unwrap();
    let mut space = [0; 100];
    let LinkArrival::Data(count) = arrival(&mut link, &mut space).await.unwrap() else { panic!("data") };
    assert_eq!(&space[..count], b"one, two, three");
    assert!(poll_fn(|cx| Poll::Ready(link.poll_readable(cx))).await.is_pending(), "another read would find nothing");
}

#[tokio::test]
async fn frames_and_the_end_come_behind_the_bytes_before_them() {
    let (mut link, mut activator, mut writer) = link().await;
    let long: Vec<u8> = (0..100_000_u32).map(|at| at as u8).collect();
    let mut bytes = Vec::new();
    writer.write(&mut bytes, &Frame::Data(long.clone().into())).unwrap();
    writer.write(&mut bytes, &Frame::Kick("why not".to_owned())).unwrap();
    writer.write(&mut bytes, &Frame::Data(b"more"[..].into())).unwrap();
    writer.write(&mut bytes, &Frame::End(PublisherEnd::Fin)).unwrap();
    let (mut data, mut frames) = (Vec::new(), Vec::new());
    let sending = async move {
        activator.write_all(&bytes).await.unwrap();
        activator.shutdown().await.unwrap();
        activator
    };
    let receiving = async {
        let mut space = vec![0; 7000];
        loop {
            match arrival(&mut link, &mut space).await {
                Ok(LinkArrival::Data(count)) => data.extend_from_slice(&space[..count]),
                Ok(LinkArrival::Frame(frame)) => frames.push((data.len(), frame)),
                Err(error) => break error,
            }
        }
    };
    let (_activator, error) = tokio::join!(sending, receiving);
    assert!(matches!(error, HandoffError::Ended), "{error:?}");
    assert_eq!(
        frames,
        [(long.len(), Frame::Kick("why not".to_owned())), (long.len() + 4, Frame::End(PublisherEnd::Fin))]
    );
    assert!(data[..long.len()] == long && data[long.len()..] == *b"more");
}
