//! Versioned bytes of our own structs: a version (two bytes, big endian), then the struct by postcard, then nothing.
//!
//! Note: postcard is not self-describing, so a field more or less is another version, and old versions need their own struct.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The reason why bytes cannot be decoded. A retry is of no use: the other side is of another version, or faulty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A version that this build does not read.
    #[error("version {theirs} cannot be read, version {ours} can")]
    Version {
        /// Version that was found.
        theirs: u16,
        /// Newest version that this build reads.
        ours: u16,
    },
    /// The bytes are too short, too long, or not a value of the type.
    #[error("it cannot be read")]
    Malformed,
    /// The named part is larger than its limit.
    #[error("too much: {0}")]
    TooMuch(&'static str),
}

pub(super) fn encode(version: u16, value: &impl Serialize) -> Vec<u8> {
    let bytes = version.to_be_bytes().to_vec();
    // Serialising into memory fails only for sequences of unknown length, which our structs do not have.
    postcard::to_extend(value, bytes).unwrap_or_default()
}

/// Splits off the version.
pub(super) fn version(bytes: &[u8]) -> Result<(u16, &[u8]), WireError> {
    let (version, rest) = bytes.split_first_chunk::<2>().ok_or(WireError::Malformed)?;
    Ok((u16::from_be_bytes(*version), rest))
}

/// Decodes the struct, which takes all of `bytes`.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(WireError::Malformed),
    }
}

/// Checks that `value` is within `limit`.
pub(super) fn within(value: usize, limit: usize, what: &'static str) -> Result<(), WireError> {
    if value > limit { Err(WireError::TooMuch(what)) } else { Ok(()) }
}
