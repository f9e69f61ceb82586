//! Resources that this process and its children have used. In: `/proc/self/stat`. Out: numbers.
#![expect(clippy::disallowed_methods, reason = "shell: it reads /proc")]

use std::time::Duration;

/// Figures that the kernel keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// CPU time of this process.
    pub(crate) own: Duration,
    /// CPU time of children that have ended and were reaped: workers.
    pub(crate) ended_children: Duration,
    /// Resident memory in bytes.
    pub(crate) resident: u64,
}

impl Usage {
    /// The figures of this moment; `None` where there is no `/proc`.
    pub(crate) fn now() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let page = u64::try_from(rustix::param::page_size()).ok()?;
        Self::parse(&stat, rustix::param::clock_ticks_per_second(), page)
    }

    /// Reads the fields of proc(5): utime, stime, cutime, cstime are 14 to 17, rss is 24. The second one, a name in parentheses, may
    /// hold spaces.
    fn parse(stat: &str, ticks: u64, page: u64) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(") ")?;
        let field = |number: usize| fields.split(' ').nth(number - 3)?.parse::<u64>().ok();
        let time = |a, b| Some(Duration::from_millis((field(a)? + field(b)?) * 1000 / ticks.max(1)));
        Some(Self { own: time(14, 15)?, ended_children: time(16, 17)?, resident: field(24)? * page })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 300 100 20 0 1 0 77 10000000 2500 184467 1 1";
        let usage = Usage::parse(stat, 100, 4096).unwrap();
        assert_eq!((usage.own, usage.ended_children), (Duration::from_secs(2), Duration::from_secs(4)));
        assert_eq!(usage.resident, 2500 * 4096);
        assert!(Usage::now().unwrap().resident > 0);
        assert_eq!(Usage::parse("rubbish", 100, 4096), None);
    }
}
