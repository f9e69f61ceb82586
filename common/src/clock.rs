//! The clock of every shell: the runtime's, which tests can pause and turn. Machines are given `now` and never call it; `clippy.toml`
//! bans it as it bans the clocks of `std` and `tokio`.
#![expect(clippy::disallowed_methods, reason = "shell: the one clock")]

use std::fmt;
use std::future::pending;
use std::time::{Duration, Instant, SystemTime};

use serde::{Serialize, Serializer};

/// The time by the runtime's clock. Outside a runtime, and in one that is not paused, this is [`Instant::now`].
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The time of day by the wall clock, which may jump.
#[must_use]
pub fn utc() -> UtcTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UtcTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A time of day for people and programs elsewhere: milliseconds since 1970 in UTC, shown as RFC 3339 has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UtcTime(pub u64);

impl UtcTime {
    /// The time that was so long before this one.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second, milli) = (self.0 / 86_400_000, self.0 / 1000 % 86_400, self.0 % 1000);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

impl Serialize for UtcTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Year, month and day of the day with this number after 1970-01-01. Years of this calculation begin in March, so that the day which leap years
/// add is the last one of a year.
fn date(days: u64) -> (u64, u64, u64) {
    /// Days from 0000-03-01 to 1970-01-01.
    const OFFSET: u64 = 719_468;
    /// Days of 400 years.
    const ERA: u64 = 146_097;
    let days = days.saturating_add(OFFSET);
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (of_month, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    (era * 400 + year + u64::from(month <= 2), month, of_month)
}

/// Returns at `until`; never if there is none. Cancel safe.
pub async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_rfc_3339_has_them() {
        let rows = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_001, "2024-02-29T23:59:59.001Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
        ];
        for (millis, shown) in rows {
            assert_eq!(UtcTime(millis).to_string(), shown);
        }
        assert_eq!(UtcTime(1500).before(Duration::from_millis(600)), UtcTime(900));
        assert_eq!(UtcTime(5).before(Duration::from_secs(1)), UtcTime(0));
    }
}
