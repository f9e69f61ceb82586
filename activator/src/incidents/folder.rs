//! The folder. In: the contents of two files. Out: the files, whole or not at all; the oldest ones make room. It blocks, so it is not for a thread that
//! serves streams.
#![expect(clippy::disallowed_methods, reason = "shell: files")]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Beginning of the names of our files: no other file is counted or removed.
const PREFIX: &str = "incident-";
/// End of the name of a file that is being written.
const PART: &str = ".part";
/// Access to the files: of the activator's user alone, because they show a broadcast.
const MODE: u32 = 0o600;

/// Writes the files of one incident, and removes the oldest ones where all would have more than `most` bytes. Returns the path without its ending.
pub(super) fn write(folder: &Path, most: u64, name: &str, files: &[(&str, &[u8])]) -> io::Result<PathBuf> {
    let coming: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    if coming > most {
        return Err(io::Error::new(io::ErrorKind::StorageFull, "the incident is larger than the folder may be"));
    }
    make_room(folder, most - coming)?;
    let path = folder.join(format!("{PREFIX}{name}"));
    for (at, (ending, bytes)) in files.iter().enumerate() {
        let (part, whole) = (ended(&path, PART), ended(&path, ending));
        if let Err(error) = write_whole(&part, &whole, bytes) {
            files[..at].iter().for_each(|(ending, _)| drop(fs::remove_file(ended(&path, ending))));
            return Err(error);
        }
    }
    Ok(path)
}

/// Replaces a file of an incident that is still there, within the same bound; `false`: it has made room for others.
pub(super) fn replace(path: &Path, most: u64, ending: &str, bytes: &[u8]) -> io::Result<bool> {
    let (part, whole) = (ended(path, PART), ended(path, ending));
    let folder = path.parent().unwrap_or(path);
    let before = match fs::metadata(&whole) {
        Ok(known) => known.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    make_room(folder, most.saturating_sub((bytes.len() as u64).saturating_sub(before)))?;
    if !whole.exists() {
        return Ok(false);
    }
    write_whole(&part, &whole, bytes).map(|()| true)
}

fn write_whole(part: &Path, whole: &Path, bytes: &[u8]) -> io::Result<()> {
    let _ = fs::remove_file(part);
    let written = OpenOptions::new().write(true).create_new(true).mode(MODE).open(part);
    let written = written.and_then(|mut file| file.write_all(bytes)).and_then(|()| fs::rename(part, whole));
    if written.is_err() {
        let _ = fs::remove_file(part);
    }
    written
}

fn ended(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Removes the oldest incidents, each with all of its files, until the others have at most so many bytes. The names begin with the time.
fn make_room(folder: &Path, most: u64) -> io::Result<()> {
    let mut incidents: BTreeMap<PathBuf, Vec<(PathBuf, u64)>> = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if let Some(known) = entry.metadata().ok().filter(|known| is_ours && known.is_file()) {
            // The time in the name has a dot, too, so the last ending alone is taken off.
            incidents.entry(entry.path().with_extension("")).or_default().push((entry.path(), known.len()));
        }
    }
    let mut sum: u64 = incidents.values().flatten().map(|(_, bytes)| bytes).sum();
    for files in incidents.into_values() {
        if sum <= most {
            break;
        }
        for (path, bytes) in files {
            fs::remove_file(path)?;
            sum -= bytes;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn file_of_an_incident_is_replaced_whole_as_long_as_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let first = write(folder.path(), 250, "1", &[(".flv", &[1; 90]), (".json", &[2; 10])]).unwrap();
        let second = write(folder.path(), 250, "2", &[(".flv", &[1; 90]), (".json", &[2; 10])]).unwrap();
        assert!(replace(&second, 250, ".json", &[3; 60]).unwrap());
        assert_eq!(fs::read(folder.path().join("incident-2.json")).unwrap(), [3; 60]);
        // The older one makes room, and is not written again.
        assert!(replace(&second, 250, ".json", &[4; 61]).unwrap());
        assert!(!replace(&first, 250, ".json", &[5; 1]).unwrap());
        assert_eq!(names(folder.path()), ["incident-2.flv", "incident-2.json"]);
        // It would have to make room for itself.
        assert!(!replace(&second, 250, ".json", &[6; 500]).unwrap());
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn folder_keeps_the_newest_files_within_its_bound_and_no_stranger_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a-strangers-file"), [7; 500]).unwrap();
        for name in ["1", "2", "3"] {
            write(folder.path(), 250, name, &[(".flv", &[1; 90]), (".json", &[2; 10])]).unwrap();
        }
        let expected = ["a-strangers-file", "incident-2.flv", "incident-2.json", "incident-3.flv", "incident-3.json"];
        assert_eq!(names(folder.path()), expected);
        let mode = fs::metadata(folder.path().join("incident-3.flv")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert!(write(folder.path(), 250, "4", &[(".flv", &[1; 251])]).is_err());
        assert_eq!(names(folder.path()), expected, "nothing was removed for it");
        assert!(write(&folder.path().join("away"), 250, "4", &[(".flv", &[1; 1])]).is_err());
    }
}
