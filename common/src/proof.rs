//! Proof that who dials the control listener knows the control secret, without sending it.
//!
//! In: the secret, the time, a nonce. Out: the value of the call's metadata `liveedgecast-proof`, made by the worker and
//! verified by the activator before anything else of the call is looked at. The value is
//! `<unix seconds>.<nonce, 16 bytes in hex>.<HMAC-SHA256(secret, "control" | seconds as 8 bytes, big endian | nonce) in hex>`.
//! Surprise: clocks of edge machines are wrong until NTP has answered, so the error for a stale proof says by how much.

use std::time::Duration;

use ring::hmac;

/// The metadata key of a proof.
pub const METADATA: &str = "liveedgecast-proof";
/// A proof is good this long before and after the time in it: more than honest clocks differ, less than a stolen one
/// stays useful.
pub const VALIDITY: Duration = Duration::from_secs(60);
/// Bytes of a proof's nonce.
pub const NONCE_BYTES: usize = 16;
/// What the secret signs, so that a proof for control is none for the handoff.
const PURPOSE: &[u8] = b"control";

/// What keeps two proofs of one second apart. A verifier that remembers the last ones can refuse repeats.
pub type Nonce = [u8; NONCE_BYTES];

/// Why a proof is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It does not look like a proof.
    #[error("the proof cannot be read")]
    Malformed,
    /// Its time is too far from ours.
    #[error("the proof is {seconds} s {direction} our clock; at most {} s are allowed: set the clocks", VALIDITY.as_secs())]
    Stale {
        /// How far away.
        seconds: u64,
        /// `behind` or `ahead of`.
        direction: &'static str,
    },
    /// It was made with another secret.
    #[error("the proof was made with another secret: give both sides the same CONTROL_SECRET")]
    Wrong,
}

/// Makes the metadata value. `unix` is seconds since 1970.
#[must_use]
pub fn make(secret: &[u8], unix: u64, nonce: Nonce) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, &signed(unix, nonce));
    format!("{unix}.{}.{}", hex(&nonce), hex(tag.as_ref()))
}

/// Verifies a metadata value and gives its nonce. Takes the same time for every wrong tag.
///
/// # Errors
/// It cannot be read, is stale, or was made with another secret.
pub fn verify(secret: &[u8], value: &str, unix: u64) -> Result<Nonce, ProofError> {
    let mut parts = value.split('.');
    let (Some(seconds), Some(nonce), Some(tag), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(ProofError::Malformed);
    };
    let seconds: u64 = seconds.parse().map_err(|_| ProofError::Malformed)?;
    let nonce: Nonce = unhex(nonce).ok_or(ProofError::Malformed)?;
    let tag: [u8; 32] = unhex(tag).ok_or(ProofError::Malformed)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    // The tag first: what a stranger says about time is not worth an answer of its own.
    hmac::verify(&key, &signed(seconds, nonce), &tag).map_err(|_| ProofError::Wrong)?;
    let away = seconds.abs_diff(unix);
    if away > VALIDITY.as_secs() {
        let direction = if seconds < unix { "behind" } else { "ahead of" };
        return Err(ProofError::Stale { seconds: away, direction });
    }
    Ok(nonce)
}

fn signed(unix: u64, nonce: Nonce) -> Vec<u8> {
    [PURPOSE, &unix.to_be_bytes(), &nonce].concat()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |at: usize| char::from(digits[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = digit(2 * at)? << 4 | digit(2 * at + 1)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: Nonce = *b"0123456789abcdef";
    const NOW: u64 = 1_800_000_000;

    #[test]
    fn golden() {
        // As Python's hmac module computes it.
        assert_eq!(
            make(b"secret", NOW, NONCE),
            "1800000000.30313233343536373839616263646566.658ec194065c23d160b8adc85d77c599537aa6dac6dcc31101e8e4d7a6071e20"
        );
    }

    #[test]
    fn a_proof_is_good_for_a_minute_either_way() {
        let proof = make(b"secret", NOW, NONCE);
        for now in [NOW, NOW - 60, NOW + 60] {
            assert_eq!(verify(b"secret", &proof, now), Ok(NONCE));
        }
        for (now, direction) in [(NOW - 61, "ahead of"), (NOW + 61, "behind")] {
            assert_eq!(verify(b"secret", &proof, now), Err(ProofError::Stale { seconds: 61, direction }));
        }
    }

    #[test]
    fn another_secret_is_told_apart_from_rubbish() {
        let proof = make(b"secret", NOW, NONCE);
        assert_eq!(verify(b"Secret", &proof, NOW), Err(ProofError::Wrong));
        let moved = proof.replace("1800000000", "1800000001");
        assert_eq!(verify(b"secret", &moved, NOW), Err(ProofError::Wrong));
        for rubbish in
            ["", "1.2", "1.2.3", "1.2.3.4", "x.y.z", &proof[..proof.len() - 1], &format!("{proof}0"), "-1.é.ü"]
        {
            assert_eq!(verify(b"secret", rubbish, NOW), Err(ProofError::Malformed), "{rubbish:?}");
        }
    }
}
