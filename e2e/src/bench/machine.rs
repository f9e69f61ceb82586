//! The machine that a report was made on. In: `/proc`. Out: one line.
#![expect(clippy::disallowed_methods, reason = "shell: reads files and the clock")]

use std::fs;
use std::time::SystemTime;

/// Processor, number of CPUs, kernel, date and load average of now.
#[must_use]
pub fn header() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (processors, load) = (read("/proc/cpuinfo"), read("/proc/loadavg"));
    let kernel = read("/proc/sys/kernel/osrelease");
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let cpus = processors.lines().filter(|line| line.starts_with("processor")).count();
    format!(
        "{}, {cpus} CPUs, Linux {}, {}, load {} at the start",
        model(&processors),
        kernel.trim(),
        date(seconds),
        load.split(' ').next().unwrap_or("?"),
    )
}

/// The name of the processor, and its numbers where the name of a virtual one says too little.
fn model(processors: &str) -> String {
    let value = |name: &str| {
        processors.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    let name = value("model name").unwrap_or_else(|| "processor not named".into());
    match (value("cpu family"), value("model"), value("stepping")) {
        (Some(family), Some(model), Some(stepping)) => {
            format!("{name} (family {family} model {model} stepping {stepping})")
        }
        _ => name,
    }
}

/// A day of UTC and its time, from seconds since 1970.
fn date(seconds: u64) -> String {
    // Days since 1 March of the year 0, in eras of 400 years: years begin in March, so that the leap day is their last.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, day) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (951_868_800, "2000-03-01 00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59 UTC"),
            (1_798_761_600, "2027-01-01 00:00 UTC"),
        ] {
            assert_eq!(date(seconds), day);
        }
    }

    #[test]
    fn processor_has_its_name_and_numbers() {
        let text = "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: A B @ 2\nstepping\t: 8\n";
        assert_eq!(model(text), "A B @ 2 (family 6 model 143 stepping 8)");
        assert_eq!(model("processor: 0\n"), "processor not named");
    }

    #[test]
    fn header_names_this_machine() {
        let header = header();
        assert!(header.contains("CPUs, Linux ") && header.ends_with("at the start"), "{header}");
    }
}
