//! The time at which a certificate expires. In: a certificate in DER. Out: seconds since 1970. Next: whatever keeps it with the certificate.
//!
//! Note: rustls checks no dates of a server's own certificate and does not show them, so the few fields before the validity are passed over here
//! (RFC 5280, 4.1).

use std::path::Path;

use super::pem::certificates_of;

/// Tags of DER (X.690, 8.1.2).
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// The version of a certificate, which may be missing.
const VERSION: u8 = 0xa0;

/// Seconds since 1970 at which the first certificate in a file expires; `None` if it cannot be read. Those behind it belong to authorities.
#[must_use]
pub fn certificate_end(setting: &'static str, path: &Path) -> Option<u64> {
    end_of(certificates_of(setting, path).ok()?.first()?)
}

/// Seconds since 1970 at which the certificate expires; `None` if it cannot be read.
fn end_of(der: &[u8]) -> Option<u64> {
    let (certificate, _) = value(der, SEQUENCE)?;
    let (mut fields, _) = value(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        (_, fields) = value(fields, VERSION)?;
    }
    // Serial number, signature's algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, fields) = value(fields, tag)?;
    }
    let (validity, _) = value(fields, SEQUENCE)?;
    let (_, not_after) = value(validity, *validity.first()?)?;
    let tag = *not_after.first()?;
    let (text, _) = value(not_after, tag)?;
    seconds(tag, text)
}

/// The value at the beginning of `der`, which has this tag, and the rest behind it.
fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(*first) {
        short @ ..=0x7f => (short, rest),
        // Four bytes of length are more than any certificate has.
        long @ 0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(long - 0x80)?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    (*found == tag).then(|| rest.split_at_checked(length)).flatten()
}

/// A time in UTC, to the second (RFC 5280, 4.1.2.5).
fn seconds(tag: u8, text: &[u8]) -> Option<u64> {
    let text =
        std::str::from_utf8(text).ok()?.strip_suffix('Z').filter(|text| text.bytes().all(|c| c.is_ascii_digit()))?;
    let (year, rest) = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let short: u64 = text[..2].parse().ok()?;
            (if short < 50 { 2000 + short } else { 1900 + short }, &text[2..])
        }
        (GENERALIZED_TIME, 14) => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let part = |at: usize| rest[2 * at..2 * at + 2].parse::<u64>().ok();
    let (month, day, hour, minute, second) = (part(0)?, part(1)?, part(2)?, part(3)?, part(4)?);
    let days = days(year, month, day)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from 1970-01-01 to this date. Years of this calculation begin in March, so that the day which leap years add is the last one of a year.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    /// Days from 0000-03-01 to 1970-01-01.
    const OFFSET: u64 = 719_468;
    if !(1..=12).contains(&month) || day == 0 || year == 0 {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before = year * 365 + year / 4 - year / 100 + year / 400;
    (before + (153 * month + 2) / 5 + day - 1).checked_sub(OFFSET)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn der(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, month, day);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn end_of_a_certificate_is_read_in_both_forms() {
        // 2049 is a UTCTime, 2050 a GeneralizedTime.
        for (year, month, day, seconds) in [
            (2027, 1, 1, 1_798_761_600),
            (2028, 2, 29, 1_835_395_200),
            (2049, 12, 31, 2_524_521_600),
            (2050, 3, 1, 2_529_705_600),
            (4096, 1, 1, 67_090_118_400),
        ] {
            assert_eq!(end_of(&der(year, month, day)), Some(seconds), "{year}-{month}-{day}");
        }
    }

    #[test]
    fn cut_and_changed_certificates_do_not_panic() {
        let whole = der(2027, 1, 1);
        for length in 0..whole.len() {
            let _ = end_of(&whole[..length]);
            for byte in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = whole.clone();
                changed[length] = byte;
                let _ = end_of(&changed);
            }
        }
        assert_eq!(end_of(&[]), None);
    }
}
