//! The two routes that nginx-rtmp's module has and whose clients we serve: `/stat` and `/control/drop/publisher`. In: requests that have the right.
//! Out: XML, and the number of publishers that were disconnected. Next: `stat`, the document; `changes`, the kick.
//!
//! Note: programs that switch scenes by `/stat` take a stream that is missing for one that has ended, and a document that they cannot read for a
//! server without streams. So an activator that does not know all streams yet has its client wait, and a stream without a worker is shown without
//! a bit rate, which such programs take for "not known".
#![expect(clippy::disallowed_methods, reason = "shell: it waits for the other activators and for workers")]

use std::time::Duration;

use liveedgecast_common::clock::{now, utc};
use liveedgecast_common::http::{Answer, Request, StatusCode};
use liveedgecast_common::key::{AppName, Identity, StreamKey};
use percent_encoding::percent_decode_str;
use tokio::time::sleep;

use self::stat::{GatewayFigures, StatFilter, document};
use super::HttpContext;
use super::changes::{StreamAction, carry_out};
use crate::dispatch::StreamView;

mod stat;

/// Longest wait of a client for the streams that this activator does not know yet.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// Age of this process up to which clients wait. One that still does not know may never, while name servers do not answer, and clients wait one after the other.
const BEGINNING: Duration = Duration::from_secs(10);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Streams in a document; each takes a kilobyte or two. A question by `app` and `name` finds the others.
const MAX_STREAMS: usize = 4000;

/// The document of all streams, or of those that the query names by `app` and `name`.
pub(super) async fn stat(shown: &HttpContext, request: &Request) -> Answer {
    let until = (now() + LONGEST_WAIT).min(shown.started + BEGINNING);
    while shown.cluster.need(None).is_err() && now() < until {
        sleep(PAUSE).await;
    }
    let filter = StatFilter { app: value(request, "app"), name: value(request, "name") };
    let (mut streams, mut left_out) = (Vec::new(), 0);
    shown.views.each_stream(0, |stream| {
        if filter.takes(&stream) {
            match streams.len() < MAX_STREAMS {
                true => streams.push(stream),
                false => left_out += 1,
            }
        }
        true
    });
    let gateway = GatewayFigures {
        uptime: now().saturating_duration_since(shown.started),
        utc: utc(),
        accepted: shown.metrics.accept.accepted.get(),
        bytes_in: shown.metrics.totals.sum("received_bytes_total"),
        bytes_out: shown.metrics.totals.sum("upstream_sent_bytes_total"),
    };
    match document(&gateway, streams, left_out) {
        Ok(xml) => Answer::typed("text/xml; charset=utf-8", xml),
        Err(error) => Answer::problem(StatusCode::INTERNAL_SERVER_ERROR, None, &format!("no XML: {error}")),
    }
}

/// Disconnects the publishers of the query's `app` and `name`: the name is that of `/stat`, the publisher's, or the key. `addr` narrows them to one
/// address. The answer is their number, as nginx-rtmp's is.
pub(super) async fn drop_publishers(shown: HttpContext, request: &Request) -> Answer {
    let (Some(app), Some(name)) = (value(request, "app"), value(request, "name")) else {
        return Answer::problem(StatusCode::BAD_REQUEST, None, "the query needs app and name: ?app=live&name=studio-a");
    };
    let identity = identity(&shown, &app, &name);
    let address = value(request, "addr");
    let filter = StatFilter { app: Some(app), name: Some(name.clone()) };
    let mut ids = Vec::new();
    shown.views.each_stream(0, |stream| {
        let is_named = filter.takes(&stream)
            || identity.is_some() && stream.identity == identity
            || filter.takes_app(&stream) && stream.publisher.as_ref() == Some(&name);
        let is_there = address.as_ref().is_none_or(|address| is_at(&stream, address));
        if is_named && is_there && !ids.contains(&stream.id) {
            ids.push(stream.id);
        }
        true
    });
    let mut dropped = 0;
    for id in ids {
        let kick = Request { captures: vec![id], body: KICK.into(), ..request.clone() };
        dropped += usize::from(
            carry_out(shown.clone(), kick, StreamAction::Kick).await.is_ok_and(|it| it.status.is_success()),
        );
    }
    Answer::text(format!("{dropped}\n"))
}

/// The body of the kick.
const KICK: &str = r#"{"reason":"dropped over /control/drop/publisher"}"#;

/// The identity of a stream, if the name may be a key.
fn identity(shown: &HttpContext, app: &str, name: &str) -> Option<Identity> {
    let (app, key) = (AppName::parse(app).ok()?, StreamKey::parse(name).ok()?);
    Some(shown.admission.identity(&app, &key))
}

fn is_at(stream: &StreamView, address: &str) -> bool {
    stream.peer.is_some_and(|peer| peer.ip().to_canonical().to_string() == address)
}

/// A value of the query, decoded.
fn value(request: &Request, name: &str) -> Option<String> {
    let mut pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(known, _)| *known == name)?;
    Some(percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned())
}
