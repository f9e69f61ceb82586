//! The metrics of a process that Prometheus' clients agree on (`process_…`), and the build. In: `/proc/self`. Out: a collector, which looks when somebody
//! scrapes.
//!
//! Note: the library's own collector depends on another version of `rustix` than we do.
#![expect(clippy::disallowed_methods, reason = "shell: it reads /proc")]

use std::fs;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGaugeVec, Opts, Registry, Result};
use rustix::process::{Resource, getrlimit};

use super::{opts, register};
use crate::environment::COMMIT;

/// Registers the metrics of this process and of its build.
///
/// # Errors
/// A metric has the name of another one.
pub fn register_process(registry: &Registry, version: &str) -> Result<()> {
    registry.register(Box::new(ProcessCollector::new()?))?;
    let build = IntGaugeVec::new(opts("build_info", "1; the labels are the build"), &["version", "commit"])?;
    register(registry, build)?.with_label_values(&[version, COMMIT]).set(1);
    Ok(())
}

/// Figures that the kernel keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUsage {
    /// CPU time of this process.
    pub own: Duration,
    /// CPU time of children that have ended and were reaped.
    pub ended_children: Duration,
    /// Resident memory in bytes.
    pub resident: u64,
    /// Virtual memory in bytes.
    pub virtual_memory: u64,
    /// Time from the machine's start to that of the process.
    pub started: Duration,
}

impl ProcessUsage {
    /// The figures of this moment; `None` where there is no `/proc`.
    #[must_use]
    pub fn now() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let page = u64::try_from(rustix::param::page_size()).ok()?;
        Self::parse(&stat, rustix::param::clock_ticks_per_second(), page)
    }

    /// Reads the fields of proc(5): utime, stime, cutime, cstime are 14 to 17, starttime is 22, vsize 23, rss 24. The second one, a name in
    /// parentheses, may hold spaces.
    fn parse(stat: &str, ticks: u64, page: u64) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(") ")?;
        let field = |number: usize| fields.split(' ').nth(number - 3)?.parse::<u64>().ok();
        let time = |ticks_taken: u64| Duration::from_millis(ticks_taken * 1000 / ticks.max(1));
        Some(Self {
            own: time(field(14)? + field(15)?),
            ended_children: time(field(16)? + field(17)?),
            started: time(field(22)?),
            virtual_memory: field(23)?,
            resident: field(24)? * page,
        })
    }
}

struct ProcessCollector {
    cpu: Counter,
    resident: Gauge,
    virtual_memory: Gauge,
    open: Gauge,
    most: Gauge,
    started: Gauge,
}

impl ProcessCollector {
    fn new() -> Result<Self> {
        let gauge = |name: &str, help: &str| Gauge::with_opts(Opts::new(name, help));
        Ok(Self {
            cpu: Counter::with_opts(Opts::new(
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds",
            ))?,
            resident: gauge("process_resident_memory_bytes", "Resident memory size in bytes")?,
            virtual_memory: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes")?,
            open: gauge("process_open_fds", "Number of open file descriptors")?,
            most: gauge("process_max_fds", "Maximum number of open file descriptors")?,
            started: gauge("process_start_time_seconds", "Start time of the process since the Unix epoch in seconds")?,
        })
    }

    fn measure(&self) {
        if let Some(usage) = ProcessUsage::now() {
            self.cpu.inc_by((usage.own.as_secs_f64() - self.cpu.get()).max(0.0));
            self.resident.set(float(usage.resident));
            self.virtual_memory.set(float(usage.virtual_memory));
            if let Some(booted) = booted() {
                self.started.set(float(booted) + usage.started.as_secs_f64());
            }
        }
        // The listing itself is one of them.
        let open = fs::read_dir("/proc/self/fd").map(|files| files.count().saturating_sub(1));
        open.into_iter().for_each(|open| self.open.set(float(u64::try_from(open).unwrap_or(u64::MAX))));
        if let Some(most) = getrlimit(Resource::Nofile).current {
            self.most.set(float(most));
        }
    }

    fn all(&self) -> [&dyn Collector; 6] {
        [&self.cpu, &self.resident, &self.virtual_memory, &self.open, &self.most, &self.started]
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.all().iter().flat_map(|metric| metric.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.measure();
        self.all().iter().flat_map(|metric| metric.collect()).collect()
    }
}

/// The machine's start, in seconds since the epoch.
fn booted() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows floats only; bytes are exact up to 2^53")]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::super::text;
    use super::*;

    #[test]
    fn fields_of_the_kernel_are_read() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 300 100 20 0 1 0 77 10000000 2500 184467 1 1";
        let usage = ProcessUsage::parse(stat, 100, 4096).unwrap();
        assert_eq!((usage.own, usage.ended_children), (Duration::from_secs(2), Duration::from_secs(4)));
        assert_eq!((usage.resident, usage.virtual_memory), (2500 * 4096, 10_000_000));
        assert_eq!(usage.started, Duration::from_millis(770));
        assert_eq!(ProcessUsage::parse("rubbish", 100, 4096), None);
    }

    #[test]
    fn this_process_is_measured() {
        let registry = Registry::new();
        register_process(&registry, "1.2.3").unwrap();
        let page = text(&registry);
        let value = |name: &str| -> f64 {
            let row = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            row.unwrap_or_else(|| panic!("{name}: {page}")).parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e5);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_start_time_seconds") > 1.5e9);
        assert!(
            page.contains(&format!("liveedgecast_build_info{{commit=\"{COMMIT}\",version=\"1.2.3\"}} 1")),
            "{page}"
        );
    }
}
