//! The check of everything that a gateway needs, before it serves or beside one that does. In: the settings. Out: a line for each thing that is wrong,
//! with its fix. `finding`, `scaled_object` are pure; the other files look at the machine and the network.
#![expect(clippy::disallowed_methods, reason = "shell: certificates are compared with the clock")]

mod destinations;
mod finding;
mod object_in_force;
mod ports;
mod scaled_object;
mod servers;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;

use liveedgecast_common::clock::utc;
use liveedgecast_common::config::{Problems, read_whole_file};
use liveedgecast_common::random;
use liveedgecast_common::url::PushTemplate;

use self::destinations::{DialTarget, Trust};
use self::finding::{Findings, Weight};
use super::failure::{CommandFailure, USAGE};
use super::terminal::Terminal;
use crate::config::{Args, CheckArgs, Given, Settings, check_file};

/// Destinations that are dialled at once.
const AT_ONCE: usize = 16;
/// Most bytes of a ScaledObject.
const MOST_OBJECT: u64 = 1 << 20;

/// Checks one file, or everything. `mistakes`: those in the names of variables.
pub(super) async fn run(
    args: &Args,
    own: &CheckArgs,
    mistakes: &Problems,
    terminal: &Terminal,
) -> Result<(), CommandFailure> {
    let found = match own.config.as_deref().filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => match one_file(args, path) {
            Err(problems) if !own.json => return Err(CommandFailure::Listed(problems.to_string())),
            Err(problems) => {
                let mut found = Findings::default();
                found.mistakes(&problems);
                found
            }
            Ok(found) => found,
        },
        None => everything(args, own, mistakes, terminal).await?,
    };
    let text = if own.json {
        serde_json::to_string_pretty(&found).unwrap_or_default() + "\n"
    } else {
        found.text(terminal.coloured)
    };
    terminal.print(&text)?;
    match (found.count(Weight::Mistake), found.count(Weight::Fault)) {
        (0, 0) => Ok(()),
        (0, _) => Err(CommandFailure::Said(super::failure::REFUSED)),
        _ => Err(CommandFailure::Said(USAGE)),
    }
}

/// Checks a configuration file, and does nothing else: it may be for another machine.
fn one_file(args: &Args, path: &Path) -> Result<Findings, Problems> {
    let given = Given {
        default_route: !args.push_url.is_empty() || args.push_url_file.is_some(),
        publishers: args.publish_keys.is_some() || args.publish_keys_file.is_some(),
        jwt: args.jwt.is_given(),
        hook: args.on_publish_url.is_some(),
    };
    let file = check_file(path, given)?;
    let mut found = Findings::default();
    found.good(format!(
        "{}: no mistakes; publishers: {}, routes: {}",
        path.display(),
        file.publishers.len(),
        file.routes.len()
    ));
    Ok(found)
}

async fn everything(
    args: &Args,
    own: &CheckArgs,
    mistakes: &Problems,
    terminal: &Terminal,
) -> Result<Findings, CommandFailure> {
    let mut found = Findings::default();
    found.mistakes(mistakes);
    let mut log = Problems::new();
    args.log.resolve(&mut log);
    found.mistakes(&log);
    // A setting with a mistake has a stand-in, so that the rest is checked, too.
    let (settings, problems) = Settings::read(args, random::bytes());
    found.mistakes(&problems);
    if found.findings.is_empty() {
        found.good("configuration: no mistakes");
    }
    found.append(ports::ports(&settings));
    found.append(ports::certificates(args, &settings, utc().0 / 1000));
    if let Some(path) = &own.scaled_object {
        found.append(scaled_object::compare_text(&read(path)?, &settings));
    }
    if let Some(name) = &own.kubernetes {
        let name = name.parse::<object_in_force::ObjectName>().map_err(CommandFailure::Usage)?;
        found.append(terminal.watching("asking Kubernetes", object_in_force::compare(&name, &settings)).await);
    }
    if own.offline {
        return Ok(found);
    }
    let targets = targets(&settings, own.publish);
    let count = targets.len();
    let what = format!("dialling {count} destination{}", if count == 1 { "" } else { "s" });
    let dialled = terminal.watching(&what, dial_all(targets)).await;
    dialled.into_iter().for_each(|of_one| found.append(of_one));
    found.append(terminal.watching("asking servers", servers::servers(&settings)).await);
    Ok(found)
}

fn read(path: &Path) -> Result<String, CommandFailure> {
    if path != Path::new("-") {
        return read_whole_file(path).map_err(|error| CommandFailure::Usage(format!("--scaled-object: {error}")));
    }
    let mut text = String::new();
    let read = std::io::stdin().take(MOST_OBJECT).read_to_string(&mut text);
    read.map_err(|error| CommandFailure::Usage(format!("--scaled-object: standard input cannot be read: {error}")))?;
    Ok(text)
}

/// Every place that a stream may be pushed to, once. `publish`: the dialogue goes on to `publish`.
fn targets(settings: &Settings, publish: bool) -> Vec<DialTarget> {
    let mut all = Vec::new();
    let mut add = |name: String, url: &PushTemplate| {
        let publish = publish && !url.takes_key() && !url.takes_app() && !url.takes_publisher();
        all.push(DialTarget { name, url: url.clone(), publish });
    };
    for (at, url) in settings.push.iter().enumerate() {
        add(format!("RTMP_PUSH_URL {}", at + 1), url);
    }
    for (route, entry) in settings.entries.iter().flat_map(|file| &file.routes) {
        for destination in entry.destinations.iter().filter(|destination| destination.enabled) {
            let name = format!("{route}/{}", destination.name);
            if let Some(backup) = &destination.backup {
                add(format!("{name} (backup)"), &backup.url);
            }
            add(name, &destination.url);
        }
    }
    // The shown text has no key, and one dialogue is enough for all keys of an app, unless they are published.
    let mut seen = BTreeSet::new();
    let key =
        |target: &DialTarget| target.url.fixed_key().filter(|_| target.publish).map(|key| key.expose().to_owned());
    all.retain(|target| seen.insert((target.url.to_string(), key(target))));
    all
}

async fn dial_all(targets: Vec<DialTarget>) -> Vec<Findings> {
    let trust = Trust::read();
    let mut all = Vec::new();
    let mut targets = targets.into_iter();
    loop {
        let batch: Vec<_> =
            targets.by_ref().take(AT_ONCE).map(|target| destinations::dial(target, trust.clone())).collect();
        if batch.is_empty() {
            return all;
        }
        all.extend(together(batch).await);
    }
}

/// The results of several futures that run at once, in their order.
async fn together<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        let mut ready = true;
        for (future, done) in running.iter_mut().filter(|(_, done)| done.is_none()) {
            match future.as_mut().poll(cx) {
                std::task::Poll::Ready(value) => *done = Some(value),
                std::task::Poll::Pending => ready = false,
            }
        }
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    running.into_iter().filter_map(|(_, done)| done).collect()
}
