//! The ScaledObject that is in force. In: its name. Out: where it does not fit the settings, or the reason for which it cannot be read, with its fix.
//! Next: `kubernetes`, which asks.

use std::str::FromStr;

use super::finding::Findings;
use super::scaled_object;
use crate::commandline::failure::named;
use crate::config::Settings;

/// The longest name of an object (RFC 1123, as Kubernetes has it).
const MOST_NAME: usize = 253;

/// The name of an object, and its namespace if that is not the one of the kubeconfig or the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectName {
    namespace: Option<String>,
    name: String,
}

impl FromStr for ObjectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        let good = |name: &str| {
            (1..=MOST_NAME).contains(&name.len())
                && name.chars().all(plain)
                && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        };
        if !good(name) || !namespace.is_none_or(good) {
            return Err(format!(
                "--kubernetes: {} names no ScaledObject: write NAMESPACE/NAME, such as liveedgecast/liveedgecast-worker; a file is named with --scaled-object",
                named(text)
            ));
        }
        Ok(Self { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

/// Says that the object cannot be read.
#[cfg(not(feature = "kubernetes"))]
pub(super) async fn compare(name: &ObjectName, _settings: &Settings) -> Findings {
    let mut found = Findings::default();
    let named = name.namespace.iter().chain([&name.name]).map(String::as_str).collect::<Vec<_>>().join("/");
    let text = "this program was built without its feature `kubernetes`: give the object with --scaled-object";
    found.fault(scaled_object::PART, &named, text);
    found
}

/// Reads the object, and compares it.
#[cfg(feature = "kubernetes")]
pub(super) async fn compare(name: &ObjectName, settings: &Settings) -> Findings {
    use crate::kubernetes::ScaledObjectReader;

    let mut found = Findings::default();
    let reader = match ScaledObjectReader::find(name.namespace.as_deref(), &name.name).await {
        Ok(reader) => reader,
        Err(error) => {
            found.fault(scaled_object::PART, "api", words(&error, name, "", ""));
            return found;
        }
    };
    match reader.read().await {
        Ok(object) => {
            let mut compared = scaled_object::compare_json(&object, &reader.server, settings);
            compared.good(format!(
                "scaledobject: {}/{} was read from the Kubernetes API at {}",
                reader.namespace, name.name, reader.server
            ));
            compared
        }
        Err(error) => {
            found.fault(scaled_object::PART, "api", words(&error, name, &reader.namespace, &reader.server));
            found
        }
    }
}

/// The reason for which the object cannot be read, and the fix.
#[cfg(feature = "kubernetes")]
fn words(error: &crate::kubernetes::ApiError, name: &ObjectName, namespace: &str, server: &str) -> String {
    use liveedgecast_common::key::LogSafe;

    use crate::kubernetes::ApiError;

    /// Characters of a message at most; an API server's are shorter.
    const MOST: usize = 400;
    let short = |text: &str| LogSafe(&text.chars().take(MOST).collect::<String>()).to_string();
    let object = &name.name;
    match error {
        ApiError::Outside(text) => format!(
            "{}: name a kubeconfig with KUBECONFIG, or run the check in a pod that has a service account's token",
            short(text)
        ),
        ApiError::Forbidden(text) => format!(
            "{server} refuses ({}): give the account the right to `get` `scaledobjects` of the group `keda.sh` in the namespace {namespace}, or renew a credential that has ended",
            short(text)
        ),
        // The API server names the object that it lacks; a path without objects has a text of its own.
        ApiError::Missing(text) if text.contains(object.as_str()) => format!(
            "{server} has no ScaledObject {object} in the namespace {namespace}: correct the name, or apply deploy/keda; `kubectl get scaledobjects -A` lists those that there are"
        ),
        ApiError::Missing(_) => {
            format!("{server} knows no ScaledObjects: install KEDA, or name the kubeconfig of another cluster")
        }
        ApiError::Unreachable(text) => format!(
            "{server} cannot be reached ({}): start it, or correct the address in the kubeconfig, and look at firewalls",
            short(text)
        ),
        ApiError::Late => {
            format!("{server} has not answered within 5 s: look at its load, and at firewalls between here and there")
        }
        ApiError::Refused(status, text) => {
            format!("{server} answered with status {status} ({}): look at the API server's log", short(text))
        }
        ApiError::Changed(text) => format!("{server} refuses ({}): try again", short(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_is_named_with_or_without_its_namespace() {
        let name = |text: &str| text.parse::<ObjectName>().map(|name| (name.namespace, name.name));
        assert_eq!(name("edge/worker-1.a"), Ok((Some("edge".to_owned()), "worker-1.a".to_owned())));
        assert_eq!(name("worker"), Ok((None, "worker".to_owned())));
        for bad in ["", "/", "a/", "/a", "a/b/c", "./object.yaml", "Worker", "a b", "a?x", "../secrets", "é"] {
            assert!(name(bad).is_err_and(|text| text.contains("--scaled-object")), "{bad}");
        }
    }
}
