//! An event as its readers get it: one JSON document, the same for every way of delivery. In: a fact, its number and its time. Out: text. Next:
//! `subscription`. Pure.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::fact::{Fact, Field};

/// An event with its number and its time.
#[derive(Clone, Debug)]
pub struct EventNotice {
    /// Name of this process among all that there were: events of another one are other events.
    pub(super) process: u64,
    /// Number of the event in this process, from 1.
    pub(super) number: u64,
    /// Time by the wall clock.
    pub(super) at: SystemTime,
    /// The event.
    pub(super) fact: Fact,
}

/// The id of an event: unique among all events of all activators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoticeId {
    pub(super) process: u64,
    pub(super) number: u64,
}

impl NoticeId {
    /// Reads an id that a reader sends back.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (process, number) = text.trim().split_once('-')?;
        let process = u64::from_str_radix(process, 16).ok()?;
        Some(Self { process, number: number.parse().ok()? })
    }
}

impl fmt::Display for NoticeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.process, self.number)
    }
}

impl EventNotice {
    /// The id of the event, as text.
    #[must_use]
    pub fn id(&self) -> String {
        NoticeId { process: self.process, number: self.number }.to_string()
    }

    /// The name of the event.
    #[must_use]
    pub fn event(&self) -> &'static str {
        self.fact.event()
    }

    /// The event itself.
    #[must_use]
    pub fn fact(&self) -> &Fact {
        &self.fact
    }

    /// The event as JSON, on one line.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Serialize for EventNotice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("id", &self.id())?;
        map.serialize_entry("type", self.event())?;
        map.serialize_entry("timestamp", &WallTime(self.at).to_string())?;
        map.serialize_entry("data", &self.fact)?;
        map.end()
    }
}

impl Serialize for Fact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Vec::new();
        self.each(|name, field| fields.push((name, field)));
        let mut map = serializer.serialize_map(Some(fields.len()))?;
        for (name, field) in fields {
            match field {
                Field::Text(text) => map.serialize_entry(name, text)?,
                Field::Count(count) => map.serialize_entry(name, &count)?,
                Field::Unknown => map.serialize_entry(name, &())?,
                Field::Answer(answer) => map.serialize_entry(name, &answer)?,
                Field::Time(time) => map.serialize_entry(name, &seconds(time))?,
            }
        }
        map.end()
    }
}

/// Seconds with three decimals.
fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1000.0
}

/// A time as RFC 3339 writes it, in UTC with milliseconds.
struct WallTime(SystemTime);

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, milli) = (second / 3600, second / 60 % 60, since.subsec_millis());
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.{milli:03}Z", second % 60)
    }
}

/// Year, month and day of the day with this number after 1970-01-01, in the Gregorian calendar. Years begin in March here, so that the day that
/// leap years add is the last one of a year.
fn date(days: u64) -> (u64, u64, u64) {
    /// Days from 0000-03-01 to 1970-01-01.
    const OFFSET: u64 = 719_468;
    /// Days of 400 years.
    const ERA: u64 = 146_097;
    let days = days + OFFSET;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (of_month, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    (era * 400 + year + u64::from(month <= 2), month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_has_them() {
        let rows = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_001, "2024-02-29T23:59:59.001Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (1_764_450_000_123, "2025-11-29T21:00:00.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (milliseconds, text) in rows {
            assert_eq!(WallTime(UNIX_EPOCH + Duration::from_millis(milliseconds)).to_string(), text);
        }
    }

    #[test]
    fn notice_is_one_line_of_json_with_its_figures() {
        let fact = |missed| Fact::EventsMissed { missed };
        let notice =
            |fact| EventNotice { process: 0xab, number: 7, at: UNIX_EPOCH + Duration::from_millis(1500), fact };
        let head =
            r#"{"id":"00000000000000ab-7","type":"events.missed","timestamp":"1970-01-01T00:00:01.500Z","data":"#;
        assert_eq!(notice(fact(Some(3))).json(), format!("{head}{{\"missed\":3}}}}"));
        assert_eq!(notice(fact(None)).json(), format!("{head}{{\"missed\":null}}}}"));
        let live = Fact::samples().remove(0);
        let shown = serde_json::to_string(&live).unwrap();
        assert_eq!(
            shown,
            r#"{"stream":"5f0c1d2e3a4b5c6d","app":"live","publisher":"studio-a","worker":"worker-1-1","cold":true,"start_seconds":1.0}"#
        );
    }

    #[test]
    fn ids_are_read_back_and_other_texts_are_none() {
        let id = NoticeId { process: 0xfedc_ba98, number: 42 };
        assert_eq!(NoticeId::parse(&id.to_string()), Some(id));
        for text in ["", "7", "-", "x-1", "1-x", "1-2-3"] {
            assert_eq!(NoticeId::parse(text), None, "{text:?}");
        }
    }
}
