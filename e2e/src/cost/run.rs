//! A measurement: the input through a relay under each tool. In: a handoff. Out: figures per message, and a profile of each process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::callgrind::Profile;
use super::lockstep::LockStep;
use super::relay::{CountedRelay, Tool, until_all_sleep};
use super::{CostFigure, CostPath, strace};

/// Publishers, so that work for each stream at every message would show.
const PUBLISHERS: usize = 4;
/// Messages of a round: those of two seconds of each stream, one keyframe among them.
const ROUND: usize = 146 * PUBLISHERS;
/// Rounds before the count begins: as long as the replay window, so that every buffer has found its size.
const WARM_UP: usize = 2;
/// Rounds that are counted.
const ROUNDS: usize = 5;
/// Attempts at a measurement.
const TRIES: u32 = 5;

/// The result of a measurement.
#[derive(Debug, Default)]
pub struct Measurement {
    /// Costs per message.
    pub figures: Vec<CostFigure>,
    /// Profile of a round in each process.
    pub profiles: Vec<(CostPath, Profile)>,
}

impl Measurement {
    /// Messages in a profile.
    pub const MESSAGES: usize = ROUND;
}

/// Measures a handoff with both tools. `directory` gets the tools' files.
///
/// # Errors
/// A tool is not there or not permitted, or a message does not arrive.
pub fn run(handoff: &'static str, directory: &Path) -> anyhow::Result<Measurement> {
    let mut measurement = Measurement::default();
    for tool in [Tool::Callgrind, Tool::Strace] {
        let here = directory.join(format!("{handoff}-{tool:?}").to_lowercase());
        fs::create_dir_all(&here)?;
        // A start has limits of time, which a program under valgrind on a busy machine may miss. It is no part of what is counted.
        let mut tries = (1..=TRIES).map(|attempt| {
            let once = once(tool, handoff, &here);
            once.inspect_err(|error| eprintln!("attempt {attempt} of {TRIES}: {error:#}"))
        });
        let counted = tries.find(Result::is_ok).transpose()?;
        let counted = counted.with_context(|| format!("{handoff} under {tool:?} was not measured"))?;
        measurement.figures.extend(counted.figures);
        measurement.profiles.extend(counted.profiles);
    }
    Ok(measurement)
}

fn once(tool: Tool, handoff: &'static str, directory: &Path) -> anyhow::Result<Measurement> {
    let mut measurement = Measurement::default();
    let mut input = LockStep::new();
    let relay = CountedRelay::start(tool, handoff, input.upstream, directory)?;
    let paths = ["activator", "worker"].map(|process| CostPath { process, handoff });
    let counted = count(&mut input, &relay, tool, paths, &mut measurement);
    counted.with_context(|| format!("the relay's log:\n{}", relay.log()))?;
    Ok(measurement)
}

fn count(
    input: &mut LockStep,
    relay: &CountedRelay,
    tool: Tool,
    paths: [CostPath; 2],
    measurement: &mut Measurement,
) -> anyhow::Result<()> {
    for _ in 0..PUBLISHERS {
        input.publish(relay.rtmp())?;
    }
    let processes = relay.processes()?;
    let ids = processes.map(|(id, _)| id);
    let idle = || until_all_sleep(&ids);
    input.pass(WARM_UP * ROUND, idle)?;
    if tool == Tool::Callgrind {
        ids.into_iter().try_for_each(|id| tell(id, "instrumentation on"))?;
    }
    let mut rounds: [Vec<Round>; 2] = Default::default();
    let mut read = processes.map(|(_, file)| file.metadata().map_or(0, |file| file.len()));
    for number in 1..=ROUNDS {
        input.pass(ROUND, idle)?;
        for (at, (id, file)) in processes.into_iter().enumerate() {
            rounds[at].push(match tool {
                Tool::Callgrind => {
                    // It writes to FILE.1 first, and counts from 0 again.
                    tell(id, "dump")?;
                    let profile = Profile::parse(&text(&file.with_extension(number.to_string()), 0)?);
                    let costs = [("instructions", profile.instructions()), ("allocations", profile.allocations())];
                    Round { costs: costs.map(|(name, count)| (name.to_owned(), count)).into(), profile: Some(profile) }
                }
                Tool::Strace => {
                    let lines = text(file, read[at])?;
                    read[at] += lines.len() as u64;
                    let mut costs = strace::parse(&lines);
                    costs.insert("calls".to_owned(), costs.values().sum());
                    Round { costs, profile: None }
                }
            });
        }
    }
    for (path, rounds) in paths.into_iter().zip(rounds) {
        measurement.figures.extend(least(path, &rounds));
        let least = rounds.into_iter().filter_map(|round| round.profile).min_by_key(Profile::instructions);
        measurement.profiles.extend(least.map(|profile| (path, profile)));
    }
    Ok(())
}

/// Counts of a round in one process.
#[derive(Debug, Default)]
struct Round {
    costs: BTreeMap<String, u64>,
    profile: Option<Profile>,
}

/// The figures of a process: of each kind the least of all rounds, because work that follows a clock, such as reports, falls into some rounds
/// and not into others, and is no part of a message's cost.
fn least(path: CostPath, rounds: &[Round]) -> Vec<CostFigure> {
    let names: BTreeSet<&String> = rounds.iter().flat_map(|round| round.costs.keys()).collect();
    let count =
        |name: &String| rounds.iter().map(|round| round.costs.get(name).copied().unwrap_or(0)).min().unwrap_or(0);
    let figure = |name: &String| CostFigure { path, name: name.clone(), value: count(name) as f64 / ROUND as f64 };
    names.into_iter().map(figure).collect()
}

/// The text of a file from an offset on.
fn text(file: &Path, from: u64) -> anyhow::Result<String> {
    let bytes = fs::read(file).with_context(|| file.display().to_string())?;
    let from = usize::try_from(from)?.min(bytes.len());
    Ok(String::from_utf8_lossy(&bytes[from..]).into_owned())
}

/// Gives a command to callgrind in a process, and waits until it is carried out.
fn tell(process: u32, command: &str) -> anyhow::Result<()> {
    let said =
        Command::new("vgdb").arg(format!("--pid={process}")).args(command.split(' ')).output().context("vgdb")?;
    ensure!(said.status.success(), "vgdb {command}: {}", String::from_utf8_lossy(&said.stderr));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_round_with_the_least() {
        let round = |costs: &[(&str, u64)]| Round {
            costs: costs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            profile: None,
        };
        let messages = ROUND as u64;
        let rounds = [round(&[("recvfrom", 2 * messages), ("brk", 1)]), round(&[("recvfrom", messages)])];
        let figures = least(CostPath { process: "worker", handoff: "link" }, &rounds);
        let values: Vec<_> = figures.iter().map(|figure| (figure.name.as_str(), figure.value)).collect();
        assert_eq!(values, [("brk", 0.0), ("recvfrom", 1.0)]);
    }
}
