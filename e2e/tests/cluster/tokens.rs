//! Tokens of the API in Secrets that people make, change and remove under live streams.

use liveedgecast_e2e::cluster::install::Installation;
use liveedgecast_e2e::cluster::pods::Pod;
use liveedgecast_e2e::cluster::{kubectl, said};
use liveedgecast_e2e::compare::assert_arrived_whole;
use liveedgecast_e2e::http;
use liveedgecast_e2e::tap::Tap;
use liveedgecast_e2e::wait::until_some;
use serde_json::Value;

use crate::{Relays, ended, published, receives, receives_more, sessions_of};

on_a_cluster! {
    a_token_is_made_changed_and_removed_under_a_live_stream
}

const SECRET: &str = "liveedgecast-admin-token";
const ONE: &str = "the-first-token-of-this-scenario";
const TWO: &str = "the-second-token-of-this-scenario";

/// The status of a request with a token to a pod from elsewhere, and the body of the answer.
fn ask(pod: &Pod, method: &str, path: &str, token: &str, body: &str) -> Option<(u16, String)> {
    let answer = http::authorized(pod.way(8080).address, method, &format!("/api/v1/{path}"), token, body).ok()?;
    Some((answer.status, answer.body))
}

fn status(pod: &Pod, token: &str) -> u16 {
    ask(pod, "GET", "streams", token, "").map_or(0, |(status, _)| status)
}

fn a_token_is_made_changed_and_removed_under_a_live_stream(relays: &Relays<'_>) {
    let relay = relays.installed(&Installation::default());
    let tap = Tap::before(relay.socket());
    let mut publisher = published(&tap, "kept");
    receives(&relay.sink, "kept", 50);
    let pods = relay.activators();
    let holder = relay.holder();
    let other = pods.iter().find(|pod| pod.uid() != holder.uid()).expect("another activator");
    let id = until_some("the stream's id", || {
        Some(relay.ask(other, "streams")?.as_array()?.first()?["id"].as_str()?.to_owned())
    });
    // A change through the activator that does not hold the publisher, which the other one has to believe.
    let destinations = format!("streams/{id}/destinations");
    let second = r#"{"name":"second","url":"rtmp://192.0.2.1/live/second","enabled":false}"#;
    let add = |token: &str| ask(other, "POST", &destinations, token, second);
    let remove_by = |pod: &Pod, token: &str| ask(pod, "DELETE", &format!("{destinations}/second"), token, "");
    let changes = |token: &str| {
        for (change, answer) in [("add", add(token)), ("remove", remove_by(&holder, token))] {
            assert!(answer.as_ref().is_some_and(|(status, _)| *status < 300), "{change}: {answer:?}");
        }
    };
    let all = |token: &str, wanted: u16| pods.iter().all(|pod| status(pod, token) == wanted);
    let logs = |pod: &Pod| said(&kubectl(&["logs", &pod.name]));

    assert!(add(ONE).is_some_and(|(status, _)| status == 403), "changes are closed without the Secret");
    assert!(relay.ask(other, "streams").as_ref().is_some_and(Value::is_array), "and the pod itself reads");
    for pod in &pods {
        assert!(logs(pod).contains("\"token.missing\""), "{} does not say that it has no token", pod.name);
    }

    relay.keep_secret(SECRET, &[("token", ONE)]);
    relay.secret_arrives("a token", || all(ONE, 200));
    assert!(
        relay.ask(other, "streams").is_none_or(|answer| !answer.is_array()),
        "the pod itself reads without the token"
    );
    changes(ONE);

    relay.keep_secret(SECRET, &[("token", TWO)]);
    relay.secret_arrives("another token", || all(TWO, 200));
    assert!(all(ONE, 401), "the old token opens something");
    changes(TWO);

    // A key of another name is a mistake. It takes no token away, and the log says so.
    relay.keep_secret(SECRET, &[("tokne", ONE)]);
    relay.secret_arrives("the mistake in the log", || pods.iter().all(|pod| logs(pod).contains("but tokne is there")));
    assert!(all(TWO, 200), "the mistake took the token away");
    changes(TWO);

    relay.remove_secret(SECRET);
    let is_closed = |pod: &Pod| remove_by(pod, TWO).is_some_and(|(status, _)| status == 403);
    relay.secret_arrives("the token to go", || pods.iter().all(is_closed));
    assert!(relay.ask(other, "streams").as_ref().is_some_and(Value::is_array), "the pod itself reads again");

    receives_more(&relay.sink, "kept", 50);
    assert!(tap.only().closed.is_none() && sessions_of(&relay.sink, "kept").len() == 1, "the stream was interrupted");
    let restarts = |pod: &Pod| pod.object["status"]["containerStatuses"][0]["restartCount"].as_u64();
    let now: Vec<_> = relay.activators().iter().map(|pod| (pod.uid().to_owned(), restarts(pod))).collect();
    let before: Vec<_> = pods.iter().map(|pod| (pod.uid().to_owned(), Some(0))).collect();
    assert_eq!(now, before, "an activator was restarted");
    publisher.interrupt();
    assert_arrived_whole(&tap.only().publisher.media, ended(&relay.sink, "kept").media());
    for pod in &pods {
        let log = logs(pod);
        assert!(!log.contains(ONE) && !log.contains(TWO), "a token is in the log");
    }
}
