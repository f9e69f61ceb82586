//! The shell of hooks. In: a publisher to ask about, or the end of its stream. Out: the server's answer; nothing. Next: `rules`.
//!
//! Each publisher's own task waits for its answer, so that a slow one delays nobody else. A publisher is a stranger until it is answered, so the calls of
//! one address are bounded, and of all: further ones wait in line, under the deadline of their publisher.
//!
//! A notice of an end is tried three times, from a queue of its own.
#![expect(clippy::disallowed_methods, reason = "shell: the clock of calls, tasks of notices")]

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use liveedgecast_common::clock::now;
use liveedgecast_common::event;
use liveedgecast_common::log_limiter::LogLimiter;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::answer::{HookAnswer, MOST_ANSWER, read_answer};
use super::question::{Asked, HookCall};
use crate::admission::metrics::AdmissionMetrics;
use crate::config::Hook;
use crate::net::{HttpCallError, HttpClient, HttpPost, HttpReply, bucket};

/// Questions at once: a server that needs 50 ms for each answers 1280 in a second.
const MOST_CALLS: usize = 64;
/// Questions about one address at once, so that a neighbour's publishers do not wait behind its own.
const MOST_CALLS_PER_ADDRESS: usize = 32;
/// Ends that wait to be told, some 500 bytes each. A thousand streams may end at once.
const MOST_NOTICES: usize = 2048;
/// Ends that are told at once.
const NOTICES_AT_ONCE: usize = 16;
/// Attempts to tell an end …
const ATTEMPTS: usize = 3;
/// … and the pause between two of them.
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);
/// Lines about a server that does not answer: strangers can cause one with each connection.
static FAILED: LogLimiter = LogLimiter::new(Duration::from_secs(5));
/// Lines about ends that a server was not told of.
static UNTOLD: LogLimiter = LogLimiter::new(Duration::from_secs(5));
/// Lines about answers that make no sense. The advice of `publisher.refused` leads to them, so no other line may take their turn.
static UNUSABLE: LogLimiter = LogLimiter::new(Duration::from_secs(5));

/// An end to be told.
struct Notice {
    hook: Arc<Hook>,
    asked: Box<Asked>,
}

/// The calls of all publishers.
pub(in crate::admission) struct HookDesk {
    client: HttpClient,
    calls: Semaphore,
    // A lock for a short look; held across no await.
    addresses: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
    notices: mpsc::Sender<Notice>,
    /// Taken by the one task that tells.
    told: Mutex<Option<mpsc::Receiver<Notice>>>,
    /// Ends that have not been told.
    untold: watch::Sender<usize>,
    metrics: AdmissionMetrics,
}

impl HookDesk {
    /// A desk without calls.
    pub(in crate::admission) fn new(metrics: AdmissionMetrics) -> Self {
        let (notices, told) = mpsc::channel(MOST_NOTICES);
        Self {
            client: HttpClient::new(),
            calls: Semaphore::new(MOST_CALLS),
            addresses: Mutex::default(),
            notices,
            told: Mutex::new(Some(told)),
            untold: watch::Sender::new(0),
            metrics,
        }
    }

    /// The server's answer about a publisher. Cancel safe: a call that is not waited for is given up.
    pub(in crate::admission) async fn ask(&self, hook: &Hook, asked: &Asked) -> HookAnswer {
        let address = self.address(asked.client);
        let (Ok(_address), Ok(_call)) = (address.acquire().await, self.calls.acquire().await) else {
            return HookAnswer::Away("the process ends".to_owned());
        };
        let began = now();
        let answer = match call(&self.client, hook, HookCall::Publish, asked).await {
            Ok(HttpReply { status, location, body, .. }) => {
                read_answer(hook.format, status, location.as_deref(), &body)
            }
            Err(HttpCallError::TooLong(most)) => HookAnswer::Unusable(format!("it has more than {most} bytes")),
            Err(error) => HookAnswer::Away(error.to_string()),
        };
        self.metrics.answered(&answer, now() - began);
        match &answer {
            HookAnswer::Away(error) if FAILED.is_due(now()) => {
                warn!(event = event::HOOK_FAILED, server = %hook.url, error, "hook did not answer");
            }
            HookAnswer::Unusable(error) if UNUSABLE.is_due(now()) => {
                warn!(event = event::HOOK_ANSWER_UNUSABLE, server = %hook.url, error, "answer of the hook makes no sense: its publisher is refused");
            }
            _ => {}
        }
        answer
    }

    /// The places for calls about one address.
    fn address(&self, client: IpAddr) -> Arc<Semaphore> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let key = bucket(client);
        if let Some(known) = addresses.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        // Addresses whose publishers were answered. Those that are left have a connection each.
        addresses.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(MOST_CALLS_PER_ADDRESS));
        addresses.insert(key, Arc::downgrade(&places));
        places
    }

    /// The notice that is sent when it is dropped.
    pub(in crate::admission) fn notice(&self, hook: &Arc<Hook>, asked: Asked) -> EndNotice {
        EndNotice {
            notice: Some(Notice { hook: Arc::clone(hook), asked: Box::new(asked) }),
            notices: self.notices.clone(),
            untold: self.untold.clone(),
            metrics: self.metrics.clone(),
        }
    }

    /// Tells of ends until dropped. Only the first call does.
    pub(in crate::admission) async fn tell(&self) {
        let taken = self.told.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut notices) = taken else { return };
        let mut telling = JoinSet::new();
        while let Some(notice) = notices.recv().await {
            while telling.len() >= NOTICES_AT_ONCE {
                telling.join_next().await;
            }
            let (client, untold, metrics) = (self.client.clone(), self.untold.clone(), self.metrics.clone());
            telling.spawn(async move {
                let result = tell(&client, &notice).await;
                metrics.told(result.is_ok());
                if let Err(error) = result {
                    let (server, stream) = (&notice.hook.url, &notice.asked.facts.id);
                    if UNTOLD.is_due(now()) {
                        warn!(event = event::HOOK_FAILED, %server, stream, error, "hook was not told of an end");
                    }
                }
                untold.send_modify(|untold| *untold = untold.saturating_sub(1));
            });
        }
    }

    /// Returns when every end has been told, or given up. Cancel safe.
    pub(in crate::admission) async fn all_told(&self) {
        let _ = self.untold.subscribe().wait_for(|untold| *untold == 0).await;
    }
}

async fn call(client: &HttpClient, hook: &Hook, call: HookCall, asked: &Asked) -> Result<HttpReply, HttpCallError> {
    let (content_type, body) = asked.body(call, hook.format);
    let secret = hook.secret.as_ref().map(|secret| format!("Bearer {}", secret.expose()));
    let headers: Vec<(&str, &str)> = secret.iter().map(|secret| ("authorization", secret.as_str())).collect();
    let post =
        HttpPost { to: &hook.url, content_type, headers: &headers, body, within: hook.timeout, most: MOST_ANSWER };
    client.post(post).await
}

/// Any answer but a server's error will do.
async fn tell(client: &HttpClient, notice: &Notice) -> Result<(), String> {
    let mut error = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            sleep(ATTEMPT_PAUSE).await;
        }
        match call(client, &notice.hook, HookCall::PublishDone, &notice.asked).await {
            Ok(HttpReply { status: 500.., .. }) => error = "the server has an error".to_owned(),
            Ok(_) => return Ok(()),
            Err(why) => error = why.to_string(),
        }
    }
    Err(error)
}

/// A publisher that a server has let in; the server is told of its end when this is dropped.
pub struct EndNotice {
    notice: Option<Notice>,
    notices: mpsc::Sender<Notice>,
    untold: watch::Sender<usize>,
    metrics: AdmissionMetrics,
}

impl std::fmt::Debug for EndNotice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EndNotice")
    }
}

impl Drop for EndNotice {
    fn drop(&mut self) {
        let Some(notice) = self.notice.take() else { return };
        self.untold.send_modify(|untold| *untold += 1);
        if let Err(error) = self.notices.try_send(notice) {
            debug!(event = event::HOOK_NOTICE_DROPPED, %error, "notice of an end dropped");
            self.untold.send_modify(|untold| *untold = untold.saturating_sub(1));
            self.metrics.dropped();
        }
    }
}
