//! Certificates and keys in PEM files. In: paths, with the names of their settings. Out: what rustls needs of them, or the mistake in them. Next:
//! `given`, and the activator's `config` for its listeners of publishers and of KEDA.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::Error;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
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
    let found = found.map_err(|error| flaw(setting, unreadable(&error)))?;
    if found.is_empty() { Err(flaw(setting, "has no certificate in PEM")) } else { Ok(found) }
}

/// The mistake in a PEM file (RFC 7468), without a byte of a key: the parser's own words show lines as numbers, and may quote a secret.
fn unreadable(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => match block(end_marker) {
            Some(label) => format!(
                "has a block `-----BEGIN {label}-----` without its line `-----END {label}-----`: copy the whole file, up to that line"
            ),
            None => {
                "has a block whose line `-----END …-----` is missing: copy the whole file, up to that line".to_owned()
            }
        },
        pem::Error::IllegalSectionStart { .. } => {
            "has a line that begins with `-----BEGIN` and does not end with `-----`: copy the whole file, line by line"
                .to_owned()
        }
        pem::Error::Base64Decode(_) => "has a block that is not Base64: copy the file again".to_owned(),
        pem::Error::SectionTooLarge => "has a block that is too long for a certificate or a key".to_owned(),
        _ => "is not in PEM".to_owned(),
    }
}

/// The label of a block, if it is one that a file of ours may have; the parser gives the bytes between `BEGIN ` and the hyphens, or a whole line.
fn block(marker: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(marker).ok()?.trim().trim_matches('-').trim();
    let label = text.strip_prefix("END ").or_else(|| text.strip_prefix("BEGIN ")).unwrap_or(text);
    let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == ' ';
    (!label.is_empty() && label.len() <= 64 && label.chars().all(plain)).then_some(label)
}

/// The certificates in a file, one at least.
///
/// # Errors
/// The file cannot be read, or as [`certificates`]; the sentence names the file.
pub(super) fn certificates_of(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let text = read_file(path).map_err(|error| flaw(setting, error))?;
    certificates(setting, &text).map_err(|found| of(setting, path, &found.sentence))
}

/// The private key in a text.
///
/// # Errors
/// There is none, or it cannot be read. The sentence shows nothing of it.
pub fn private_key(text: &Secret) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(text.expose().as_bytes()).map_err(|error| match error {
        pem::Error::NoItemsFound => "has no key in PEM".to_owned(),
        error => unreadable(&error),
    })
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
        let der = private_key(&text).map_err(|sentence| of(key, &self.key, &sentence))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_block_is_named_and_none_of_its_bytes_are_shown() {
        const BODY: &str = "c2VjcmV0c2VjcmV0";
        let whole = |label: &str| format!("-----BEGIN {label}-----\n{BODY}\n-----END {label}-----\n");
        let half = |label: &str| format!("-----BEGIN {label}-----\n{BODY}\n");
        let rows = [
            (half("CERTIFICATE"), "-----END CERTIFICATE-----"),
            // The second of a chain.
            (whole("CERTIFICATE") + &half("CERTIFICATE"), "-----END CERTIFICATE-----"),
            (format!("-----BEGIN CERTIFICATE-----\n{BODY}\n-----END CERT"), "-----END CERTIFICATE-----"),
            (format!("-----BEGIN CERTIFICATE\n{BODY}\n"), "does not end with `-----`"),
            ("-----BEGIN CERTIFICATE-----\n*secret*\n-----END CERTIFICATE-----\n".to_owned(), "not Base64"),
            (String::new(), "has no certificate in PEM"),
            (whole("PUBLIC KEY"), "has no certificate in PEM"),
        ];
        for (text, words) in rows {
            let sentence = certificates("A_FILE", &text).unwrap_err().sentence;
            assert!(sentence.contains(words), "{text}: {sentence}");
            assert!(!sentence.contains('[') && !sentence.contains("secret") && !sentence.contains(BODY), "{sentence}");
        }
        for (text, words) in [
            (half("PRIVATE KEY"), "-----END PRIVATE KEY-----"),
            (half("EC PRIVATE KEY"), "-----END EC PRIVATE KEY-----"),
            ("-----BEGIN PRIVATE KEY-----\n*secret*\n-----END PRIVATE KEY-----\n".to_owned(), "not Base64"),
            (whole("CERTIFICATE"), "has no key in PEM"),
        ] {
            let sentence = private_key(&Secret::new(text)).unwrap_err();
            assert!(sentence.contains(words) && !sentence.contains("secret") && !sentence.contains(BODY), "{sentence}");
        }
    }
}
