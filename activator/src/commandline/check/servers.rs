//! The servers that the gateway asks or tells by HTTP, and the clock, which they tell. In: settings. Out: those that do not answer; a clock that is
//! wrong.
//!
//! Note: they are asked by HEAD, and the one of keys by GET: neither is a publisher to them, and neither is an event.
#![expect(clippy::disallowed_methods, reason = "shell: the clock is compared")]

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use liveedgecast_common::clock::utc;

use super::finding::Findings;
use crate::commandline::times::{parse_http_date, short};
use crate::config::{HttpUrl, JwtKeys, Settings};
use crate::net::{HttpCall, HttpClient};

const PART: &str = "server";
const WITHIN: Duration = Duration::from_secs(5);
/// Most bytes of a JWK Set, as the activator has it.
const MOST: usize = 256 << 10;
/// Difference of clocks that is not worth a word: HTTP dates have whole seconds, and an answer takes time.
const FAIR: Duration = Duration::from_secs(5);
/// Difference from which tokens are refused that are good, or the other way round.
const WRONG: Duration = Duration::from_secs(60);

/// A server, by the setting that names it.
struct AskedServer<'a> {
    setting: &'static str,
    url: &'a HttpUrl,
    /// It has keys, which are fetched.
    keys: bool,
}

/// Asks every server once.
pub(super) async fn servers(settings: &Settings) -> Findings {
    let mut found = Findings::default();
    let file = settings.entries.as_deref();
    let hooks = [Some(&settings.hooks), file.map(|file| &file.hooks)];
    let mut all: Vec<AskedServer<'_>> = Vec::new();
    for hooks in hooks.into_iter().flatten() {
        all.extend(hooks.publish.iter().map(|hook| AskedServer {
            setting: "LIVEEDGECAST_ON_PUBLISH_URL",
            url: &hook.url,
            keys: false,
        }));
        all.extend(hooks.done.iter().map(|hook| AskedServer {
            setting: "LIVEEDGECAST_ON_PUBLISH_DONE_URL",
            url: &hook.url,
            keys: false,
        }));
    }
    all.extend(settings.events.iter().map(|hook| AskedServer {
        setting: "LIVEEDGECAST_EVENTS_URL",
        url: &hook.url,
        keys: false,
    }));
    for jwt in settings.jwt.iter().chain(file.and_then(|file| file.jwt.as_ref())) {
        if let JwtKeys::Served(url) = &jwt.keys {
            all.push(AskedServer { setting: "LIVEEDGECAST_JWT_JWKS_URL", url, keys: true });
        }
    }
    let client = HttpClient::new();
    let mut clock = None;
    for server in &all {
        let date = ask(&client, server, &mut found).await;
        clock = clock.or(date.map(|date| (date, server.url.to_string())));
    }
    match clock {
        Some((date, url)) => compare(date, utc().0, &url, &mut found),
        None if settings.jwt.is_some() || file.is_some_and(|file| file.jwt.is_some()) => {
            found.good("clock: not compared, because no server told the time");
        }
        None => {}
    }
    found
}

/// Asks a server; returns its time.
async fn ask(client: &HttpClient, server: &AskedServer<'_>, found: &mut Findings) -> Option<u64> {
    let method = if server.keys { Method::GET } else { Method::HEAD };
    let call = HttpCall { method, to: server.url, headers: &[], body: Bytes::new(), within: WITHIN, most: MOST };
    let (setting, url) = (server.setting, server.url);
    let reply = match client.send(call).await {
        Ok(reply) => reply,
        Err(error) => {
            found.fault(PART, setting, format!("{url}: {error}: start the server, or correct its address"));
            return None;
        }
    };
    if server.keys {
        let set: Option<serde_json::Value> = serde_json::from_slice(&reply.body).ok();
        let keys = set.as_ref().and_then(|set| set["keys"].as_array()).map_or(0, Vec::len);
        if reply.status != 200 || keys == 0 {
            let text =
                format!("{url}: answers with status {} and no keys: correct the address of the JWK Set", reply.status);
            found.fault(PART, setting, text);
        } else {
            found.good(format!("server {setting}: {url} has {keys} keys"));
        }
    } else if reply.status == 404 {
        found.warning(
            PART,
            setting,
            format!("{url}: knows no such path (status 404): correct the path of the address"),
        );
    } else {
        found.good(format!("server {setting}: {url} answers"));
    }
    reply.date.as_deref().and_then(parse_http_date)
}

/// Compares this machine's clock with a server's.
fn compare(theirs: u64, ours: u64, url: &str, found: &mut Findings) {
    let difference = Duration::from_millis(ours.abs_diff(theirs));
    let way = if ours > theirs { "ahead of" } else { "behind" };
    let text = format!(
        "this machine is {} {way} {url}: have the clock set (chrony or systemd-timesyncd); tokens begin and end (nbf, exp) by it",
        short(difference)
    );
    match difference {
        _ if difference >= WRONG => found.fault("clock", "time", text),
        _ if difference >= FAIR => found.warning("clock", "time", text),
        _ => found.good(format!("clock: as {url} has it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commandline::check::finding::Weight;

    #[test]
    fn clock_that_is_wrong_is_found_in_both_directions() {
        for (ours, weight, words) in [
            (1_000_000, None, ""),
            (1_004_000, None, ""),
            (1_006_000, Some(Weight::Warning), "6s ahead of"),
            (880_000, Some(Weight::Fault), "2m00s behind"),
        ] {
            let mut found = Findings::default();
            compare(1_000_000, ours, "http://a", &mut found);
            let first = found.findings.first();
            assert_eq!(first.map(|finding| finding.weight), weight, "{ours}");
            assert!(first.is_none_or(|finding| finding.text.contains(words)), "{first:?}");
        }
    }
}
