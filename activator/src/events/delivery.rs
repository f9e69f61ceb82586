//! Delivery of events to one receiver by HTTP (standardwebhooks.com). In: the events, in their order. Out: a POST for each, signed, again and again until
//! it is taken. Next: `net`, whose client posts.
//!
//! Events that wait are those of the journal, so the queue is as long as that is; an event that leaves the journal before it was delivered is
//! dropped and counted. One event at a time is on its way: the receiver gets them in order, some of them twice.
#![expect(clippy::disallowed_methods, reason = "shell: the clocks of attempts and pauses")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::key::LogSafe;
use liveedgecast_common::{event, random};
use tracing::{info, warn};

use super::delivery_rules::{DeliveryRules, DropCause, NextStep, Reply};
use super::notice::EventNotice;
use super::task::{EventReader, Events, Heard};
use crate::config::EventHook;
use crate::net::{HttpClient, HttpPost, HttpReply};

/// Time for an attempt: the specification names 15 to 30 s.
const ATTEMPT_TIME: Duration = Duration::from_secs(15);
/// Bytes of an answer that are read; its status alone counts.
const MOST_ANSWER: usize = 16 << 10;
/// Bytes of an answer that a log line shows.
const MOST_WORDS: usize = 80;

/// Delivers events from now on, until there are no more or the receiver wants none.
pub async fn deliver(events: Events, hook: EventHook) {
    let reader = events.delivery_reader();
    Delivery {
        client: HttpClient::new(),
        rules: DeliveryRules::new(u64::from_be_bytes(random::bytes())),
        events,
        hook,
    }
    .run(reader)
    .await;
}

struct Delivery {
    client: HttpClient,
    rules: DeliveryRules,
    events: Events,
    hook: EventHook,
}

impl Delivery {
    async fn run(mut self, mut reader: EventReader) {
        while let Some(heard) = reader.next().await {
            let (Heard::Event(notice) | Heard::Gap(notice)) = heard;
            self.events.taken_for_delivery(reader.at());
            if let Some(cause) = self.send(&notice, &mut reader).await {
                self.events.dropped(cause, 1);
                self.events.stop_delivery(cause);
                return;
            }
        }
    }

    /// Sends one event until it is taken or dropped. Returns the reason for which nothing more is sent.
    async fn send(&mut self, notice: &EventNotice, reader: &mut EventReader) -> Option<DropCause> {
        let (id, body) = (notice.id(), Bytes::from(notice.json()));
        loop {
            let (reply, why) = self.attempt(&id, body.clone()).await;
            let age = SystemTime::now().duration_since(notice.at).unwrap_or_default();
            match self.rules.judge(reply, age, reader.is_ended()) {
                NextStep::Next { again } => {
                    self.events.metrics().attempted(true);
                    if again {
                        info!(event = event::EVENTS_DELIVERED_AGAIN, url = %self.hook.url, "events delivered again");
                    }
                    return None;
                }
                NextStep::Again { pause, first } => {
                    self.events.metrics().attempted(false);
                    if first {
                        warn!(event = event::EVENTS_UNDELIVERED, url = %self.hook.url, why, "event not delivered: sent again");
                    }
                    tokio::select! {
                        () = sleep_until(Some(now() + pause)) => {}
                        () = reader.ended() => {}
                    }
                }
                NextStep::Drop(cause) => {
                    self.events.metrics().attempted(false);
                    self.events.dropped(cause, 1);
                    return None;
                }
                NextStep::Stop(cause) => {
                    self.events.metrics().attempted(false);
                    if cause == DropCause::Gone {
                        warn!(event = event::EVENTS_UNWANTED, url = %self.hook.url, "receiver wants no more events (410): none is sent until a restart");
                    }
                    return Some(cause);
                }
            }
        }
    }

    async fn attempt(&self, id: &str, body: Bytes) -> (Reply, String) {
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let signature = self.hook.secret.signature(id, timestamp, &body);
        let timestamp = timestamp.to_string();
        let headers =
            [("webhook-id", id), ("webhook-timestamp", timestamp.as_str()), ("webhook-signature", signature.as_str())];
        let post = HttpPost {
            to: &self.hook.url,
            content_type: "application/json",
            headers: &headers,
            body,
            within: ATTEMPT_TIME,
            most: MOST_ANSWER,
        };
        match self.client.post(post).await {
            Ok(reply) => (Reply::Status(reply.status), said(&reply)),
            Err(error) => (Reply::Nothing, error.to_string()),
        }
    }
}

/// An answer in words, for the log.
fn said(reply: &HttpReply) -> String {
    let redirect = if reply.location.is_some() { ", a redirect, which is not followed" } else { "" };
    let words = String::from_utf8_lossy(&reply.body[..reply.body.len().min(MOST_WORDS)]).into_owned();
    format!("status {}{redirect}: {}", reply.status, LogSafe(words.trim()))
}
