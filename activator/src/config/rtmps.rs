//! The certificates of the RTMPS listener. In: PEM files, in pairs. Out: rustls' configuration, which chooses a certificate by the name that
//! a publisher asks for, or the mistake in the files. Next: `accept`, which reads them again when they change.
//!
//! TLS 1.2 and 1.3, no certificates of clients, no ALPN: there is no name for RTMP.
//!
//! Note: no encoder that we know resumes a TLS session, so there are no tickets and no store of sessions: each would be memory for a stranger.

use std::path::Path;
use std::sync::Arc;

use liveedgecast_common::encryption::{CertificateFiles, Flaw, certificate_end, flaw};
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::tls::TlsFiles;

const CERTIFICATE: &str = "RTMPS_CERT_FILE";
const KEY: &str = "RTMPS_KEY_FILE";

/// The files of the RTMPS listener: `RTMPS_CERT_FILE` and `RTMPS_KEY_FILE`, in pairs. The first is shown to publishers that ask for no name,
/// or for one that no certificate has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtmpsTls(pub Vec<CertificateFiles>);

impl TlsFiles for RtmpsTls {
    const SETTING: &'static str = CERTIFICATE;

    fn paths(&self) -> Vec<&Path> {
        self.0.iter().flat_map(|pair| [pair.certificate.as_path(), pair.key.as_path()]).collect()
    }

    fn config(&self) -> Result<ServerConfig, Flaw> {
        let provider = Arc::new(ring::default_provider());
        let keys = self
            .0
            .iter()
            .map(|pair| pair.read((CERTIFICATE, KEY), &provider).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| flaw(CERTIFICATE, error))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(ByName(keys)));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn end(&self) -> Option<u64> {
        self.0.iter().filter_map(|pair| certificate_end(CERTIFICATE, &pair.certificate)).min()
    }
}

/// The certificates, chosen by name.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // One name may have an RSA and an ECDSA certificate, and old encoders know RSA alone.
        let usable = || self.0.iter().filter(|key| key.key.choose_scheme(hello.signature_schemes()).is_some());
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = name.and_then(|name| usable().find(|key| is_for(key, &name)));
        named.or_else(|| usable().next()).cloned()
    }
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = key.end_entity_cert().and_then(ParsedCertificate::try_from);
    certificate.is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok())
}

#[cfg(test)]
#[path = "rtmps_tests.rs"]
mod tests;
