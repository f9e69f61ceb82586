//! The shell of incidents. In: the events of this process. Out: files, a log line for each incident. It waits for events alone: an activator without
//! incidents does nothing here.
#![expect(clippy::disallowed_methods, reason = "shell: the clock, a thread for the files")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use liveedgecast_common::clock::{now, utc};
use liveedgecast_common::event;
use serde::Serialize;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};

use super::folder;
use super::rules::IncidentRules;
use crate::config::IncidentFolder;
use crate::events::{EventNotice, Events, Heard};
use crate::excerpt::{self, Extent, KeptBytes};
use crate::lobby::Views;

/// Events that are kept for the next incident.
const EVENTS_BEFORE: usize = 200;
/// Time in which the task of a publisher answers: it has nothing to wait for.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// The file of events.
#[derive(Serialize)]
struct IncidentReport<'a> {
    incident: &'a EventNotice,
    /// The reason for which there is no file of the stream.
    without_media: Option<String>,
    /// The events before, the incident itself being the last one.
    events: Vec<&'a EventNotice>,
}

/// Writes files for each incident from now on, until there are no more events.
pub async fn run(kept: IncidentFolder, events: Events, views: Views) {
    let mut reader = events.reader(None);
    let mut before: VecDeque<Arc<EventNotice>> = VecDeque::new();
    let mut rules = IncidentRules::default();
    while let Some(heard) = reader.next().await {
        let (Heard::Event(notice) | Heard::Gap(notice)) = heard;
        if before.len() == EVENTS_BEFORE {
            before.pop_front();
        }
        before.push_back(Arc::clone(&notice));
        let Some(of) = rules.handle(now(), notice.fact()) else { continue };
        let bytes = match views.kept(&of.stream) {
            Some(asked) => timeout(ANSWER_TIME, asked).await.ok().and_then(Result::ok),
            None => None,
        };
        let (kept, events) = (kept.clone(), before.iter().cloned().collect::<Vec<_>>());
        let name = format!("{}-{}", utc().to_string().replace(':', ""), of.stream);
        let written = spawn_blocking(move || write(&kept, &name, &events, bytes.as_ref())).await;
        let (stream, incident) = (&of.stream, notice.event());
        match written.map_err(std::io::Error::other).and_then(|written| written) {
            Ok(path) => {
                info!(event = event::INCIDENT_KEPT, stream, incident, path = %path.display(), "incident kept");
            }
            Err(error) => {
                warn!(event = event::INCIDENT_LOST, stream, incident, %error, "files of an incident not written")
            }
        }
    }
}

fn write(
    kept: &IncidentFolder,
    name: &str,
    events: &[Arc<EventNotice>],
    bytes: Option<&KeptBytes>,
) -> std::io::Result<std::path::PathBuf> {
    let media = match bytes {
        Some(bytes) => excerpt::read(bytes, Extent::All).map_err(|error| error.to_string()),
        None => Err("nothing is kept of the stream here".to_owned()),
    };
    let Some(incident) = events.last() else { return Err(std::io::ErrorKind::NotFound.into()) };
    let report = IncidentReport {
        incident,
        without_media: media.as_ref().err().cloned(),
        events: events.iter().map(AsRef::as_ref).collect(),
    };
    let report = serde_json::to_vec_pretty(&report)?;
    let mut files: Vec<(&str, &[u8])> = Vec::new();
    if let Ok(media) = &media {
        files.push((".flv", media));
    }
    files.push((".json", &report));
    folder::write(&kept.path, kept.most, name, &files)
}
