//! The commands that change streams and workers. In: a gateway, an order. Out: a sentence that says what was done, or the API's JSON; with `--wait` only
//! once it has been carried out.
#![expect(clippy::disallowed_methods, reason = "shell: it looks again and again whether an order has been carried out")]

use std::io::Read as _;
use std::time::{Duration, Instant};

use hyper::Method;
use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::config::{parse_duration, read_file};
use liveedgecast_common::setting::{Hidden, file, set};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::answers::{ListedStream, ListedUpstream, WantedDestination};
use super::failure::{CommandFailure, named};
use super::gateway::GatewayClient;
use super::listing::{all_streams, all_workers, print_json, stream_named, worker_named};
use super::table::{AlignedTable, Cell, Tone};
use crate::config::{ApiArgs, DestinationCommand, DestinationUrlArgs, StreamArgs, WaitArgs, WorkerArgs};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Most bytes of a URL on standard input.
const MOST_URL: u64 = 16 << 10;

/// Drains a worker, or has it take streams again if `wait` is none.
pub(super) async fn drain(
    gateway: &GatewayClient,
    args: &WorkerArgs,
    wait: Option<&WaitArgs>,
) -> Result<(), CommandFailure> {
    let until = wait.map(deadline).transpose()?.flatten();
    let name = worker_named(gateway, &args.worker).await?.name;
    let order = if wait.is_some() { "drain" } else { "undrain" };
    let done = gateway.change(Method::POST, &format!("/api/v1/workers/{}/{order}", encoded(&name)), None).await?;
    let mut said = match order {
        "drain" => format!("worker {} takes nothing more and gives its streams away", named(&name)),
        _ => format!("worker {} takes streams again", named(&name)),
    };
    if let Some(until) = until {
        let what = format!("waiting for worker {} to give its streams away", named(&name));
        let waited = gateway.terminal.watching(&what, async {
            loop {
                let workers = all_workers(gateway).await?;
                let left = workers.iter().find(|worker| worker.name == name).map_or(0, |worker| worker.streams);
                if left == 0 {
                    return Ok(());
                }
                again(until, || {
                    format!(
                        "worker {} still has {left} of its streams: others have no room, or are drained, too",
                        named(&name)
                    )
                })
                .await?;
            }
        });
        waited.await?;
        said = format!("worker {} has no streams and takes none", named(&name));
    }
    tell(gateway, args.api.json, &done, &said)
}

/// Ends a stream.
pub(super) async fn kick(
    gateway: &GatewayClient,
    args: &StreamArgs,
    reason: Option<&str>,
) -> Result<(), CommandFailure> {
    let stream = stream_named(gateway, &args.stream).await?;
    let path = format!("/api/v1/streams/{}/kick", encoded(&stream.id));
    let body = reason.map(|reason| json!({ "reason": reason }));
    let done = gateway.change(Method::POST, &path, body).await?;
    tell(gateway, args.api.json, &done, &format!("stream {} has been ended", stream.shown()))
}

/// The gateway that a command about destinations is for.
pub(super) fn api_of(command: &DestinationCommand) -> &ApiArgs {
    use DestinationCommand::{Add, Disable, Enable, List, Move, Remove, Restart};
    match command {
        List { stream }
        | Add { stream, .. }
        | Remove { stream, .. }
        | Enable { stream, .. }
        | Disable { stream, .. }
        | Move { stream, .. }
        | Restart { stream, .. } => &stream.api,
    }
}

/// Lists or changes destinations.
pub(super) async fn destination(gateway: &GatewayClient, command: &DestinationCommand) -> Result<(), CommandFailure> {
    use DestinationCommand::{Add, Disable, Enable, List, Move, Remove, Restart};
    let no_wait = WaitArgs::default();
    let (args, name, wait) = match command {
        List { stream } => return list(gateway, stream).await,
        Remove { stream, name } | Disable { stream, name } => (stream, name, &no_wait),
        Add { stream, name, wait, .. }
        | Enable { stream, name, wait }
        | Move { stream, name, wait, .. }
        | Restart { stream, name, wait } => (stream, name, wait),
    };
    let until = deadline(wait)?;
    let url = match command {
        Add { url, .. } | Move { url, .. } => Some(url_of(url)?),
        _ => None,
    };
    let stream = stream_named(gateway, &args.stream).await?;
    let before = session(&stream, name);
    let all = format!("/api/v1/streams/{}/destinations", encoded(&stream.id));
    let one = format!("{all}/{}", encoded(name));
    let (method, path, body, verb) = match command {
        Add { .. } => (Method::POST, all, Some(json!({ "name": name, "url": url })), "added"),
        Remove { .. } => (Method::DELETE, one, None, "removed"),
        Enable { .. } => (Method::PATCH, one, Some(json!({ "enabled": true })), "switched on"),
        Disable { .. } => (Method::PATCH, one, Some(json!({ "enabled": false })), "switched off"),
        Move { .. } => (Method::PATCH, one, Some(json!({ "url": url })), "moved"),
        Restart { .. } | List { .. } => (Method::POST, format!("{one}/restart"), None, "restarted"),
    };
    let done = gateway.change(method, &path, body).await?;
    let mut said = format!("destination {} of stream {} has been {verb}", named(name), stream.shown());
    if let Some(until) = until {
        let renewed = matches!(command, Restart { .. } | Move { .. });
        becomes_live(gateway, &stream.id, name, before.filter(|_| renewed), until).await?;
        said += ", and is live";
    }
    tell(gateway, args.api.json, &done, &said)
}

/// The marks that tell a session of a destination from the next one: where it leads, and when it became live.
fn session(stream: &ListedStream, name: &str) -> Option<(String, Option<String>, u64)> {
    let found = stream.upstreams.iter().find(|upstream| upstream.name == *name)?;
    Some((found.host.clone(), found.since.clone(), found.reconnects))
}

/// Waits until a destination is live, in another session than `before`.
async fn becomes_live(
    gateway: &GatewayClient,
    id: &str,
    name: &str,
    before: Option<(String, Option<String>, u64)>,
    until: Instant,
) -> Result<(), CommandFailure> {
    let what = format!("waiting for destination {} to become live", named(name));
    let waited = gateway.terminal.watching(&what, async {
        loop {
            let streams = all_streams(gateway).await?;
            let Some(stream) = streams.iter().find(|stream| stream.id == id) else {
                return Err(CommandFailure::Refused("the stream has ended meanwhile".to_owned()));
            };
            let found = stream.upstreams.iter().find(|upstream| upstream.name == *name);
            if found.is_some_and(|found| found.state == "live") && session(stream, name) != before {
                return Ok(());
            }
            again(until, || match found {
                Some(ListedUpstream { state, error, .. }) => {
                    let error = if error.is_empty() { "no error so far" } else { error };
                    // A destination that moves or restarts keeps its old session until then.
                    let now = match state.as_str() {
                        "live" => "still has its session from before".to_owned(),
                        state => format!("is not live but {}", named(state)),
                    };
                    format!("destination {} {now}: {}", named(name), named(error))
                }
                None => format!("destination {} has not begun: its worker does not tell of it", named(name)),
            })
            .await?;
        }
    });
    waited.await
}

/// Waits for the next look; fails with a sentence at the end of the time.
async fn again(until: Instant, left: impl Fn() -> String) -> Result<(), CommandFailure> {
    if now() >= until {
        return Err(CommandFailure::Refused(format!(
            "the order was given, but not carried out in the time of --wait: {}",
            left()
        )));
    }
    sleep_until(Some((now() + LOOK).min(until))).await;
    Ok(())
}

/// The end of the time that a command waits.
fn deadline(wait: &WaitArgs) -> Result<Option<Instant>, CommandFailure> {
    let Some(text) = set(&wait.wait) else { return Ok(None) };
    let time =
        parse_duration(text).map_err(|error| CommandFailure::Usage(format!("--wait: {} is {error}", named(text))))?;
    Ok(Some(now() + time))
}

/// Lists the destinations of a stream: what they should do by the activator's word, and what they do by the worker's.
async fn list(gateway: &GatewayClient, args: &StreamArgs) -> Result<(), CommandFailure> {
    let stream = stream_named(gateway, &args.stream).await?;
    let listed = gateway.get(&format!("/api/v1/streams/{}/destinations", encoded(&stream.id))).await?;
    if args.api.json {
        return print_json(gateway, &listed);
    }
    let destinations: Vec<WantedDestination> = serde_json::from_value(listed).unwrap_or_default();
    let mut table = AlignedTable::new(&["DESTINATION", "HOST", "ENABLED", "STATE", "REQUIRED", "CHANGED"]);
    for destination in &destinations {
        let upstream = stream.upstreams.iter().find(|upstream| upstream.name == destination.name);
        let answer = |yes| Cell::plain(if yes { "yes" } else { "no" });
        let enabled = answer(destination.enabled);
        table.row(vec![
            Cell::foreign(&destination.name),
            Cell::foreign(&destination.host),
            if destination.enabled { enabled } else { enabled.toned(Tone::Dim) },
            Cell::state(upstream.map_or("-", |upstream| &upstream.state)),
            answer(destination.required),
            Cell::plain(if destination.by_api { "by the API" } else { "no" }),
        ]);
    }
    gateway.terminal.print(&table.text(gateway.terminal.coloured))
}

/// The push URL of a destination, from the command line, standard input, or a file.
fn url_of(args: &DestinationUrlArgs) -> Result<String, CommandFailure> {
    if let Some(path) = file(&args.url_file) {
        return read_file(&path).map_err(|error| CommandFailure::Usage(format!("--url-file: {error}")));
    }
    let Some(Hidden(url)) = &args.url else { return Ok(String::new()) };
    if url != "-" {
        return Ok(url.trim().to_owned());
    }
    let mut text = String::new();
    let read = std::io::stdin().take(MOST_URL).read_to_string(&mut text);
    read.map_err(|error| CommandFailure::Usage(format!("the URL cannot be read from standard input: {error}")))?;
    Ok(text.trim().to_owned())
}

/// A name as a part of a path.
fn encoded(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

/// Says what was done.
fn tell(gateway: &GatewayClient, json: bool, done: &Value, said: &str) -> Result<(), CommandFailure> {
    if json { print_json(gateway, done) } else { gateway.terminal.print(&format!("{said}\n")) }
}
