//! The scaler's own certificate, and whose certificates it asks for. In: PEM texts. Out: tonic's configuration, tried.

use liveedgecast_common::key::Secret;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::limits::HANDSHAKE_TIMEOUT;

/// PEM texts, as KEDA's TriggerAuthentication has their other halves (`caCert`, `tlsClientCert`, `tlsClientKey`).
#[derive(Clone, Debug)]
pub struct Files {
    /// Our certificate, with those that lead to its authority.
    pub certificate: String,
    /// Its key.
    pub key: Secret,
    /// The authority of those who may ask; anyone without.
    pub client_ca: Option<String>,
}

impl Files {
    /// What tonic takes.
    ///
    /// # Errors
    /// They do not belong together or cannot be read; the text has no key in it.
    pub fn config(&self) -> Result<ServerTlsConfig, String> {
        let mut config = ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.certificate, self.key.expose()))
            .timeout(HANDSHAKE_TIMEOUT);
        if let Some(authority) = &self.client_ca {
            config = config.client_ca_root(Certificate::from_pem(authority));
        }
        // tonic looks at it only now.
        match Server::builder().tls_config(config.clone()) {
            Ok(_) => Ok(config),
            Err(error) => Err(std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)),
        }
    }
}
