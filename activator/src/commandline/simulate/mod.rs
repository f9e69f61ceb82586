//! The cost that other ways of keeping workers would have had. In: a history, from a table or from Prometheus. Out: a table, JSON, a picture. `history`, `policy`,
//! `site` and `chart` are pure; this file is their shell.
//!
//! Note: a site has workers of its own, as an edge has. Streams of several sites share none.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: files, the origin of virtual time, and the pace of its progress"
)]

mod chart;
mod history;
mod policy;
mod site;

use std::io::Read as _;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use liveedgecast_common::clock::{now, utc};
use liveedgecast_common::config::{Problems, parse_duration};
use liveedgecast_common::setting::{choice, number, set, time};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use self::chart::{Bar, grouped};
use self::history::{Broadcast, StreamHistory};
use self::policy::{KeepingPolicy, Window};
use self::site::{SimulatedFleet, SimulationRules, SiteCost, simulate};
use super::failure::{CommandFailure, named};
use super::table::{AlignedTable, Cell};
use super::terminal::Terminal;
use super::times::{parse_time, short};
use crate::config::{Args, HttpUrl, SimulateArgs};
use crate::net::{HttpCall, HttpClient};

/// Most bytes of a table on standard input or in a file: ten thousand sites with a hundred streams a day, for a month, have some 2 GB.
const MOST_TABLE: u64 = 4 << 30;
/// Most bytes of an answer of Prometheus.
const MOST_ANSWER: usize = 1 << 30;
const PROMETHEUS: Duration = Duration::from_secs(120);
/// The streams of a gateway, whatever their state is.
const QUERY: &str = "sum(liveedgecast_streams)";

/// Reads the history, and compares the policies.
pub(super) async fn run(args: &Args, own: &SimulateArgs, terminal: &Terminal) -> Result<(), CommandFailure> {
    let rules = rules(args, own)?;
    let policies = policies(own)?;
    let history = match (&own.history, set(&own.prometheus)) {
        (Some(path), None) => read(path)?,
        (None, Some(url)) => {
            let work = ask(url, own);
            terminal.watching("waiting for Prometheus", work).await?
        }
        _ => {
            let text =
                "there is no history: name a table with commas (START,END,SITE), or a server with --prometheus URL";
            return Err(CommandFailure::Usage(text.to_owned()));
        }
    };
    let rules = SimulationRules { from: history.from, to: history.to, ..rules };
    let costs = costs(&history, &policies, &rules, terminal);
    if let Some(path) = &own.svg {
        let picture = picture(&history, &policies, &costs, &rules);
        std::fs::write(path, picture)
            .map_err(|error| CommandFailure::Usage(format!("--svg: {} cannot be written: {error}", path.display())))?;
    }
    let all = Totals::of(&history);
    if own.json {
        return terminal.print(&format!("{:#}\n", document(&all, &policies, &costs, &rules)));
    }
    let mut text = format!("{}\n\n", sentence(&all, &rules));
    text += &comparison(&policies, &costs).text(terminal.coloured);
    terminal.print(&text)
}

/// The numbers of the settings, which those of the command replace.
fn rules(args: &Args, own: &SimulateArgs) -> Result<SimulationRules, CommandFailure> {
    let mut problems = Problems::new();
    let p = &mut problems;
    let kinds = [("process", SimulatedFleet::Process), ("external", SimulatedFleet::External)];
    let fleet = choice("--fleet", &own.fleet.clone().or_else(|| args.fleet.clone()), &kinds, p);
    let or = |own: &Option<String>, setting: &Option<String>| own.clone().or_else(|| setting.clone());
    // KEDA's own cool-down, which is no setting of ours; a start on Kubernetes as the benchmark has it.
    let (most, cooldown, start) = match fleet {
        SimulatedFleet::Process => (4, or(&own.cooldown, &args.cooldown), "50ms"),
        SimulatedFleet::External => (20, own.cooldown.clone().or_else(|| Some("300s".to_owned())), "450ms"),
    };
    let rules = SimulationRules {
        fleet,
        capacity: number("--capacity", &or(&own.capacity, &args.capacity), 50, 1, 10_000, p) as usize,
        most: number("--max-workers", &or(&own.max_workers, &args.max_workers), most, 1, 1000, p) as usize,
        cooldown: time("--cooldown", &cooldown, "30s", Duration::ZERO, p),
        start_time: time("--start-time", &own.start_time, start, Duration::ZERO, p),
        from: 0,
        to: 0,
        origin: now(),
    };
    // The fleet kills a worker that has not registered by then.
    if fleet == SimulatedFleet::Process && rules.start_time >= Duration::from_secs(10) {
        p.add("--start-time", "is 10s or more, and a process that has not registered by then is killed: give the time of --fleet external");
    }
    problems.into_result().map(|()| rules).map_err(|problems| CommandFailure::Listed(problems.to_string()))
}

fn policies(own: &SimulateArgs) -> Result<Vec<KeepingPolicy>, CommandFailure> {
    let windows = if own.cron.is_empty() { &["08:00-22:00".to_owned()][..] } else { &own.cron[..] };
    let window = |text: &String| {
        Window::parse(text).map_err(|error| CommandFailure::Usage(format!("--cron: {} {error}", named(text))))
    };
    let windows = windows.iter().map(window).collect::<Result<Vec<_>, _>>()?;
    Ok(vec![KeepingPolicy::Zero, KeepingPolicy::Warm(1), KeepingPolicy::Cron(windows), KeepingPolicy::AlwaysOn])
}

/// Reads a table.
fn read(path: &Path) -> Result<StreamHistory, CommandFailure> {
    let shown = path.display();
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(MOST_TABLE).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MOST_TABLE).read_to_string(&mut text))
    };
    read.map_err(|error| CommandFailure::Usage(format!("{shown} cannot be read: {error}")))?;
    history::from_table(&text).map_err(|error| CommandFailure::Usage(format!("{shown}: {error}")))
}

/// Asks Prometheus for the range.
async fn ask(url: &str, own: &SimulateArgs) -> Result<StreamHistory, CommandFailure> {
    let mistake = |setting: &str, text: &str| CommandFailure::Usage(format!("{setting}: {text}"));
    let moment = |setting: &str, text: &Option<String>, default: u64| match set(text) {
        None => Ok(default),
        Some(text) => parse_time(text).ok_or_else(|| mistake(setting, "is no time: write it as 2025-01-31T12:00:00Z")),
    };
    let step = set(&own.step).map_or(Ok(Duration::from_secs(60)), parse_duration);
    let step = step.map_err(|error| CommandFailure::Usage(format!("--step: is {error}")))?;
    let to = moment("--to", &own.to, utc().0)?;
    let from = moment("--from", &own.from, to.saturating_sub(30 * 86_400_000))?;
    if from >= to || step.is_zero() {
        return Err(mistake("--from", "is not before --to, or --step is 0"));
    }
    // Prometheus answers 11,000 samples of a row at most.
    let part = u64::try_from(step.as_millis()).unwrap_or(u64::MAX).saturating_mul(10_000);
    let (client, mut rows) = (HttpClient::new(), std::collections::BTreeMap::<String, Vec<(u64, u64)>>::new());
    let query = utf8_percent_encode(set(&own.query).unwrap_or(QUERY), NON_ALPHANUMERIC).to_string();
    let mut begin = from;
    while begin < to {
        let end = (begin.saturating_add(part)).min(to);
        let address = format!(
            "{}/api/v1/query_range?query={query}&start={}&end={}&step={}",
            url.trim_end_matches('/'),
            seconds(begin),
            seconds(end),
            step.as_secs_f64()
        );
        let to = HttpUrl::parse(&address).map_err(|error| mistake("--prometheus", &format!("the address {error}")))?;
        let call = HttpCall {
            method: hyper::Method::GET,
            to: &to,
            headers: &[],
            body: bytes::Bytes::new(),
            within: PROMETHEUS,
            most: MOST_ANSWER,
        };
        let reply = client.send(call).await;
        let reply = reply.map_err(|error| {
            CommandFailure::Away(format!("{to}: {error}: start Prometheus, or correct --prometheus"))
        })?;
        let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        if answer["status"] != "success" {
            let why = answer["error"].as_str().unwrap_or("it does not answer as Prometheus does");
            return Err(CommandFailure::Refused(format!("{to}: {}: correct --query or --prometheus", named(why))));
        }
        for row in answer["data"]["result"].as_array().into_iter().flatten() {
            let site = match set(&own.site_label) {
                Some(label) => row["metric"][label].as_str().unwrap_or_default().to_owned(),
                None => row["metric"].to_string(),
            };
            let samples = row["values"].as_array().into_iter().flatten().filter_map(sample);
            let all = rows.entry(site).or_default();
            // The end of one part is the beginning of the next.
            let last = all.last().map(|(at, _)| *at);
            all.extend(samples.filter(|(at, _)| last.is_none_or(|last| *at > last)));
        }
        begin = end;
    }
    let rows: Vec<_> = rows.into_iter().collect();
    history::from_samples(&rows).map_err(|_| {
        CommandFailure::Refused("Prometheus has no stream in that time: look at --query, --from and --to".to_owned())
    })
}

fn seconds(millis: u64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

/// A sample of Prometheus: a time in seconds, and a number as text.
fn sample(value: &Value) -> Option<(u64, u64)> {
    let (at, count) = (value.get(0)?.as_f64()?, value.get(1)?.as_str()?.parse::<f64>().ok()?);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "floats saturate, and NaN is 0")]
    let whole = |number: f64| number.round() as u64;
    Some((whole(at * 1000.0), whole(count)))
}

/// The cost of every policy over all sites, computed on all processors.
fn costs(
    history: &StreamHistory,
    policies: &[KeepingPolicy],
    rules: &SimulationRules,
    terminal: &Terminal,
) -> Vec<SiteCost> {
    /// Sites that a thread takes at once.
    const BATCH: usize = 16;
    let sites: Vec<&Vec<Broadcast>> = history.sites.values().collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let sums = Mutex::new(vec![SiteCost::default(); policies.len()]);
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(sites.len().max(1));
    let work = |shows: bool| {
        let mut sum = vec![SiteCost::default(); policies.len()];
        loop {
            let first = next.fetch_add(BATCH, Ordering::Relaxed);
            let Some(batch) = sites.get(first..).filter(|rest| !rest.is_empty()) else { break };
            for site in &batch[..batch.len().min(BATCH)] {
                for (sum, policy) in sum.iter_mut().zip(policies) {
                    *sum = sum.and(simulate(site, policy, rules));
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            if shows {
                terminal.bar("sites", done.load(Ordering::Relaxed), sites.len());
            }
        }
        let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
        sums.iter_mut().zip(sum).for_each(|(all, own)| *all = all.and(own));
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| work(false));
        }
        work(true);
    });
    terminal.clear_bar();
    sums.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The sums of a history.
struct Totals {
    sites: usize,
    streams: usize,
    stream_hours: f64,
    days: f64,
}

impl Totals {
    fn of(history: &StreamHistory) -> Self {
        let all = || history.sites.values().flatten();
        Self {
            sites: history.sites.len(),
            streams: all().count(),
            stream_hours: all().map(|stream| stream.length().as_secs_f64()).sum::<f64>() / 3600.0,
            days: Duration::from_millis(history.to - history.from).as_secs_f64() / 86_400.0,
        }
    }
}

fn hours(cost: &SiteCost) -> f64 {
    Duration::from_millis(cost.worker_millis).as_secs_f64() / 3600.0
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mean_wait(cost: &SiteCost) -> Duration {
    let cold = cost.cold_starts.max(1) as f64;
    Duration::from_secs_f64(Duration::from_millis(cost.waited_millis).as_secs_f64() / cold)
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn sentence(all: &Totals, rules: &SimulationRules) -> String {
    let s = |count: usize| if count == 1 { "" } else { "s" };
    format!(
        "{} stream{} at {} site{} in {:.1} days, {} hours together; {} streams a worker, {} to start one, {} of cool-down",
        grouped(all.streams as f64),
        s(all.streams),
        grouped(all.sites as f64),
        s(all.sites),
        all.days,
        grouped(all.stream_hours),
        rules.capacity,
        short(rules.start_time),
        short(rules.cooldown),
    )
}

fn comparison(policies: &[KeepingPolicy], costs: &[SiteCost]) -> AlignedTable {
    let headings = [
        "POLICY",
        ">WORKER-HOURS",
        ">OF ALWAYS ON",
        ">COLD STARTS",
        ">WAIT, MEAN",
        ">WAIT, LONGEST",
        ">NOT SERVED",
        ">WORKERS AT MOST",
    ];
    let mut table = AlignedTable::new(&headings);
    let whole = costs.last().map_or(0.0, hours);
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let count = |number: u64| Cell::plain(grouped(number as f64));
    for (policy, cost) in policies.iter().zip(costs) {
        let share = if whole > 0.0 { format!("{:.1} %", 100.0 * hours(cost) / whole) } else { "-".to_owned() };
        table.row(vec![
            Cell::plain(policy.name()),
            Cell::plain(grouped(hours(cost))),
            Cell::plain(share),
            count(cost.cold_starts),
            Cell::plain(short(mean_wait(cost))),
            Cell::plain(short(Duration::from_millis(cost.longest_millis))),
            count(cost.unserved),
            count(cost.most_workers),
        ]);
    }
    table
}

fn document(all: &Totals, policies: &[KeepingPolicy], costs: &[SiteCost], rules: &SimulationRules) -> Value {
    let seconds = |millis: u64| Duration::from_millis(millis).as_secs_f64();
    let policies = policies.iter().zip(costs).map(|(policy, cost)| {
        json!({
            "policy": policy.name(),
            "worker_seconds": seconds(cost.worker_millis),
            "cold_starts": cost.cold_starts,
            "waited_seconds": seconds(cost.waited_millis),
            "longest_wait_seconds": seconds(cost.longest_millis),
            "not_served": cost.unserved,
            "most_workers": cost.most_workers,
        })
    });
    json!({
        "sites": all.sites,
        "streams": all.streams,
        "stream_seconds": all.stream_hours * 3600.0,
        "seconds": seconds(rules.to - rules.from),
        "policies": policies.collect::<Vec<_>>(),
    })
}

fn picture(history: &StreamHistory, policies: &[KeepingPolicy], costs: &[SiteCost], rules: &SimulationRules) -> String {
    let bars: Vec<Bar> = policies
        .iter()
        .zip(costs)
        .map(|(policy, cost)| Bar { name: policy.name(), worker_hours: hours(cost), cold_starts: cost.cold_starts })
        .collect();
    chart::draw("What each policy would have cost", &sentence(&Totals::of(history), rules), &bars)
}
