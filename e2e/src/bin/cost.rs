//! The command line of `liveedgecast_e2e::cost`: measures what a message costs, and compares with the bounds in `e2e/cost.txt`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use clap::Parser;
use liveedgecast_e2e::cost::run::{self, Measurement};
use liveedgecast_e2e::cost::{CostFigure, CostPath, bounds};
use liveedgecast_e2e::publish::root;

/// Counts instructions, allocations and system calls per message, and compares them with the bounds in e2e/cost.txt
#[derive(Debug, Parser)]
struct Args {
    /// Handoffs to measure
    #[arg(long, value_delimiter = ',', default_values_t = ["descriptor".to_owned(), "link".to_owned()])]
    handoffs: Vec<String>,
    /// Print so many functions with the most instructions of their own, for each process
    #[arg(long, default_value_t = 0)]
    functions: usize,
    /// Keep the tools' files in this directory: callgrind_annotate reads PROCESS.1
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Only print
    #[arg(long)]
    no_bounds: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let temporary = tempfile::tempdir()?;
    let directory = args.keep.clone().unwrap_or_else(|| temporary.path().to_owned());
    let mut all = Measurement::default();
    for handoff in ["descriptor", "link"].into_iter().filter(|name| args.handoffs.iter().any(|asked| asked == name)) {
        let measured = run::run(handoff, &directory)?;
        all.figures.extend(measured.figures);
        all.profiles.extend(measured.profiles);
    }
    println!("{}", table(&all.figures));
    for (path, profile) in &all.profiles {
        if args.functions > 0 {
            println!("{}, {}: functions, by instructions of their own per message\n", path.process, path.handoff);
        }
        for (name, count) in profile.functions().into_iter().take(args.functions) {
            let each = |count: u64| count as f64 / Measurement::MESSAGES as f64;
            println!("{:9.1} in {:6.2} calls  {name}", each(count.own), each(count.calls));
        }
        println!();
    }
    if args.no_bounds || args.handoffs.len() < 2 {
        return Ok(());
    }
    let file = root().join("e2e/cost.txt");
    if std::env::var_os("UPDATE_COST").is_some() {
        fs::write(&file, bounds::write(&all.figures))?;
        return Ok(());
    }
    bounds::hold(&fs::read_to_string(&file)?, &all.figures)?;
    println!("All figures keep the bounds of e2e/cost.txt.");
    Ok(())
}

/// The figures per message, a row for each process.
fn table(figures: &[CostFigure]) -> String {
    let mut rows: BTreeMap<CostPath, Vec<&CostFigure>> = BTreeMap::new();
    for figure in figures {
        rows.entry(figure.path).or_default().push(figure);
    }
    let mut out = "| per message | instructions | allocations | system calls |\n| --- | --- | --- | --- |\n".to_owned();
    for (path, figures) in rows {
        let value = |name: &str| figures.iter().find(|figure| figure.name == name).map_or(0.0, |figure| figure.value);
        let mut calls: Vec<_> = figures.iter().filter(|it| !NOT_CALLS.contains(&it.name.as_str())).collect();
        calls.sort_by(|a, b| b.value.total_cmp(&a.value));
        let calls: Vec<_> = calls.iter().map(|call| format!("{} {:.2}", call.name, call.value)).collect();
        out += &format!(
            "| {}, {} | {:.0} | {:.2} | {:.2}: {} |\n",
            path.process,
            path.handoff,
            value("instructions"),
            value("allocations"),
            value("calls"),
            calls.join(", ")
        );
    }
    out
}

/// Figures that are not the count of one system call.
const NOT_CALLS: [&str; 3] = ["instructions", "allocations", "calls"];
