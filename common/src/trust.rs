//! The verdict on an upstream's certificate, and the reason against it in words.
//!
//! In: certificates, and the errors of rustls. Out: a verdict, and a sentence with the fix.
//!
//! Note: `openssl req -x509` makes certificates of an authority (`CA:TRUE`), and webpki takes none of those for a server's, listed or not.
//! A certificate that the operator has listed itself needs no issuer: only its name, its time and its key are left to be verified.

use std::fmt::Write as _;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::key::LogSafe;

/// Names of a certificate that are shown.
const MAX_NAMES: usize = 3;

/// The verifier of webpki, and the listed certificates.
#[derive(Debug)]
pub struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    listed: Arc<RootCertStore>,
}

impl Verifier {
    /// The verifier that trusts these certificates, of authorities and of servers.
    ///
    /// # Errors
    /// There is none, or TLS cannot be set up at all.
    pub fn new(listed: RootCertStore) -> Result<Self, Error> {
        let listed = Arc::new(listed);
        let provider = Arc::new(ring::default_provider());
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::clone(&listed), provider).build();
        Ok(Self { webpki: webpki.map_err(|error| Error::General(error.to_string()))?, listed })
    }

    /// Returns whether subject and key are those of a listed certificate. An owner of such a key could sign any certificate with it.
    fn lists(&self, certificate: &CertificateDer<'_>) -> bool {
        let mut alone = RootCertStore::empty();
        alone.add(certificate.clone().into_owned()).is_ok()
            && alone.roots.iter().all(|root| self.listed.roots.contains(root))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.webpki.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The certificate's time has been verified before either of these errors.
            Err(Error::InvalidCertificate(why))
                if (is_of_an_authority(&why) || why == CertificateError::UnknownIssuer) && self.lists(certificate) =>
            {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Returns whether it is webpki's error for an authority's certificate, which rustls has no name for.
fn is_of_an_authority(why: &CertificateError) -> bool {
    is_other(why, "CaUsedAsEndEntity")
}

fn is_other(why: &CertificateError, name: &str) -> bool {
    matches!(why, CertificateError::Other(other) if other.to_string() == name)
}

/// The error in words, with its fix.
#[must_use]
pub fn explain(error: &Error, host: &str) -> String {
    match error {
        Error::InvalidCertificate(why) => explain_certificate(why, host),
        Error::InvalidMessage(_) => {
            "the server does not answer with TLS: without TLS at that port, the push URL begins with rtmp://".to_owned()
        }
        Error::PeerIncompatible(why) => {
            format!("the server has neither TLS 1.2 nor 1.3 with a cipher of ours: {why:?}")
        }
        Error::AlertReceived(alert) => format!("the server refuses our TLS: {alert:?}"),
        other => other.to_string(),
    }
}

fn explain_certificate(why: &CertificateError, host: &str) -> String {
    use CertificateError::{
        BadEncoding, BadSignature, Expired, ExpiredContext, InvalidPurpose, InvalidPurposeContext, NotValidForName,
        NotValidForNameContext, NotValidYet, NotValidYetContext, Other, UnknownIssuer,
        UnsupportedSignatureAlgorithmContext, UnsupportedSignatureAlgorithmForPublicKeyContext,
    };
    let text = match why {
        UnknownIssuer => {
            "the certificate is of no authority that we trust: put the authority's certificate, or the server's own, into \
             SSL_CERT_FILE"
        }
        why if is_of_an_authority(why) => {
            "the certificate is an authority's (CA:TRUE), as self-signed ones are, and not one that we trust: put it into \
             SSL_CERT_FILE"
        }
        Expired => "the certificate has expired: renew it",
        ExpiredContext { time, not_after } => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / 86_400;
            return format!("the certificate expired {days} days ago: renew it, or put this machine's clock right");
        }
        NotValidYet | NotValidYetContext { .. } => {
            "the certificate is not valid yet: put this machine's clock right, or wait"
        }
        NotValidForNameContext { presented, .. } if presented.is_empty() => return nameless(host),
        NotValidForNameContext { presented, .. } => {
            let mut names = String::new();
            for name in presented.iter().take(MAX_NAMES) {
                let separator = if names.is_empty() { "" } else { ", " };
                let _ = write!(names, "{separator}{}", LogSafe(bare(name)));
            }
            let more = if presented.len() > MAX_NAMES { " and others" } else { "" };
            return format!(
                "the certificate is for {names}{more}, not for {host}: write such a name into the push URL, or make a \
                 certificate for this one"
            );
        }
        NotValidForName => return nameless(host),
        InvalidPurpose | InvalidPurposeContext { .. } => {
            "the certificate is not for servers: its extended key usage needs serverAuth"
        }
        BadEncoding => "the certificate cannot be read: make a new one",
        BadSignature => {
            "the server does not have the key of its certificate, or an authority of that name has another key"
        }
        UnsupportedSignatureAlgorithmContext { .. } | UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the certificate, or its authority's, is signed in a way that is no longer trusted, such as SHA-1: make one that \
             is signed with SHA-256"
        }
        // `openssl x509 -req` makes them where no extensions are given.
        why if is_other(why, "UnsupportedCertVersion") => {
            "the certificate is of X.509 version 1, which has no names: make one of version 3 with subjectAltName"
        }
        Other(other) => return format!("the certificate is rejected: {other}"),
        other => return other.to_string(),
    };
    text.to_owned()
}

fn nameless(host: &str) -> String {
    let kind = if host.parse::<std::net::IpAddr>().is_ok() { "IP" } else { "DNS" };
    format!(
        "the certificate has no name in its subjectAltName, and its common name does not count: make one with \
         subjectAltName={kind}:{host}"
    )
}

/// The bare name in `DnsName("a.example")` and `IpAddress(192.0.2.1)`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').map_or(name, |(_, rest)| rest.trim_end_matches(')'));
    inner.trim_matches('"')
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, InvalidMessage, OtherError};

    use super::*;

    fn other(name: &'static str) -> CertificateError {
        let inner = std::io::Error::other(name);
        CertificateError::Other(OtherError(Arc::new(inner)))
    }

    fn names(presented: &[&str]) -> CertificateError {
        let expected = ServerName::try_from("h").unwrap();
        let presented = presented.iter().map(|name| (*name).to_owned()).collect();
        CertificateError::NotValidForNameContext { expected, presented }
    }

    #[test]
    fn rejections_are_explained_with_their_fix_and_not_in_rusts_words() {
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let rows = [
            (CertificateError::UnknownIssuer, "SSL_CERT_FILE"),
            (other("CaUsedAsEndEntity"), "(CA:TRUE)"),
            (other("UnsupportedCertVersion"), "version 3 with subjectAltName"),
            (other("SomethingNew"), "rejected: SomethingNew"),
            (CertificateError::ExpiredContext { time: at(864_000), not_after: at(0) }, "expired 10 days ago: renew it"),
            (CertificateError::NotValidYetContext { time: at(0), not_before: at(9) }, "clock"),
            (names(&[]), "subjectAltName=DNS:h"),
            (names(&["DnsName(\"a.example\")", "IpAddress(192.0.2.1)"]), "for a.example, 192.0.2.1, not for h"),
            (names(&["a", "b", "c", "d"]), "for a, b, c and others, not for h"),
            (CertificateError::InvalidPurpose, "serverAuth"),
            (CertificateError::BadEncoding, "make a new one"),
            (CertificateError::BadSignature, "key"),
        ];
        for (why, expected) in rows {
            let text = explain(&Error::InvalidCertificate(why), "h");
            assert!(text.contains(expected), "{expected}: {text}");
            assert!(!["Context", "OtherError", "Name(", "{"].iter().any(|word| text.contains(word)), "{text}");
        }
        assert!(explain(&Error::InvalidMessage(InvalidMessage::InvalidContentType), "h").contains("rtmp://"));
        let refused = explain(&Error::AlertReceived(AlertDescription::HandshakeFailure), "h");
        assert!(refused.contains("HandshakeFailure"), "{refused}");
        assert!(explain(&Error::InvalidCertificate(names(&[])), "192.0.2.1").contains("subjectAltName=IP:192.0.2.1"));
    }
}
