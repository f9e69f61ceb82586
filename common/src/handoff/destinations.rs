//! The destinations of a stream with their names, as the activator changes them while the stream is live. In: the activator's decisions. Out: bytes,
//! which [`super::frame`] seals, and the same read again. Next: the worker's stream, which compares them by name with those that it has.
//!
//! A list is always whole, and has a number: a worker that gets one twice, or an old one late, does nothing. The assignment has the URLs of the
//! same destinations; the list that follows it gives them their names.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits::{MAX_DESTINATION_NAME_BYTES, MAX_DESTINATIONS, MAX_LIST_BYTES, MAX_NAME_BYTES};
use super::wire::{self, WireError, within};
use crate::key::Identity;
use crate::url::PushUrl;

/// The version that [`DestinationList::encode`] writes.
pub const VERSION: u16 = 2;

/// Every destination of a stream that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationList {
    /// Number of the list in this stay of the publisher: a later list has a greater one.
    pub revision: u64,
    /// The publisher's name in the configuration file, for logs; empty for none.
    pub publisher: String,
    /// The destinations; no two have one name.
    pub destinations: Vec<ListedDestination>,
}

/// A destination with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedDestination {
    /// The name in logs, metrics and the API.
    pub name: String,
    /// The push URL, credentials included.
    pub url: PushUrl,
    /// The stream starts only when a required upstream has started.
    pub required: bool,
    /// The identity of an upstream that takes no `{key}`.
    pub identity: Option<Identity>,
    /// Revision by which its session was to begin anew; 0: it never was.
    pub renewed: u64,
    /// The server that is asked while the first one fails.
    pub backup: Option<BackupDestination>,
}

/// The second server of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupDestination {
    /// The push URL, credentials included.
    pub url: PushUrl,
    /// Time without a session that lasted after which it is asked.
    pub after: Duration,
}

/// Version 1 on the wire, which knows neither publishers nor backups.
#[derive(Deserialize)]
struct ListOfVersion1 {
    revision: u64,
    destinations: Vec<DestinationOfVersion1>,
}

#[derive(Deserialize)]
struct DestinationOfVersion1 {
    name: String,
    url: PushUrl,
    required: bool,
    identity: Option<Identity>,
    renewed: u64,
}

impl From<ListOfVersion1> for DestinationList {
    fn from(ListOfVersion1 { revision, destinations }: ListOfVersion1) -> Self {
        let destination = |DestinationOfVersion1 { name, url, required, identity, renewed }| ListedDestination {
            name,
            url,
            required,
            identity,
            renewed,
            backup: None,
        };
        let destinations = destinations.into_iter().map(destination).collect();
        Self { revision, publisher: String::new(), destinations }
    }
}

impl DestinationList {
    /// The bytes of the list, in the newest version. They hold secrets: [`super::frame`] seals them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(VERSION, self)
    }

    /// Reads any version there has been.
    ///
    /// # Errors
    /// The version is unknown, the bytes cannot be read, or a part exceeds its limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        within(bytes.len(), MAX_LIST_BYTES, "list of destinations")?;
        let (version, rest) = wire::version(bytes)?;
        let list: Self = match version {
            1 => wire::decode::<ListOfVersion1>(rest)?.into(),
            2 => wire::decode(rest)?,
            theirs => return Err(WireError::Version { theirs, ours: VERSION }),
        };
        list.check()?;
        Ok(list)
    }

    /// Checks every part against its limit.
    pub(super) fn check(&self) -> Result<(), WireError> {
        within(self.destinations.len(), MAX_DESTINATIONS, "destinations")?;
        within(self.publisher.len(), MAX_NAME_BYTES, "name of the publisher")?;
        let longest = self.destinations.iter().map(|destination| destination.name.len()).max();
        within(longest.unwrap_or_default(), MAX_DESTINATION_NAME_BYTES, "name of a destination")
    }
}
