//! The policies that are compared: how many workers run whether anybody publishes or not. In: text, a time. Out: a number of workers. Pure.

/// Milliseconds of a day.
const DAY: u64 = 86_400_000;
/// Names of the days; 1970-01-01 was a Thursday.
const DAYS: [&str; 7] = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeepingPolicy {
    /// No worker runs while nobody publishes.
    Zero,
    /// So many run always.
    Warm(usize),
    /// So many run in these windows.
    Cron(Vec<Window>),
    /// As many as the site has ever needed at once run always.
    AlwaysOn,
}

/// A window of every week, in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// The days, by their place in [`DAYS`].
    days: [bool; 7],
    /// Milliseconds from midnight.
    from: u64,
    /// Milliseconds from midnight, of the next day if it is not behind `from`.
    to: u64,
    workers: usize,
    text: String,
}

/// A text that is no window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no window: write it as 08:00-22:00, mon-fri 08:00-20:00, or sat,sun 10:00-23:00=2 for two workers; times are UTC"
)]
pub(super) struct WindowError;

impl KeepingPolicy {
    /// The name in tables.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Zero => "zero".to_owned(),
            Self::Warm(1) => "one warm worker".to_owned(),
            Self::Warm(count) => format!("{count} warm workers"),
            Self::Cron(windows) => {
                let texts: Vec<&str> = windows.iter().map(|window| window.text.as_str()).collect();
                format!("cron {}", texts.join("; "))
            }
            Self::AlwaysOn => "always on".to_owned(),
        }
    }

    /// The workers that run at a time in any case, where `peak` would be enough for everything.
    pub(super) fn kept(&self, at: u64, peak: usize) -> usize {
        match self {
            Self::Zero => 0,
            Self::Warm(count) => *count,
            Self::Cron(windows) => {
                windows.iter().filter(|window| window.holds(at)).map(|window| window.workers).max().unwrap_or(0)
            }
            Self::AlwaysOn => peak.max(1),
        }
    }

    /// The most workers that run at any time in any case.
    pub(super) fn most_kept(&self, peak: usize) -> usize {
        match self {
            Self::Cron(windows) => windows.iter().map(|window| window.workers).max().unwrap_or(0),
            other => other.kept(0, peak),
        }
    }

    /// The next time at which that number may change.
    pub(super) fn next_change(&self, at: u64) -> Option<u64> {
        let Self::Cron(windows) = self else { return None };
        let midnight = at - at % DAY;
        let edges = windows.iter().flat_map(|window| [window.from, window.to % DAY]);
        edges.flat_map(|edge| [midnight + edge, midnight + edge + DAY]).filter(|edge| *edge > at).min()
    }
}

impl Window {
    /// Parses a window.
    pub(super) fn parse(text: &str) -> Result<Self, WindowError> {
        let text = text.trim().to_ascii_lowercase();
        let (times, workers) = match text.split_once('=') {
            Some((times, workers)) => {
                (times, workers.trim().parse().ok().filter(|count| (1..=1000).contains(count)).ok_or(WindowError)?)
            }
            None => (text.as_str(), 1),
        };
        let (days, hours) = times.trim().rsplit_once(' ').unwrap_or(("", times.trim()));
        let (from, to) = hours.split_once('-').ok_or(WindowError)?;
        let (from, to) = (clock(from)?, clock(to)?);
        if from >= DAY {
            return Err(WindowError);
        }
        let to = if to > from { to } else { to + DAY };
        Ok(Self { days: days_of(days.trim())?, from, to, workers, text: text.clone() })
    }

    fn holds(&self, at: u64) -> bool {
        let (day, time) = (at / DAY, at % DAY);
        let on = |day: u64| self.days[(day % 7) as usize];
        let today = on(day) && (self.from..self.to).contains(&time);
        // A window that began yesterday.
        today || day > 0 && on(day - 1) && (self.from..self.to).contains(&(time + DAY))
    }
}

/// `HH:MM`, up to 24:00.
fn clock(text: &str) -> Result<u64, WindowError> {
    let (hour, minute) = text.trim().split_once(':').ok_or(WindowError)?;
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.len() == 2).ok_or(WindowError);
    let (hour, minute) = (number(hour)?, number(minute)?);
    let time = (hour * 60 + minute) * 60_000;
    if minute < 60 && time <= DAY { Ok(time) } else { Err(WindowError) }
}

fn days_of(text: &str) -> Result<[bool; 7], WindowError> {
    if text.is_empty() {
        return Ok([true; 7]);
    }
    let place = |name: &str| DAYS.iter().position(|day| *day == name.trim()).ok_or(WindowError);
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (place(first)?, place(last)?);
        days[day] = true;
        while day != last {
            day = (day + 1) % 7;
            days[day] = true;
        }
    }
    Ok(days)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commandline::times::parse_time;

    #[test]
    fn windows_hold_at_their_times() {
        let kept = |window: &str, at: &str| {
            let policy = KeepingPolicy::Cron(vec![Window::parse(window).unwrap()]);
            policy.kept(parse_time(at).unwrap(), 9)
        };
        // 2025-01-31 was a Friday.
        for (window, at, workers) in [
            ("08:00-22:00", "2025-01-31T08:00:00Z", 1),
            ("08:00-22:00", "2025-01-31T22:00:00Z", 0),
            ("08:00-24:00=3", "2025-01-31T23:59:59Z", 3),
            ("fri 22:00-02:00", "2025-01-31T23:00:00Z", 1),
            ("fri 22:00-02:00", "2025-02-01T01:59:00Z", 1),
            ("fri 22:00-02:00", "2025-02-01T02:00:00Z", 0),
            ("fri 22:00-02:00", "2025-01-31T01:00:00Z", 0),
            ("sat-mon 10:00-11:00", "2025-02-03T10:30:00Z", 1),
            ("sat-mon 10:00-11:00", "2025-02-04T10:30:00Z", 0),
            ("tue,fri 10:00-11:00", "2025-01-31T10:30:00Z", 1),
        ] {
            assert_eq!(kept(window, at), workers, "{window} at {at}");
        }
        for bad in
            ["", "8-22", "08:00", "25:00-26:00", "08:61-09:00", "xyz 08:00-09:00", "08:00-09:00=0", "24:00-01:00"]
        {
            assert_eq!(Window::parse(bad), Err(WindowError), "{bad}");
        }
    }

    #[test]
    fn every_change_of_a_window_is_announced() {
        let policy = KeepingPolicy::Cron(
            ["mon-fri 08:00-20:00", "22:00-02:00=2"].map(|text| Window::parse(text).unwrap()).into(),
        );
        let (mut at, mut kept) = (0, policy.kept(0, 0));
        let mut next = policy.next_change(0).unwrap();
        while at < 14 * DAY {
            at += 60_000;
            if at >= next {
                (kept, next) = (policy.kept(at, 0), policy.next_change(at).unwrap());
            }
            assert_eq!(policy.kept(at, 0), kept, "{at}");
        }
        assert_eq!(KeepingPolicy::Warm(1).next_change(5), None);
    }
}
