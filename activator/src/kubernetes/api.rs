//! The calls to the Kubernetes API. In: a question. Out: its answer within a deadline, or what went wrong and what to do about it.
//!
//! The client is made when it is first needed, from what Kubernetes puts into every pod, and anew after an error, because the
//! authority's certificate may be another one by then (the token is read again by itself).
#![expect(clippy::disallowed_methods, reason = "shell: the API's clock")]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Client, Config};
use serde_json::json;
use tokio::time::timeout;

/// How long a call may take, name resolution and TLS included.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Owner of patched fields in `managedFields`.
const FIELD_MANAGER: &str = "liveedgecast-activator";
/// Annotation by which a ReplicaSet chooses among ready pods.
pub(super) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// How many pods there should be, and are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Wanted pods.
    pub wanted: i32,
    /// Existing pods, starting ones included.
    pub there: i32,
    /// The state that this was read from.
    pub version: Option<String>,
}

/// The cause for which a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The process is not in a pod, or in one without a token.
    #[error("there is no way to the Kubernetes API: {0}; the pod needs a service account's token")]
    Outside(String),
    /// The role does not allow the call.
    #[error("Kubernetes does not allow it: {0}; deploy/base/activator/role.yaml does")]
    Forbidden(String),
    /// The object does not exist.
    #[error("Kubernetes has no such object: {0}")]
    Missing(String),
    /// The object has changed meanwhile.
    #[error("it has changed meanwhile: {0}")]
    Changed(String),
    /// The API said no, or that it cannot now.
    #[error("the Kubernetes API answered {0}: {1}")]
    Refused(u16, String),
    /// The API server does not answer.
    #[error("the Kubernetes API cannot be reached: {0}")]
    Unreachable(String),
    /// There was no answer in time.
    #[error("the Kubernetes API has not answered within 5 s")]
    Late,
}

impl ApiError {
    /// The word of every error, for metrics that exist before the first event.
    pub(super) const WORDS: [&str; 7] =
        ["outside", "forbidden", "missing", "changed", "refused", "unreachable", "late"];

    /// The word in metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Outside(_) => "outside",
            Self::Forbidden(_) => "forbidden",
            Self::Missing(_) => "missing",
            Self::Changed(_) => "changed",
            Self::Refused(..) => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::Late => "late",
        }
    }
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                401 | 403 => Self::Forbidden(status.message),
                404 => Self::Missing(status.message),
                409 => Self::Changed(status.message),
                code => Self::Refused(code, status.message),
            },
            error => {
                // The library's own text names the layer alone; the cause is further down.
                let mut text = error.to_string();
                let mut source = std::error::Error::source(&error);
                while let Some(cause) = source {
                    text = cause.to_string();
                    source = cause.source();
                }
                Self::Unreachable(text)
            }
        }
    }
}

/// Address of the API.
#[derive(Clone, Debug)]
enum At {
    /// The one that the pod's environment names.
    Pod,
    /// Elsewhere.
    Configured(Box<Config>),
}

/// The way to it. Clones are the same one.
#[derive(Clone)]
pub struct Api {
    deployment: Arc<str>,
    at: Arc<At>,
    // A lock, because calls run beside each other; held for a look.
    client: Arc<Mutex<Option<Client>>>,
}

impl Api {
    /// The API as seen from inside a pod. `deployment` is that of the workers, in the pod's own namespace.
    #[must_use]
    pub fn in_pod(deployment: &str) -> Self {
        Self::new(deployment, At::Pod)
    }

    /// The API at a configured address.
    #[must_use]
    pub fn configured(deployment: &str, config: Config) -> Self {
        Self::new(deployment, At::Configured(Box::new(config)))
    }

    /// The API by a given client, which is not made anew.
    #[cfg(test)]
    pub(super) fn with_client(deployment: &str, client: Client) -> Self {
        let api = Self::new(deployment, At::Pod);
        *api.client.lock().unwrap() = Some(client);
        api
    }

    fn new(deployment: &str, at: At) -> Self {
        Self { deployment: deployment.into(), at: Arc::new(at), client: Arc::default() }
    }

    /// How many workers' pods there should be.
    ///
    /// # Errors
    /// No answer, or none that is one.
    pub async fn scale(&self) -> Result<Scale, ApiError> {
        self.call(async |client| {
            let all = kube::Api::<Deployment>::default_namespaced(client);
            let scale = all.get_scale(&self.deployment).await?;
            Ok(Scale {
                wanted: scale.spec.and_then(|spec| spec.replicas).unwrap_or(0),
                there: scale.status.map_or(0, |status| status.replicas),
                version: scale.metadata.resource_version,
            })
        })
        .await
    }

    /// Changes the number of pods, if no client has changed it since it was read.
    ///
    /// # Errors
    /// It was not done, or we cannot know.
    pub async fn change_scale(&self, from: &Scale, to: i32) -> Result<(), ApiError> {
        let patch = Patch::Merge(json!({
            "metadata": { "resourceVersion": from.version },
            "spec": { "replicas": to },
        }));
        self.call(async |client| {
            let all = kube::Api::<Deployment>::default_namespaced(client);
            all.patch_scale(&self.deployment, &by_us(), &patch).await.map(drop)
        })
        .await
    }

    /// Says what it costs to lose a pod.
    ///
    /// # Errors
    /// It was not done, or we cannot know.
    pub async fn set_cost(&self, pod: &str, cost: i32) -> Result<(), ApiError> {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { DELETION_COST: cost.to_string() } } }));
        self.call(async |client| {
            let all = kube::Api::<Pod>::default_namespaced(client);
            all.patch_metadata(pod, &by_us(), &patch).await.map(drop)
        })
        .await
    }

    async fn call<T>(&self, ask: impl AsyncFnOnce(Client) -> Result<T, kube::Error>) -> Result<T, ApiError> {
        let client = self.client()?;
        let answer = match timeout(CALL_TIMEOUT, ask(client)).await {
            Ok(answer) => answer.map_err(ApiError::from),
            Err(_) => Err(ApiError::Late),
        };
        if matches!(answer, Err(ApiError::Late | ApiError::Unreachable(_))) {
            *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        answer
    }

    fn client(&self) -> Result<Client, ApiError> {
        let mut known = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*known {
            return Ok(client.clone());
        }
        let outside = |error: &dyn std::error::Error| ApiError::Outside(error.to_string());
        let mut config = match &*self.at {
            At::Pod => Config::incluster().map_err(|error| outside(&error))?,
            At::Configured(config) => (**config).clone(),
        };
        // The client's own deadlines are unlimited: this one ends, and the machines retry.
        (config.connect_timeout, config.default_retry) = (Some(CALL_TIMEOUT), false);
        let client = Client::try_from(config).map_err(|error| outside(&error))?;
        Ok(known.insert(client).clone())
    }
}

fn by_us() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
