//! The calls to the Kubernetes API. In: a request of the shell in `task`. Out: the answer within a deadline, or an error that names its
//! fix. Next: the API server.
//!
//! The client is built before the first call, from the environment and the files that Kubernetes gives to every pod, and again after an
//! error, because the authority's certificate may have changed by then (the library itself reads a new token).
#![expect(clippy::disallowed_methods, reason = "shell: the API's clock")]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Client, Config};
use serde_json::json;
use tokio::time::timeout;

use super::error::ApiError;

/// Deadline of a call, name resolution and TLS included.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Owner of patched fields in `managedFields`.
const FIELD_MANAGER: &str = "liveedgecast-activator";
/// Annotation by which a ReplicaSet chooses among ready pods.
pub(super) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Number of pods of the workers' Deployment, wanted and existing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Wanted pods.
    pub wanted: i32,
    /// Existing pods, starting ones included.
    pub there: i32,
    /// Resource version of the object that was read.
    pub version: Option<String>,
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
                // The text of the outermost error names its layer alone; the innermost error is the cause.
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
    /// The address that the pod's environment names.
    Pod,
    /// An address of the configuration.
    Configured(Box<Config>),
}

/// A client of the Kubernetes API for one Deployment. Clones share the connection.
#[derive(Clone)]
pub struct Api {
    deployment: Arc<str>,
    at: Arc<At>,
    // A lock, because calls run concurrently; held while the client is copied or built, never while a call is under way.
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

    /// The API by a given client, which is used until a call fails.
    #[cfg(test)]
    pub(super) fn with_client(deployment: &str, client: Client) -> Self {
        let api = Self::new(deployment, At::Pod);
        *api.client.lock().unwrap() = Some(client);
        api
    }

    fn new(deployment: &str, at: At) -> Self {
        Self { deployment: deployment.into(), at: Arc::new(at), client: Arc::default() }
    }

    /// Reads the numbers of workers' pods, wanted and existing.
    ///
    /// # Errors
    /// The call failed, or its answer could not be read.
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

    /// Sets the wanted number of pods to `to`, unless the object has changed since `from` was read.
    ///
    /// # Errors
    /// The number was not changed, or the result is unknown (no answer in time).
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

    /// Sets the deletion cost of a pod (annotation `controller.kubernetes.io/pod-deletion-cost`).
    ///
    /// # Errors
    /// The annotation was not set, or the result is unknown (no answer in time).
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

    /// Name of the workers' Deployment.
    pub(super) fn deployment(&self) -> &str {
        &self.deployment
    }

    pub(super) fn client(&self) -> Result<Client, ApiError> {
        let mut known = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*known {
            return Ok(client.clone());
        }
        let outside = |error: &dyn std::error::Error| ApiError::Outside(error.to_string());
        let mut config = match &*self.at {
            At::Pod => Config::incluster().map_err(|error| outside(&error))?,
            At::Configured(config) => (**config).clone(),
        };
        // The client's own defaults wait without end and retry: here a call has a deadline, and the machines decide about retries.
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
