//! Pods of LiveEdgeCast. In: JSON of the API. Out: their properties, and their processes if this machine is their node.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::cluster::NAMESPACE;
use crate::process::{Program, RunningProgram, program};
use crate::wait::until_some;

/// A pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Name of the pod.
    pub name: String,
    /// The whole object.
    pub object: Value,
}

impl Pod {
    /// Reads a pod from the API's JSON.
    #[must_use]
    pub fn new(object: Value) -> Self {
        Self { name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(), object }
    }

    /// Identity of the pod.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.object["metadata"]["uid"].as_str().unwrap_or_default()
    }

    /// Time of creation; the API gives whole seconds.
    ///
    /// # Panics
    /// The object has no time of creation.
    #[must_use]
    #[track_caller]
    pub fn created(&self) -> SystemTime {
        let told = self.object["metadata"]["creationTimestamp"].as_str().and_then(time);
        told.unwrap_or_else(|| panic!("no creationTimestamp: {}", self.object))
    }

    /// True if the pod was asked to terminate.
    #[must_use]
    pub fn is_going(&self) -> bool {
        self.object["metadata"]["deletionTimestamp"].is_string()
    }

    /// True if the pod is ready, which for an activator means that it accepts publishers.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let conditions = self.object["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|it| it["type"] == "Ready" && it["status"] == "True")
    }

    /// True if the pod's container runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.object["status"]["containerStatuses"][0]["state"]["running"].is_object()
    }

    /// Address of the pod.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.object["status"]["podIP"].as_str()?.parse().ok()
    }

    /// The process of the pod's container, if it runs on this machine and may be inspected.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        // The directory of the pod's control group is named after the uid, with dashes or, by systemd, underscores.
        let names = [self.uid().to_owned(), self.uid().replace('-', "_")];
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        ids.into_iter().find(|id| {
            let group = fs::read_to_string(format!("/proc/{id}/cgroup")).unwrap_or_default();
            let is_ours = |path: std::path::PathBuf| path.to_string_lossy().contains("liveedgecast-");
            names.iter().any(|name| group.contains(name)) && program(*id).is_some_and(is_ours)
        })
    }

    /// The text of a file in the pod's container, if the pod runs on this machine.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/root{path}", self.process()?)).ok()
    }

    /// A route to a port of the pod from this machine: the pod's address, or else `kubectl port-forward`.
    ///
    /// # Panics
    /// Neither works.
    #[must_use]
    #[track_caller]
    pub fn way(&self, port: u16) -> Way {
        if let Some(ip) = self.ip() {
            let address = SocketAddr::new(ip, port);
            if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
                return Way { address, _forward: None };
            }
        }
        Way::by_port_forward(&format!("pod/{}", self.name), port)
    }
}

/// A route to a port of a pod, valid as long as this value lives.
#[derive(Debug)]
pub struct Way {
    /// Address to connect to.
    pub address: SocketAddr,
    _forward: Option<RunningProgram>,
}

impl Way {
    /// Runs `kubectl port-forward` to `pod/NAME` or `service/NAME`.
    ///
    /// # Panics
    /// The command does not work.
    #[must_use]
    #[track_caller]
    pub fn by_port_forward(target: &str, port: u16) -> Self {
        let forward = Program::new("kubectl port-forward", "kubectl").args(["-n", NAMESPACE, "port-forward", target]);
        let mut forward = forward.arg(format!(":{port}")).start();
        let address = until_some("kubectl port-forward", || {
            assert!(forward.is_running(), "kubectl port-forward has ended: {}", forward.log());
            let log = forward.log();
            log.split_once("Forwarding from ")?.1.split_once(" -> ")?.0.parse().ok()
        });
        Self { address, _forward: Some(forward) }
    }

    /// The URL for a publisher.
    #[must_use]
    pub fn url(&self, app_and_key: &str) -> String {
        format!("rtmp://{}/{app_and_key}", self.address)
    }
}

/// Reads a time as the API and logs write it: `2026-01-31T12:00:00Z`, with a fraction or none.
#[must_use]
pub fn time(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix('Z')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let nanoseconds = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let mut parts = whole.split(['-', 'T', ':']).map(|part| part.parse::<u64>().ok());
    let mut part = || parts.next().flatten();
    let (year, month, day) = (part()?, part()?, part()?);
    let (hours, minutes, seconds) = (part()?, part()?, part()?);
    // A year that begins in March has its leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let since_1970 = days.checked_sub(719_468)?;
    let seconds = since_1970 * 86400 + hours * 3600 + minutes * 60 + seconds;
    Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::time;

    #[test]
    fn times_are_read() {
        for (text, milliseconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T23:59:59Z", Some(951_868_799_000)),
            ("2000-03-01T00:00:00Z", Some(951_868_800_000)),
            ("2026-11-25T01:26:45Z", Some(1_795_570_005_000)),
            ("2026-11-25T01:26:45.1230Z", Some(1_795_570_005_123)),
            ("2026-11-25", None),
            ("", None),
        ] {
            let expected = milliseconds.map(|it| SystemTime::UNIX_EPOCH + Duration::from_millis(it));
            assert_eq!(time(text), expected, "{text}");
        }
    }
}
