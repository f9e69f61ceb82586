//! Costs of processes as the kernel reports them. In: process ids. Out: CPU time and memory of a process tree, ended children included.

use std::collections::BTreeMap;
use std::fs;

use rustix::time::{ClockId, clock_gettime};

/// CPU seconds and memory of a process and all its descendants.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// CPU time in user and system mode, seconds, including children that have ended and were waited for.
    pub cpu: f64,
    /// Resident memory, bytes, including `shared`.
    pub resident: u64,
    /// Resident shared memory (the replay windows), bytes; counted for the tree at most as often as it is mapped.
    pub shared: u64,
    /// Processes alive.
    pub processes: usize,
}

struct Stat {
    parent: u32,
    ticks: u64,
    children: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may contain any character.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    // utime, stime, cutime, cstime are fields 14 to 17 of proc(5), the first after the name being 3.
    let (ticks, children) = (number(11)? + number(12)?, number(13)? + number(14)?);
    Some(Stat { parent: u32::try_from(number(1)?).ok()?, ticks, children })
}

/// CPU seconds of the threads of a process that are alive, to the nanosecond.
fn threads(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    // The first field of schedstat; a kernel without it leaves the ticks of `stat`.
    let nanoseconds = threads.filter_map(|thread| first(&fs::read_to_string(thread.path().join("schedstat")).ok()?));
    nanoseconds.sum::<u64>() as f64 / 1e9
}

fn first(fields: &str) -> Option<u64> {
    fields.split_whitespace().next()?.parse().ok()
}

/// `pid` and its descendants that are alive.
#[must_use]
pub fn tree(pid: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some(stat) = stat(id) {
            children.entry(stat.parent).or_default().push(id);
        }
    }
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(&next) = all.get(at) {
        all.extend(children.get(&next).into_iter().flatten());
        at += 1;
    }
    all
}

/// The cost of `pid` and its descendants now.
#[must_use]
pub fn cost(pid: u32) -> Cost {
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    let mut cost = Cost::default();
    for id in tree(pid) {
        let Some(stat) = stat(id) else { continue };
        // Ticks are rounded down, but count threads that have ended.
        cost.cpu += threads(id).max(stat.ticks as f64 / ticks_per_second) + stat.children as f64 / ticks_per_second;
        cost.processes += 1;
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        cost.resident += field(&status, "VmRSS:");
        cost.shared += field(&status, "RssShmem:");
    }
    cost
}

/// CPU seconds of the calling thread, to the nanosecond.
#[must_use]
pub fn this_thread() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Seconds in which a core had nothing to do, since the machine started; `None`: there is no such core.
#[must_use]
pub fn idle(core: usize) -> Option<f64> {
    let ticks = idle_ticks(&fs::read_to_string("/proc/stat").ok()?, core)?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Idle time and time of waiting for disks, fields 5 and 6 of a line of `/proc/stat`.
fn idle_ticks(stat: &str, core: usize) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix(&format!("cpu{core} ")))?;
    line.split_whitespace().skip(3).take(2).map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// Bytes in a line such as `VmRSS:   1234 kB`; 0 when the line is missing.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_costs_something() {
        let here = std::process::id();
        assert!(tree(here).contains(&here));
        let cost = cost(here);
        assert!(cost.resident > 1 << 20 && cost.processes >= 1, "{cost:?}");
    }

    #[test]
    fn cpu_time_of_threads_is_finer_than_ticks() {
        let before = threads(std::process::id());
        while threads(std::process::id()) <= before {}
        assert!(threads(std::process::id()) - before < 10.0);
        assert_eq!((first("1234 5 6\n"), first("")), (Some(1234), None));
    }

    #[test]
    fn idle_time_is_that_of_the_core() {
        let stat = "cpu  9 9 9 9 9 9\ncpu0 1 2 3 40 5 6\ncpu1 1 2 3 70 5 6\n";
        assert_eq!((idle_ticks(stat, 0), idle_ticks(stat, 1), idle_ticks(stat, 2)), (Some(45), Some(75), None));
        assert!(idle(0).is_some());
    }

    #[test]
    fn lines_of_status() {
        let status = "Name:\tx\nVmRSS:\t    1234 kB\nRssShmem:\t 4 kB\n";
        assert_eq!(
            (field(status, "VmRSS:"), field(status, "RssShmem:"), field(status, "VmHWM:")),
            (1234 << 10, 4096, 0)
        );
    }
}
