//! The command line of the benchmark, which `liveedgecast_e2e::bench` describes.

use std::time::Duration;

use clap::Parser;
use liveedgecast_e2e::bench::load::{self, BenchLoad};
use liveedgecast_e2e::bench::publisher::BitRate;
use liveedgecast_e2e::bench::relay::{self, RelayKind};
use liveedgecast_e2e::bench::{BenchClock, cold, machine, payload, report};

/// Measures LiveEdgeCast and its peers side by side on this machine. Build everything in release mode first: tools/bench.sh does.
#[derive(Debug, Parser)]
struct Args {
    /// Streams at once
    #[arg(long, default_value_t = 100)]
    streams: u32,
    /// Kilobits per second of each
    #[arg(long, default_value_t = 2500)]
    kbps: u64,
    /// Seconds of measurement
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Repetitions, each with every relay once
    #[arg(long, default_value_t = 3)]
    repeat: u32,
    /// Relays to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [RelayKind::Direct, RelayKind::Floor, RelayKind::Haproxy, RelayKind::Nginx, RelayKind::Descriptor, RelayKind::Link])]
    relays: Vec<RelayKind>,
    /// Measure this many cold starts with each of LiveEdgeCast's two handoffs, instead of load
    #[arg(long)]
    cold: Option<u32>,
    /// Measure this many cold starts on the Kubernetes cluster of KUBECONFIG instead; needs the environment of tools/test.sh --cluster
    #[arg(long)]
    cluster: Option<u32>,
    /// Do not pin the relay to one core and the generator to another
    #[arg(long)]
    unpinned: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let machine = machine::header();
    liveedgecast_common::runtime::raise_open_files();
    if let Some(runs) = args.cluster {
        payload::prepare();
        println!("{}", liveedgecast_e2e::bench::cluster::run(runs, BenchClock::new())?);
        return Ok(());
    }
    let cores = std::thread::available_parallelism()?.get();
    let pinned = !args.unpinned && cores > 1 && args.cold.is_none();
    if pinned {
        relay::pin(1)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run(&args, &machine, pinned.then_some(0)))
}

async fn run(args: &Args, machine: &str, core: Option<usize>) -> anyhow::Result<()> {
    let clock = BenchClock::new();
    payload::prepare();
    if let Some(runs) = args.cold {
        let mut rows = Vec::new();
        for kind in args.relays.iter().copied().filter(|kind| kind.ours()) {
            rows.push((kind, cold::run(kind, runs, clock).await?));
        }
        println!("{machine}\n\n{}", cold::table(&rows));
        return Ok(());
    }
    let time = Duration::from_secs(args.seconds);
    let load = BenchLoad { streams: args.streams, rate: BitRate { bits: args.kbps * 1000 }, time };
    let mut repetitions = Vec::new();
    for repetition in 0..args.repeat {
        let mut rows = Vec::new();
        for at in 0..args.relays.len() {
            // Every repetition begins with another relay, so that no relay is always the first on a cold machine.
            let kind = args.relays[(at + repetition as usize) % args.relays.len()];
            eprintln!("repetition {}: {}", repetition + 1, kind.as_str());
            rows.push(load::run(kind, load, clock, core).await?);
        }
        repetitions.push(rows);
    }
    println!(
        "{machine}\n{} streams of {} kbps, {} s, {} repetitions\n",
        args.streams, args.kbps, args.seconds, args.repeat
    );
    println!("{}", report::table(&repetitions));
    Ok(())
}
