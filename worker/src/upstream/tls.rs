//! RTMPS: the trusted certificates, and TLS on a new connection. Next room: [`super::connection`].
//!
//! The name in the push URL is sent (SNI) and verified, also when it is an address; there is no way to turn that off, but
//! `SSL_CERT_FILE` replaces the system's store: private authorities, or a server's own certificate (see `trust`). No ALPN: there is no name for RTMP.
#![expect(clippy::disallowed_methods, reason = "shell: reading certificates may block")]

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use liveedgecast_common::event;
use liveedgecast_common::trust::{self, Verifier};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dial::Resolver;
use super::fault::Fault;
use super::metrics::UpstreamMetrics;

pub(super) type Secure = Pin<Box<dyn Future<Output = Result<TlsStream<TcpStream>, NotSecured>>>>;

/// State that all upstreams of a process share. Cheap to clone. Root certificates are read when the first RTMPS upstream is dialed: a worker that
/// is started for a plain one starts without them.
#[derive(Clone, Debug, Default)]
pub struct UpstreamContext {
    config: Arc<OnceCell<Arc<ClientConfig>>>,
    pub(super) resolver: Resolver,
    /// Counter of failures, if there is one.
    metrics: Option<UpstreamMetrics>,
}

impl UpstreamContext {
    /// Creates a context with the machine's root certificates, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a counter of failures.
    #[must_use]
    pub fn counting(self, metrics: UpstreamMetrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    pub(super) fn failed(&self, destination: &str, fault: Fault) {
        self.metrics.iter().for_each(|metrics| metrics.failed(destination, fault));
    }

    /// Creates a context with these root certificates only.
    ///
    /// # Errors
    /// TLS cannot be set up at all.
    #[cfg(test)]
    pub(super) fn with_roots(roots: RootCertStore) -> Result<Self, rustls::Error> {
        let config = Arc::new(OnceCell::new_with(Some(Arc::new(configure(roots)?))));
        Ok(Self { config, ..Self::default() })
    }

    /// The configuration, read at the first call. After an error the next call reads again.
    async fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let load = || async {
            let loaded = tokio::task::spawn_blocking(load).await;
            loaded.unwrap_or_else(|error| Err(format!("root certificates cannot be read: {error}")))
        };
        self.config.get_or_try_init(load).await.cloned()
    }
}

/// Unreadable files of certificates that are logged, at most: a directory may be full of them.
const MAX_TOLD: usize = 4;

fn load() -> Result<Arc<ClientConfig>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    for error in found.errors.iter().take(MAX_TOLD) {
        tracing::warn!(event = event::CERTIFICATES_UNREADABLE, %error, "certificates could not be read: check SSL_CERT_FILE and SSL_CERT_DIR");
    }
    if roots.is_empty() {
        let error = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        let fix = "install ca-certificates, or set SSL_CERT_FILE to a file with PEM certificates in it";
        return Err(format!("no root certificates{error}: {fix}"));
    }
    configure(roots).map(Arc::new).map_err(|error| error.to_string())
}

fn configure(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    // Our verifier needs at least one certificate.
    let builder = if roots.is_empty() {
        builder.with_root_certificates(roots)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier::new(roots)?))
    };
    Ok(builder.with_no_client_auth())
}

/// The reason why there is no TLS.
#[derive(Debug)]
pub(super) struct NotSecured {
    pub(super) fault: Fault,
    pub(super) why: String,
}

impl NotSecured {
    fn untrusted(why: String) -> Self {
        Self { fault: Fault::Untrusted, why }
    }

    fn of(error: &io::Error, host: &str) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let fault = match tls {
            Some(rustls::Error::InvalidCertificate(_)) => Fault::Untrusted,
            Some(_) => Fault::Protocol,
            None => Fault::Unreachable,
        };
        let why = tls.map_or_else(|| error.to_string(), |error| trust::explain(error, host));
        Self { fault, why: format!("TLS: {why}") }
    }
}

/// Begins TLS as the client; its deadline is the machine's.
pub(super) fn secure(shared: &UpstreamContext, host: &str, stream: TcpStream) -> Secure {
    let shared = shared.clone();
    let host = host.to_owned();
    Box::pin(async move {
        let config = shared.config().await.map_err(NotSecured::untrusted)?;
        let name = ServerName::try_from(host.clone())
            .map_err(|_| NotSecured::untrusted("the host is no name that a certificate can have".to_owned()))?;
        TlsConnector::from(config).connect(name, stream).await.map_err(|error| NotSecured::of(&error, &host))
    })
}
