//! Certificates and keys in PEM files. In: paths, with the names of their settings. Out: what rustls needs of them, or the mistake in them. Next:
//! `given`, and the activator's `config` for its listeners of publishers and of KEDA.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::Error;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

use crate::config::read_file;
use crate::key::Secret;

/// A mistake in files of certificates: the setting, and a sentence without a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {sentence}")]
pub struct Flaw {
    /// Setting that names the file.
    pub setting: &'static str,
    /// The mistake and its fix.
    pub sentence: String,
}

/// The mistake in the file of a setting.
pub fn flaw(setting: &'static str, sentence: impl fmt::Display) -> Flaw {
    Flaw { setting, sentence: sentence.to_string() }
}

/// The certificates in a text, one at least.
///
/// # Errors
/// There is none, or one cannot be read.
pub fn certificates(setting: &'static str, text: &str) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let found = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| flaw(setting, error))?;
    if found.is_empty() { Err(flaw(setting, "has no certificate in PEM")) } else { Ok(found) }
}

/// The certificates in a file, one at least.
///
/// # Errors
/// The file cannot be read, or as [`certificates`]; the sentence names the file.
pub(super) fn certificates_of(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let text = read_file(path).map_err(|error| flaw(setting, error))?;
    certificates(setting, &text).map_err(|found| of(setting, path, &found.sentence))
}

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, with those that lead to its authority.
    pub certificate: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// The certificate with its key; the settings name the two files.
    ///
    /// # Errors
    /// A file cannot be read, or they do not belong together.
    pub fn read(
        &self,
        (certificate, key): (&'static str, &'static str),
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, Flaw> {
        let chain = certificates_of(certificate, &self.certificate)?;
        let text = Secret::new(read_file(&self.key).map_err(|error| flaw(key, error))?);
        // The parser's words could quote what it could not read.
        let der = PrivateKeyDer::from_pem_slice(text.expose().as_bytes())
            .map_err(|_| of(key, &self.key, &"has no key in PEM"))?;
        let certified = CertifiedKey::from_der(chain, der, provider).map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                let text = format_args!("is not the key of the certificate {}", self.certificate.display()).to_string();
                of(key, &self.key, &text)
            }
            error => of(certificate, &self.certificate, &format_args!("cannot be used with its key: {error}")),
        })?;
        let end = certified.end_entity_cert().and_then(ParsedCertificate::try_from);
        end.map_err(|error| of(certificate, &self.certificate, &error))?;
        Ok(certified)
    }
}

/// The mistake in a file, with its path.
pub(super) fn of(setting: &'static str, path: &Path, text: &dyn fmt::Display) -> Flaw {
    flaw(setting, format_args!("{}: {text}", path.display()))
}
