//! Certificates that were given for the connections between our own processes, in place of those that a process makes for itself. In: the settings
//! `INTERNAL_TLS_…` and their PEM files. Out: rustls' configurations for both sides, of the files as they are when a connection comes. Next:
//! [`super::Protection`].
//!
//! Both sides show their certificate, and both verify the other's: signed by an authority of the file, in force now, and for its side of the
//! connection (extended key usage). Addresses and names of pods come and go, so the name that is dialed is not what a certificate is checked for; with
//! `INTERNAL_TLS_NAME`, each side has to have that one name.
//!
//! The files are looked at when a connection is made, not by a timer: an idle process wakes for nothing. A connection that is there goes on
//! with the certificates that it was made with.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::end::certificate_end;
use super::pem::{CertificateFiles, Flaw, certificates_of, flaw, of};
use super::{Encryption, Protection, for_us_alone};
use crate::config::{Problems, Watched};
use crate::event;
use crate::setting::{file, set};

const CERTIFICATE: &str = "LIVEEDGECAST_INTERNAL_TLS_CERT_FILE";
const KEY: &str = "LIVEEDGECAST_INTERNAL_TLS_KEY_FILE";
const AUTHORITIES: &str = "LIVEEDGECAST_INTERNAL_TLS_CA_FILE";
const NAME: &str = "LIVEEDGECAST_INTERNAL_TLS_NAME";

/// The settings of certificates between our own processes, the same in both programs, as typed.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct InternalTlsArgs {
    /// This process's certificate (PEM) for connections between activators and workers, with those that lead to its authority; like the other two files read
    /// again when it changes [default: each process makes one for itself, and the control secret alone is proved]
    #[arg(long, env = "LIVEEDGECAST_INTERNAL_TLS_CERT_FILE", value_name = "PATH")]
    pub internal_tls_cert_file: Option<PathBuf>,
    /// The key of this certificate (PEM)
    #[arg(long, env = "LIVEEDGECAST_INTERNAL_TLS_KEY_FILE", value_name = "PATH")]
    pub internal_tls_key_file: Option<PathBuf>,
    /// Authorities (PEM) of the certificates of activators and workers
    #[arg(long, env = "LIVEEDGECAST_INTERNAL_TLS_CA_FILE", value_name = "PATH")]
    pub internal_tls_ca_file: Option<PathBuf>,
    /// A DNS name that the certificate of every activator and worker has to have, such as liveedgecast
    /// [default: any certificate of the authorities]
    #[arg(long, env = "LIVEEDGECAST_INTERNAL_TLS_NAME", value_name = "NAME")]
    pub internal_tls_name: Option<String>,
}

impl InternalTlsArgs {
    /// The protection of connections by these settings and `ENCRYPTION`. Reads the files.
    #[must_use]
    pub fn resolve(&self, encryption: Encryption, problems: &mut Problems) -> Protection {
        let paths = [
            (CERTIFICATE, file(&self.internal_tls_cert_file)),
            (KEY, file(&self.internal_tls_key_file)),
            (AUTHORITIES, file(&self.internal_tls_ca_file)),
        ];
        let name = set(&self.internal_tls_name);
        if name.is_none() && paths.iter().all(|(_, path)| path.is_none()) {
            return encryption.into();
        }
        for (setting, path) in &paths {
            if path.is_none() {
                let text = "is required with the other settings LIVEEDGECAST_INTERNAL_TLS_…: certificate, key and authorities belong together";
                problems.add(*setting, text);
            }
        }
        if encryption == Encryption::Off {
            problems.add(
                "ENCRYPTION",
                "is off, so no certificate would be shown: use auto or on, or remove LIVEEDGECAST_INTERNAL_TLS_…",
            );
        }
        let name = name.and_then(|name| {
            let parsed =
                ServerName::try_from(name.to_owned()).ok().filter(|name| matches!(name, ServerName::DnsName(_)));
            if parsed.is_none() {
                problems.add(
                    NAME,
                    format_args!("{name:?} is no DNS name: write one that every certificate has, such as liveedgecast"),
                );
            }
            parsed
        });
        let [(_, Some(certificate)), (_, Some(key)), (_, Some(authorities))] = paths else { return encryption.into() };
        let files = InternalTlsFiles { own: CertificateFiles { certificate, key }, authorities, name };
        match GivenCertificates::new(files) {
            Ok(given) => Protection { encryption, certificates: Some(Arc::new(given)) },
            Err(flaw) => {
                problems.add(flaw.setting, flaw.sentence);
                encryption.into()
            }
        }
    }
}

/// The files of the settings, and the name that certificates have to have.
#[derive(Clone, Debug)]
pub(super) struct InternalTlsFiles {
    pub(super) own: CertificateFiles,
    pub(super) authorities: PathBuf,
    pub(super) name: Option<ServerName<'static>>,
}

/// The configurations of both sides.
#[derive(Clone)]
pub(super) struct BothSides {
    pub(super) dialing: Arc<ClientConfig>,
    pub(super) accepting: Arc<ServerConfig>,
}

/// The certificates of the files as they are when a connection is made; of the last good files, if the present ones are bad.
pub(super) struct GivenCertificates {
    files: InternalTlsFiles,
    // A lock, because every connection's task asks; held while the files are looked at, and read if they have changed.
    present: Mutex<PresentCertificates>,
}

struct PresentCertificates {
    watched: Vec<Watched>,
    both: BothSides,
    end: Option<u64>,
}

impl fmt::Debug for GivenCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GivenCertificates").field("files", &self.files).finish_non_exhaustive()
    }
}

impl GivenCertificates {
    pub(super) fn new(files: InternalTlsFiles) -> Result<Self, Flaw> {
        let watched = files.paths().into_iter().map(Watched::new).collect();
        let (both, end) = (files.read(UnixTime::now())?, files.end());
        Ok(Self { files, present: Mutex::new(PresentCertificates { watched, both, end }) })
    }

    /// The flags by which another process of ours gets the same files.
    #[must_use]
    pub(super) fn flags(&self) -> Vec<(&'static str, String)> {
        let shown = |path: &Path| path.display().to_string();
        let name = self.files.name.as_ref().map(|name| ("--internal-tls-name", name.to_str().into_owned()));
        let files = [
            ("--internal-tls-cert-file", shown(&self.files.own.certificate)),
            ("--internal-tls-key-file", shown(&self.files.own.key)),
            ("--internal-tls-ca-file", shown(&self.files.authorities)),
        ];
        files.into_iter().chain(name).collect()
    }

    /// Configurations for one connection.
    pub(super) fn both_sides(&self) -> BothSides {
        self.present().both.clone()
    }

    /// Seconds since 1970 at which our own certificate expires, if that can be told.
    pub(super) fn end(&self) -> Option<u64> {
        self.present().end
    }

    /// The files, read again if they have changed.
    fn present(&self) -> MutexGuard<'_, PresentCertificates> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        // Every file is checked, or the second of two changed files would be found changed at the next connection again.
        if present.watched.iter_mut().fold(false, |before, file| file.is_another() | before) {
            match self.files.read(UnixTime::now()) {
                Ok(both) => {
                    tracing::info!(event = event::FILE_RELOADED, setting = CERTIFICATE, "certificates read again");
                    (present.both, present.end) = (both, self.files.end());
                }
                Err(flaw) => {
                    tracing::error!(event = event::FILE_REJECTED, setting = flaw.setting, %flaw, "certificates rejected, the last ones stay in force");
                }
            }
        }
        present
    }
}

impl InternalTlsFiles {
    /// Seconds since 1970 at which our own certificate expires, if that can be told.
    fn end(&self) -> Option<u64> {
        certificate_end(CERTIFICATE, &self.own.certificate)
    }

    fn paths(&self) -> [&Path; 3] {
        [&self.own.certificate, &self.own.key, &self.authorities]
    }

    /// The configurations that the files give. `now`: our own certificate has to be good then, too.
    pub(super) fn read(&self, now: UnixTime) -> Result<BothSides, Flaw> {
        let provider = Arc::new(ring::default_provider());
        let certified = self.own.read((CERTIFICATE, KEY), &provider)?;
        let mut roots = RootCertStore::empty();
        for authority in certificates_of(AUTHORITIES, &self.authorities)? {
            roots.add(authority).map_err(|error| of(AUTHORITIES, &self.authorities, &error))?;
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build();
        let clients = clients.map_err(|error| of(AUTHORITIES, &self.authorities, &error))?;
        let verifier = Arc::new(OfOurs { roots, clients, name: self.name.clone(), provider: Arc::clone(&provider) });
        self.judge_own(&verifier, &certified, now)?;

        let own = Arc::new(SingleCertAndKey::from(certified));
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[&TLS13]);
        let builder = builder.map_err(|error| flaw(CERTIFICATE, error))?;
        let mut accepting =
            builder.with_client_cert_verifier(Arc::clone(&verifier) as _).with_cert_resolver(Arc::clone(&own) as _);
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
        let builder = builder.map_err(|error| flaw(CERTIFICATE, error))?;
        let mut dialing = builder.dangerous().with_custom_certificate_verifier(verifier).with_client_cert_resolver(own);
        for_us_alone(&mut accepting, &mut dialing);
        Ok(BothSides { dialing: Arc::new(dialing), accepting: Arc::new(accepting) })
    }

    /// The mistake for which every other process would refuse our certificate.
    fn judge_own(&self, verifier: &OfOurs, certified: &CertifiedKey, now: UnixTime) -> Result<(), Flaw> {
        let Some((end, chain)) = certified.cert.split_first() else {
            return Err(of(CERTIFICATE, &self.own.certificate, &"has no certificate in PEM"));
        };
        let as_server = verifier.judge_server(end, chain, now);
        let judged = as_server.and_then(|()| verifier.verify_client_cert(end, chain, now).map(drop));
        judged.map_err(|error| {
            let authorities = self.authorities.display();
            let text = match &error {
                Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                    "has expired: renew it, or set the clock right".to_owned()
                }
                Error::InvalidCertificate(
                    CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
                ) => "is not in force yet: set the clock right, or make another one".to_owned(),
                Error::InvalidCertificate(
                    CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
                ) => "is not for both sides of a connection: make it with the extended key usages serverAuth and clientAuth".to_owned(),
                Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
                    format!("does not have the name of {NAME}: make it with that DNS name, or correct the setting")
                }
                // An authority that was made anew under the same name has another key.
                Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                    format!("is not signed by an authority in {authorities} ({AUTHORITIES}): put its authority there, or make another certificate")
                }
                error => format!("does not pass with the authorities in {authorities}: {error}"),
            };
            of(CERTIFICATE, &self.own.certificate, &text)
        })
    }
}

/// Accepts the certificates of our own processes: of the authorities, in force, for their side, with the name if there is one to have.
#[derive(Debug)]
struct OfOurs {
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    name: Option<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
}

impl OfOurs {
    fn judge_server(&self, end: &CertificateDer<'_>, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(end)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, chain, now, algorithms)?;
        self.judge_name(&parsed)
    }

    fn judge_name(&self, end: &ParsedCertificate<'_>) -> Result<(), Error> {
        self.name.as_ref().map_or(Ok(()), |name| verify_server_name(end, name))
    }

    fn judge_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }
}

/// The error for a version of TLS that is never negotiated.
fn other_version() -> Error {
    Error::General("TLS 1.3 alone is spoken".to_owned())
}

impl ServerCertVerifier for OfOurs {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge_server(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(other_version())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for OfOurs {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Our processes have one certificate each, so there is nothing to choose by a hint.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.clients.verify_client_cert(end_entity, intermediates, now)?;
        self.judge_name(&ParsedCertificate::try_from(end_entity)?)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(other_version())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "given_tests.rs"]
mod tests;
