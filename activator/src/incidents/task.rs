//! The shell of incidents. In: the events of this process. Out: files, a log line for each incident. It waits for events alone, and for a time only
//! while an incident is followed: an activator without incidents does nothing here.
#![expect(clippy::disallowed_methods, reason = "shell: the clock, a thread for the files")]

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use liveedgecast_common::clock::{now, sleep_until, utc};
use liveedgecast_common::event;
use serde::Serialize;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};

use super::aftermath::{Aftermath, AftermathEnd};
use super::folder;
use super::rules::IncidentRules;
use crate::config::IncidentFolder;
use crate::events::{EventNotice, Events, Fact, Heard};
use crate::excerpt::{self, Extent};
use crate::lobby::Views;

/// Events that are kept for the next incident.
const EVENTS_BEFORE: usize = 200;
/// Time in which the task of a publisher answers: it has nothing to wait for.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Incidents that are followed at once; of further ones nothing that comes later is kept.
const MOST_FOLLOWED: usize = 64;
/// End of the name of the file of events.
const REPORT: &str = ".json";

/// The file of events.
#[derive(Serialize)]
struct IncidentReport<'a> {
    incident: &'a EventNotice,
    /// The reason for which there is no file of the stream.
    without_media: Option<&'a str>,
    /// The events before, the incident itself being the last one.
    events: Vec<&'a EventNotice>,
    /// The events that followed.
    after: Vec<&'a EventNotice>,
    /// The reason for which no more follow; `None`: they are still being collected.
    after_until: Option<&'static str>,
}

/// An incident in the folder, and what is known of it.
#[derive(Clone)]
struct IncidentFile {
    path: PathBuf,
    without_media: Option<String>,
    /// The incident is the last one.
    before: Vec<Arc<EventNotice>>,
    after: Vec<Arc<EventNotice>>,
}

impl IncidentFile {
    fn report(&self, end: Option<AftermathEnd>) -> io::Result<Vec<u8>> {
        let Some(incident) = self.before.last() else { return Err(io::ErrorKind::NotFound.into()) };
        Ok(serde_json::to_vec_pretty(&IncidentReport {
            incident,
            without_media: self.without_media.as_deref(),
            events: self.before.iter().map(AsRef::as_ref).collect(),
            after: self.after.iter().map(AsRef::as_ref).collect(),
            after_until: end.map(AftermathEnd::as_str),
        })?)
    }

    /// Writes the events that have followed.
    async fn complete(self, kept: &IncidentFolder, end: AftermathEnd) {
        let (path, most) = (self.path.clone(), kept.most);
        let replace = move || folder::replace(&self.path, most, REPORT, &self.report(Some(end))?);
        if let Err(error) = spawn_blocking(replace).await.map_err(io::Error::other).and_then(|written| written) {
            let path = path.display();
            warn!(event = event::INCIDENT_LOST, %path, %error, "events after an incident not written");
        }
    }
}

/// Writes files for each incident from now on, until there are no more events.
pub async fn run(kept: IncidentFolder, events: Events, views: Views) {
    let mut reader = events.reader(None);
    let mut before: VecDeque<Arc<EventNotice>> = VecDeque::new();
    let mut rules = IncidentRules::default();
    let mut followed: Vec<(Aftermath, IncidentFile)> = Vec::new();
    loop {
        let due = followed.iter().map(|(aftermath, _)| aftermath.poll_timeout()).min();
        let heard = tokio::select! {
            heard = reader.next() => heard,
            () = sleep_until(due) => {
                let time = now();
                for (_, file) in followed.extract_if(.., |(aftermath, _)| aftermath.poll_timeout() <= time) {
                    file.complete(&kept, AftermathEnd::Time).await;
                }
                continue;
            }
        };
        let Some(Heard::Event(notice) | Heard::Gap(notice)) = heard else { break };
        let mut at = 0;
        while let Some((aftermath, file)) = followed.get_mut(at) {
            let (belongs, end) = aftermath.handle(notice.fact());
            file.after.extend(belongs.then(|| Arc::clone(&notice)));
            match end {
                Some(end) => followed.swap_remove(at).1.complete(&kept, end).await,
                None => at += 1,
            }
        }
        if before.len() == EVENTS_BEFORE {
            before.pop_front();
        }
        before.push_back(Arc::clone(&notice));
        let Some(of) = rules.handle(now(), notice.fact()) else { continue };
        let media = media(&views, &of.stream, notice.fact()).await;
        let name = format!("{}-{}", utc().to_string().replace(':', ""), of.stream);
        let (folder, before) = (kept.clone(), before.iter().cloned().collect::<Vec<_>>());
        let written = spawn_blocking(move || write(&folder, &name, before, media)).await;
        let (stream, incident) = (&of.stream, notice.event());
        match written.map_err(io::Error::other).and_then(|written| written) {
            Ok(file) => {
                info!(event = event::INCIDENT_KEPT, stream, incident, path = %file.path.display(), "incident kept");
                if followed.len() < MOST_FOLLOWED {
                    followed.push((Aftermath::new(now(), stream, notice.fact()), file));
                }
            }
            Err(error) => {
                warn!(event = event::INCIDENT_LOST, stream, incident, %error, "files of an incident not written")
            }
        }
    }
    for (_, file) in followed {
        file.complete(&kept, AftermathEnd::Stopped).await;
    }
}

/// The last seconds of the stream, or the reason for which there are none.
async fn media(views: &Views, stream: &str, incident: &Fact) -> Result<Vec<u8>, String> {
    // The next worker knows nothing of what was before the last snapshot, and would take its time: these bytes are here now.
    if let Fact::StreamTakenOver { .. } = incident {
        let kept = match views.kept(stream) {
            Some(asked) => timeout(ANSWER_TIME, asked).await.ok().and_then(Result::ok),
            None => None,
        };
        let Some(kept) = kept else { return Err("nothing is kept of the stream here".to_owned()) };
        let read = spawn_blocking(move || excerpt::read(&kept, Extent::All)).await;
        return read.map_err(|error| error.to_string())?.map_err(|error| error.to_string());
    }
    views.excerpt(stream, Extent::All).await.map_err(|error| error.to_string())
}

fn write(
    kept: &IncidentFolder,
    name: &str,
    before: Vec<Arc<EventNotice>>,
    media: Result<Vec<u8>, String>,
) -> io::Result<IncidentFile> {
    let path = Path::new(name).to_owned();
    let without_media = media.as_ref().err().cloned();
    let mut file = IncidentFile { path, without_media, before, after: Vec::new() };
    let report = file.report(None)?;
    let mut files: Vec<(&str, &[u8])> = Vec::new();
    if let Ok(media) = &media {
        files.push((".flv", media));
    }
    files.push((REPORT, &report));
    file.path = folder::write(&kept.path, kept.most, name, &files)?;
    Ok(file)
}
