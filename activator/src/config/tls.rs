//! The scaler's own certificate, and the authorities whose certificates it accepts; and what the listeners' files of certificates share. In: PEM files.
//! Out: rustls' configuration, or the mistake in them. Next: `net`, which reads them again when they change, then `scaler`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use liveedgecast_common::config::read_file;
use liveedgecast_common::encryption::{Flaw, certificate_end, certificates, flaw, private_key};
use liveedgecast_common::key::Secret;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// Files that make up the TLS configuration of a listener.
pub trait TlsFiles {
    /// The setting that the log names when they change.
    const SETTING: &'static str;

    /// Every file.
    fn paths(&self) -> Vec<&Path>;

    /// The configuration that the files give now.
    ///
    /// # Errors
    /// They cannot be read, or do not belong together.
    fn config(&self) -> Result<ServerConfig, Flaw>;

    /// Seconds since 1970 at which the first of the certificates expires; `None` if it cannot be told.
    fn end(&self) -> Option<u64>;
}

/// PEM texts, as KEDA's TriggerAuthentication has their other halves (`caCert`, `tlsClientCert`, `tlsClientKey`).
#[derive(Clone, Debug)]
struct Files {
    /// Certificate of the scaler, with those that lead to its authority.
    certificate: String,
    /// Key of the certificate.
    key: Secret,
    /// Authorities of clients; any client may call without it.
    client_ca: Option<String>,
}

/// The files of the scaler's certificate.
#[derive(Clone, Debug)]
pub struct ScalerTls {
    /// `SCALER_TLS_CERT_FILE`: the certificate, with those that lead to its authority.
    pub certificate: PathBuf,
    /// `SCALER_TLS_KEY_FILE`: the key of the certificate.
    pub key: PathBuf,
    /// `SCALER_TLS_CLIENT_CA_FILE`: the authorities of clients; any client may ask without it.
    pub client_ca: Option<PathBuf>,
}

const CERTIFICATE: &str = "SCALER_TLS_CERT_FILE";
const KEY: &str = "SCALER_TLS_KEY_FILE";
const CLIENT_CA: &str = "SCALER_TLS_CLIENT_CA_FILE";

impl TlsFiles for ScalerTls {
    const SETTING: &'static str = CERTIFICATE;

    fn paths(&self) -> Vec<&Path> {
        let all = [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()];
        all.into_iter().flatten().map(PathBuf::as_path).collect()
    }

    fn config(&self) -> Result<ServerConfig, Flaw> {
        let read = |setting, path: &Path| read_file(path).map_err(|error| flaw(setting, error));
        let files = Files {
            certificate: read(CERTIFICATE, &self.certificate)?,
            key: Secret::new(read(KEY, &self.key)?),
            client_ca: self.client_ca.as_deref().map(|path| read(CLIENT_CA, path)).transpose()?,
        };
        files.config()
    }

    fn end(&self) -> Option<u64> {
        certificate_end(CERTIFICATE, &self.certificate)
    }
}

impl Files {
    fn config(&self) -> Result<ServerConfig, Flaw> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(CERTIFICATE, &self.certificate)?;
        let key = private_key(&self.key).map_err(|sentence| flaw(KEY, sentence))?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| flaw(CERTIFICATE, error))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(CLIENT_CA, authorities)? {
                    roots.add(authority).map_err(|error| flaw(CLIENT_CA, error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| flaw(CLIENT_CA, error))?)
            }
        };
        let with_key = builder.with_single_cert(chain, key);
        let mut config =
            with_key.map_err(|error| flaw(CERTIFICATE, format_args!("cannot be used with its key: {error}")))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}
