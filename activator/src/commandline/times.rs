//! Times in text. In: RFC 3339 of the API, or of a table; numbers of seconds. Out: milliseconds since 1970; short words for people. Pure.

use std::time::Duration;

/// Reads a time such as `2025-01-31T12:00:00.5Z`, with any offset; a space may stand in place of the `T`. Milliseconds since 1970.
pub(super) fn parse_time(text: &str) -> Option<u64> {
    let text = text.trim();
    let (date, rest) = (text.get(..10)?, text.get(11..)?);
    if !matches!(text.as_bytes()[10], b'T' | b't' | b' ') {
        return None;
    }
    let mut parts = date.split('-');
    let mut next = |digits: usize| {
        let part =
            parts.next().filter(|part| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit()))?;
        part.parse::<i64>().ok()
    };
    let (year, month, day) = (next(4)?, next(2)?, next(2)?);
    if !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone);
    let (hour, minute, second) = (two(clock, 0)?, two(clock, 3)?, two(clock, 6)?);
    if clock.as_bytes().get(2) != Some(&b':') || clock.as_bytes().get(5) != Some(&b':') {
        return None;
    }
    // A leap second counts as the one after it.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let millis = match clock.get(8..)? {
        "" => 0,
        fraction => {
            let digits = fraction.strip_prefix('.').filter(|digits| !digits.is_empty())?;
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            format!("{digits:0<3}").get(..3)?.parse().ok()?
        }
    };
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let (hours, minutes) = (two(zone, 1)?, two(zone, 4)?);
            let colon = zone.as_bytes().get(3) == Some(&b':') && zone.len() == 6;
            let minutes = (colon && hours < 24 && minutes < 60).then_some(hours * 60 + minutes)?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + (minute - offset) * 60 + second;
    u64::try_from(seconds * 1000 + millis).ok()
}

/// Reads the date of an HTTP answer (RFC 9110, 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`. Milliseconds since 1970.
pub(super) fn parse_http_date(text: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let parts: Vec<&str> = text.split_ascii_whitespace().collect();
    let [_, day, month, year, clock, "GMT"] = parts.as_slice() else { return None };
    let month = MONTHS.find(month).filter(|at| month.len() == 3 && at % 3 == 0)? / 3 + 1;
    parse_time(&format!("{year}-{month:02}-{day}T{clock}Z"))
}

/// Two digits at a place.
fn two(text: &str, at: usize) -> Option<i64> {
    let digits = text.get(at..at + 2)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Years begin in March here, so that the day which leap years add is the last one of a year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// A time for people, in two units at most: `850ms`, `12s`, `3m05s`, `2h10m`, `4d03h`.
pub(super) fn short(time: Duration) -> String {
    let (millis, seconds) = (time.as_millis(), time.as_secs());
    match seconds {
        0 => format!("{millis}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use liveedgecast_common::clock::UtcTime;

    use super::*;

    #[test]
    fn times_that_the_api_writes_are_read_back() {
        for millis in [0, 951_782_399_999, 951_782_400_000, 1_709_251_199_001, 1_735_689_599_000, 4_102_444_800_000] {
            assert_eq!(parse_time(&UtcTime(millis).to_string()), Some(millis));
        }
    }

    #[test]
    fn times_have_offsets_fractions_and_bounds() {
        assert_eq!(parse_time("1970-01-01 00:00:01Z"), Some(1000));
        assert_eq!(parse_time("1970-01-01T01:00:00.25+01:00"), Some(250));
        assert_eq!(parse_time("1969-12-31T23:30:00-01:00"), Some(1_800_000));
        for bad in [
            "",
            "1970-01-01",
            "1970-13-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00+1:00",
            "1970-01-01T00-00-00Z",
            "1970-01-01x00:00:00Z",
            "é970-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn dates_of_http_are_read() {
        assert_eq!(parse_http_date("Thu, 01 Jan 1970 00:00:01 GMT"), Some(1000));
        assert_eq!(parse_http_date("Tue, 29 Feb 2000 00:00:00 GMT"), Some(951_782_400_000));
        for bad in ["", "Thu, 01 Jan 1970 00:00:01", "Thu, 01 anF 1970 00:00:01 GMT", "Thu, 31 Feb 1970 00:00:01 GMT"] {
            assert_eq!(parse_http_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_short() {
        for (millis, shown) in [
            (0, "0ms"),
            (999, "999ms"),
            (59_999, "59s"),
            (65_000, "1m05s"),
            (7_860_000, "2h11m"),
            (356_400_000, "4d03h"),
        ] {
            assert_eq!(short(Duration::from_millis(millis)), shown);
        }
    }
}
