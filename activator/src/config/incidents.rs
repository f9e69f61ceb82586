//! The folder of incidents. In: settings. Out: an [`IncidentFolder`], or mistakes. Next: `incidents`, which writes to it.

use std::path::PathBuf;

use liveedgecast_common::config::{ByteSize, Problems};

use super::args::Args;

const DIR: &str = "LIVEEDGECAST_INCIDENT_DIR";
const MAX_BYTES: &str = "LIVEEDGECAST_INCIDENT_MAX_BYTES";

/// Bytes of all files, if no setting tells: some hundred incidents of 2.5 Mbit/s.
const DEFAULT: ByteSize = ByteSize(256 << 20);
/// Bytes that the files of one incident may need.
const LEAST: ByteSize = ByteSize(32 << 20);

/// The folder of incidents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentFolder {
    /// Its path.
    pub path: PathBuf,
    /// Bytes of our files there at most.
    pub most: u64,
}

/// The folder, if there is to be one.
pub(super) fn resolve(args: &Args, problems: &mut Problems) -> Option<IncidentFolder> {
    let text = args.incident_max_bytes.as_deref().filter(|text| !text.is_empty());
    let Some(path) = args.incident_dir.clone().filter(|path| !path.as_os_str().is_empty()) else {
        if text.is_some() {
            problems.add(MAX_BYTES, format_args!("is about the folder of incidents: set {DIR}, or remove it"));
        }
        return None;
    };
    if !path.is_dir() {
        problems
            .add(DIR, format_args!("{} is no folder: make it, and give it to the activator's user", path.display()));
    }
    let most = text.map_or(Some(DEFAULT), |text| problems.check(MAX_BYTES, text.parse::<ByteSize>()))?;
    if most.0 < LEAST.0 {
        problems.add(MAX_BYTES, format_args!("must be {LEAST} at least, so that an incident fits"));
    }
    Some(IncidentFolder { path, most: most.0 })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn resolved(arguments: &[&str]) -> Result<Option<IncidentFolder>, String> {
        let args = Args::try_parse_from(std::iter::once("activator").chain(arguments.iter().copied())).unwrap();
        let mut problems = Problems::new();
        let found = resolve(&args, &mut problems);
        problems.into_result().map(|()| found).map_err(|problems| problems.to_string())
    }

    #[test]
    fn folder_is_there_and_has_room_for_an_incident() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(resolved(&[]), Ok(None));
        let default = IncidentFolder { path: folder.path().to_owned(), most: DEFAULT.0 };
        assert_eq!(resolved(&["--incident-dir", path]), Ok(Some(default.clone())));
        let small = IncidentFolder { most: 64 << 20, ..default };
        assert_eq!(resolved(&["--incident-dir", path, "--incident-max-bytes", "64MiB"]), Ok(Some(small)));
        for (arguments, word) in [
            (vec!["--incident-dir", "/nowhere/at/all"], "no folder"),
            (vec!["--incident-dir", path, "--incident-max-bytes", "1MiB"], "at least"),
            (vec!["--incident-dir", path, "--incident-max-bytes", "many"], MAX_BYTES),
            (vec!["--incident-max-bytes", "64MiB"], DIR),
        ] {
            let told = resolved(&arguments).unwrap_err();
            assert!(told.contains(word), "{arguments:?}: {told}");
        }
    }
}
