//! The command line of the benchmark, which `liveedgecast_e2e::bench` describes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use liveedgecast_e2e::bench::chart::{self, ChartFigure};
use liveedgecast_e2e::bench::load::{self, BenchLoad, Cores, Row};
use liveedgecast_e2e::bench::relay::{self, RelayKind, Subject};
use liveedgecast_e2e::bench::schedule::MediaRate;
use liveedgecast_e2e::bench::starts::{self, StartsLoad};
use liveedgecast_e2e::bench::{BenchClock, cold, machine, most, payload, report};

/// Measures LiveEdgeCast and its peers side by side on this machine. Build everything in release mode first: tools/bench.sh does.
#[derive(Debug, Parser)]
struct Args {
    /// Streams at once; with --charts a list, otherwise the first of it
    #[arg(long, value_delimiter = ',', default_values_t = [100])]
    streams: Vec<u32>,
    /// Kilobits per second of each; less than 256 is a stream without audio
    #[arg(long, default_value_t = 2500)]
    kbps: u64,
    /// Frames per second of each
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1000))]
    fps: u64,
    /// Seconds of measurement
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Repetitions, each with every relay once
    #[arg(long, default_value_t = 3)]
    repeat: u32,
    /// Relays to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [RelayKind::Direct, RelayKind::Floor, RelayKind::Haproxy, RelayKind::Nginx, RelayKind::Descriptor, RelayKind::Link])]
    relays: Vec<RelayKind>,
    /// Further rows of LiveEdgeCast that push each stream to this many sinks
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    destinations: u32,
    /// Further rows in which the last of these sinks reads nothing
    #[arg(long)]
    stall: bool,
    /// Further rows of LiveEdgeCast whose sinks are a route of a configuration file
    #[arg(long)]
    routes: bool,
    /// Further rows of LiveEdgeCast with these arguments of the activator, separated by blanks
    #[arg(long, value_name = "ARGUMENTS", allow_hyphen_values = true)]
    ours_args: Option<String>,
    /// Measure 400 streams, unless --streams says otherwise, through LiveEdgeCast alone, and again with three pages open and a scrape every 5 s: the
    /// column `x plain` is the ratio
    #[arg(long)]
    visibility: bool,
    /// Measure starts beside live streams, this many a second, instead of load
    #[arg(long, value_name = "PER_SECOND", num_args = 0..=1, default_missing_value = "50")]
    starts: Option<u32>,
    /// Find the most streams that one core carries, instead
    #[arg(long)]
    most: bool,
    /// Measure each number of --streams, 50,100,200,400 unless given, and write charts and figures.csv there
    #[arg(long, value_name = "FOLDER")]
    charts: Option<PathBuf>,
    /// Draw the charts of a folder again, from its figures.csv
    #[arg(long, value_name = "FOLDER")]
    redraw: Option<PathBuf>,
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

impl Args {
    fn rate(&self) -> MediaRate {
        MediaRate { bits: self.kbps * 1000, fps: self.fps }
    }

    /// The rows: every relay as it is, then LiveEdgeCast with each change that was asked for.
    fn subjects(&self) -> Vec<Subject> {
        let mut subjects: Vec<Subject> = self.relays.iter().copied().map(Subject::plain).collect();
        let destinations = self.destinations as usize;
        for kind in self.relays.iter().copied().filter(|kind| kind.ours()) {
            if destinations > 1 {
                subjects.push(Subject { destinations, ..Subject::plain(kind) });
            }
            if self.stall {
                subjects.push(Subject { destinations: destinations.max(2), stall: true, ..Subject::plain(kind) });
            }
            if self.routes {
                subjects.push(Subject { routes: true, destinations, ..Subject::plain(kind) });
            }
            if self.visibility {
                subjects.push(Subject { watched: true, ..Subject::plain(kind) });
            }
            if let Some(arguments) = &self.ours_args {
                let arguments = arguments.split_whitespace().map(str::to_owned).collect();
                subjects.push(Subject { arguments, ..Subject::plain(kind) });
            }
        }
        subjects
    }
}

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if args.visibility {
        args.relays.retain(|kind| kind.ours());
        if args.streams == [100] {
            args.streams = vec![400];
        }
    }
    let machine = machine::header();
    liveedgecast_common::runtime::raise_open_files();
    if let Some(folder) = &args.redraw {
        let (machine, figures) = chart::read(&fs::read_to_string(folder.join("figures.csv"))?)?;
        return draw(folder, &machine, &figures);
    }
    payload::prepare();
    if let Some(runs) = args.cluster {
        println!("{}", liveedgecast_e2e::bench::cluster::run(runs, BenchClock::new())?);
        return Ok(());
    }
    let available = std::thread::available_parallelism()?.get();
    let pinned = !args.unpinned && available > 1 && args.cold.is_none();
    let cores = pinned.then_some(Cores { relay: 0, generator: 1 });
    if let Some(cores) = cores {
        relay::pin(cores.generator)?;
    }
    // A loop that is busy asks the kernel for events after a few tasks, not after 61: the timer of the publishers is one of them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(8).build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run(&args, &machine, cores))
}

async fn run(args: &Args, machine: &str, cores: Option<Cores>) -> anyhow::Result<()> {
    let clock = BenchClock::new();
    let (subjects, rate) = (args.subjects(), args.rate());
    let streams = args.streams.first().copied().unwrap_or(100);
    if let Some(runs) = args.cold {
        let mut rows = Vec::new();
        for kind in args.relays.iter().copied().filter(|kind| kind.ours()) {
            rows.push((kind, cold::run(kind, runs, clock).await?));
        }
        println!("{machine}\n\n{}", cold::table(&rows));
        return Ok(());
    }
    if let Some(folder) = &args.charts {
        return charts(args, folder, machine, clock, cores).await;
    }
    let media = format!("{streams} streams of {} kbps, {} frames a second", args.kbps, args.fps);
    if args.most {
        let mut all = Vec::new();
        for subject in &subjects {
            all.push(most::run(subject, (streams, rate), clock, cores).await?);
        }
        println!("{machine}\n{} kbps, {} frames a second\n\n{}", args.kbps, args.fps, most::table(&all));
        return Ok(());
    }
    if let Some(per_second) = args.starts {
        let seconds = u32::try_from(args.seconds)?;
        let load = StartsLoad { live: streams, per_second, seconds, rate };
        let mut repetitions = Vec::new();
        for repetition in 0..args.repeat {
            let mut rows = Vec::new();
            for subject in rotated(&subjects, repetition) {
                rows.push(starts::run(subject, load, clock, cores).await?);
            }
            repetitions.push(rows);
        }
        println!("{machine}\n{media}; {per_second} starts a second, {seconds} s, {} repetitions\n", args.repeat);
        println!("{}", starts::table(&subjects, &repetitions));
        return Ok(());
    }
    let repetitions = loads(args, &subjects, streams, clock, cores).await?;
    println!("{machine}\n{media}, {} s, {} repetitions\n", args.seconds, args.repeat);
    println!("{}", report::tables(&subjects, &repetitions));
    Ok(())
}

/// The subjects of a repetition: each begins with another relay, so that no relay is always the first on a cold machine.
fn rotated(subjects: &[Subject], repetition: u32) -> impl Iterator<Item = &Subject> {
    let order = (0..subjects.len()).map(move |at| &subjects[(at + repetition as usize) % subjects.len()]);
    order.inspect(move |subject| eprintln!("repetition {}: {}", repetition + 1, subject.name()))
}

async fn loads(
    args: &Args,
    subjects: &[Subject],
    streams: u32,
    clock: BenchClock,
    cores: Option<Cores>,
) -> anyhow::Result<Vec<Vec<Row>>> {
    let load = BenchLoad { streams, rate: args.rate(), time: Duration::from_secs(args.seconds) };
    let mut repetitions = Vec::new();
    for repetition in 0..args.repeat {
        let mut rows = Vec::new();
        for subject in rotated(subjects, repetition) {
            rows.push(load::run(subject, load, clock, cores).await?);
        }
        repetitions.push(rows);
    }
    Ok(repetitions)
}

async fn charts(
    args: &Args,
    folder: &Path,
    machine: &str,
    clock: BenchClock,
    cores: Option<Cores>,
) -> anyhow::Result<()> {
    let steps = if args.streams.len() > 1 { args.streams.as_slice() } else { &[50, 100, 200, 400] };
    ensure!(args.repeat > 0 && !args.relays.is_empty(), "nothing to draw");
    let (subjects, mut figures) = (args.subjects(), Vec::new());
    fs::create_dir_all(folder)?;
    println!("{machine}\n{} kbps, {} frames a second, {} s", args.kbps, args.fps, args.seconds);
    for streams in steps {
        let repetitions = loads(args, &subjects, *streams, clock, cores).await?;
        println!("\n{streams} streams\n\n{}", report::tables(&subjects, &repetitions));
        figures.extend(repetitions.iter().flatten().map(|row| ChartFigure::of(row, *streams)));
        // After each step, so that a run that is ended early has drawn something.
        fs::write(folder.join("figures.csv"), chart::csv(machine, &figures))?;
        draw(folder, machine, &figures)?;
    }
    Ok(())
}

fn draw(folder: &Path, machine: &str, figures: &[ChartFigure]) -> anyhow::Result<()> {
    for (name, svg) in chart::charts(machine, figures) {
        fs::write(folder.join(name), svg)?;
    }
    Ok(())
}
