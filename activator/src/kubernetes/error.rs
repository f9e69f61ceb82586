//! The causes of failed calls to the Kubernetes API. In: errors of `api`. Out: their labels, and the fix in words. Pure. Next: `metrics`.

/// The cause of a failed call.
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
    /// The API server refused the call, or could not answer it now. Status code and message.
    #[error("the Kubernetes API answered {0}: {1}")]
    Refused(u16, String),
    /// The API server cannot be reached.
    #[error("the Kubernetes API cannot be reached: {0}")]
    Unreachable(String),
    /// The answer did not come within the deadline.
    #[error("the Kubernetes API has not answered within 5 s")]
    Late,
}

impl ApiError {
    /// Labels of all errors, for metrics that exist before the first event.
    pub(super) const WORDS: [&str; 7] =
        ["outside", "forbidden", "missing", "changed", "refused", "unreachable", "late"];

    /// Label of the error in metrics.
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
