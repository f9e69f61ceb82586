//! The ScaledObject that is in force, for the command `check`. In: its namespace and name; a kubeconfig, or the account of the pod. Out: the object as
//! JSON, or an error. Next: the API server.
//!
//! Note: a person's machine has a kubeconfig and a pod has none, so the kubeconfig is looked for first, as `kubectl` does.
#![expect(clippy::disallowed_methods, reason = "shell: the API's clock")]

use std::error::Error;
use std::io;

use kube::config::{KubeConfigOptions, KubeconfigError};
use kube::{Client, Config};
use serde_json::Value;
use tokio::time::timeout;

use super::api::CALL_TIMEOUT;
use super::error::ApiError;

/// A client of the API for one ScaledObject.
pub struct ScaledObjectReader {
    client: Client,
    path: String,
    /// Host and port of the API server.
    pub server: String,
    /// The namespace of the object: the one that was named, otherwise that of the kubeconfig's context or of the pod.
    pub namespace: String,
}

impl ScaledObjectReader {
    /// Finds the way to the API. Nothing is asked yet. `namespace`, `name`: names of Kubernetes (RFC 1123).
    ///
    /// # Errors
    /// There is neither a kubeconfig nor the account of a pod, or it cannot be used.
    pub async fn find(namespace: Option<&str>, name: &str) -> Result<Self, ApiError> {
        let mut config = match Config::from_kubeconfig(&KubeConfigOptions::default()).await {
            Ok(config) => config,
            Err(KubeconfigError::FindPath) => of_pod("there is no kubeconfig")?,
            Err(KubeconfigError::ReadConfig(error, path)) => of_pod(&match error.kind() {
                io::ErrorKind::NotFound => format!("there is no kubeconfig {}", path.display()),
                _ => format!("the kubeconfig {} cannot be read ({error})", path.display()),
            })?,
            Err(error) => return Err(ApiError::Outside(format!("the kubeconfig cannot be used: {}", causes(&error)))),
        };
        // The client's own defaults wait without end and retry; here a call has a deadline.
        (config.connect_timeout, config.default_retry) = (Some(CALL_TIMEOUT), false);
        let authority = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
        let server = authority.rsplit('@').next().unwrap_or_default().to_owned();
        let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
        let client = Client::try_from(config)
            .map_err(|error| ApiError::Outside(format!("the credentials cannot be used: {}", causes(&error))))?;
        let path = format!("/apis/keda.sh/v1alpha1/namespaces/{namespace}/scaledobjects/{name}");
        Ok(Self { client, path, server, namespace })
    }

    /// Reads the object.
    ///
    /// # Errors
    /// The call failed, or its answer is not JSON.
    pub async fn read(&self) -> Result<Value, ApiError> {
        let request = hyper::Request::get(&self.path).body(Vec::new());
        let request = request.map_err(|error| ApiError::Refused(0, error.to_string()))?;
        let answer = timeout(CALL_TIMEOUT, self.client.request_text(request)).await.map_err(|_| ApiError::Late)??;
        serde_json::from_str(&answer).map_err(|_| ApiError::Refused(200, "its answer is not JSON".to_owned()))
    }
}

/// The account of the pod that this process is in. `otherwise`: the cause for which no kubeconfig is used.
fn of_pod(otherwise: &str) -> Result<Config, ApiError> {
    Config::incluster()
        .map_err(|_| ApiError::Outside(format!("{otherwise}, and this is no pod with an account's token")))
}

/// An error and its causes, each once.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}
