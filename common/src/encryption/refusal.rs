//! Certificates between our own processes that one side refuses. In: the error of TLS, at the side that refuses or at the side that is told. Out: a log
//! line that says what to do there. Next: nothing.
//!
//! Note: in TLS 1.3 the accepting side judges the dialing side's certificate when the dialing side has finished its handshake. So the dialing side
//! is told by an alert that comes in place of the first answer.

use std::net::IpAddr;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error};

use crate::clock::now;
use crate::event;
use crate::log_limiter::PeerLogLimiter;

/// Limits the lines about refused certificates: anybody who can connect can cause one, and a worker dials again and again. Each peer has its own line,
/// because one that is wrong for long would hide another one that has just become so.
static REFUSED: PeerLogLimiter = PeerLogLimiter::new(64, Duration::from_secs(10));

/// Logs the error if it is about a certificate. `peer`: the other end of the connection.
pub(super) fn tell(peer: IpAddr, error: &Error) {
    let Some(advice) = advice(error) else { return };
    if REFUSED.is_due(peer, now()) {
        tracing::warn!(event = event::CERTIFICATE_REFUSED, %peer, %error, advice, "certificate between our own processes refused");
    }
}

/// The advice for an error that is about a certificate.
fn advice(error: &Error) -> Option<&'static str> {
    use CertificateError as Of;
    Some(match error {
        Error::NoCertificatesPresented => {
            "the peer shows no certificate: set LIVEEDGECAST_INTERNAL_TLS_CERT_FILE, _KEY_FILE and _CA_FILE there as here"
        }
        Error::InvalidCertificate(Of::Expired | Of::ExpiredContext { .. }) => {
            "the peer's certificate has expired: renew its LIVEEDGECAST_INTERNAL_TLS_CERT_FILE, or set the clocks right"
        }
        Error::InvalidCertificate(Of::NotValidYet | Of::NotValidYetContext { .. }) => {
            "the peer's certificate is not in force yet: set the clocks right"
        }
        Error::InvalidCertificate(Of::InvalidPurpose | Of::InvalidPurposeContext { .. }) => {
            "the peer's certificate is for another use: make it with the extended key usages serverAuth and clientAuth"
        }
        Error::InvalidCertificate(Of::NotValidForName | Of::NotValidForNameContext { .. }) => {
            "the peer's certificate lacks the name of LIVEEDGECAST_INTERNAL_TLS_NAME here: give it that DNS name"
        }
        Error::InvalidCertificate(_) => {
            "the peer's certificate is of no authority in LIVEEDGECAST_INTERNAL_TLS_CA_FILE here: give activators and workers certificates of one authority, and set LIVEEDGECAST_INTERNAL_TLS_… at both sides"
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the peer asks for a certificate: set LIVEEDGECAST_INTERNAL_TLS_CERT_FILE, _KEY_FILE and _CA_FILE here as there"
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "the peer finds the certificate here expired, or not in force yet: renew LIVEEDGECAST_INTERNAL_TLS_CERT_FILE, or set the clocks right"
        }
        // The second where the authority was made anew under the same name.
        Error::AlertReceived(AlertDescription::UnknownCA | AlertDescription::DecryptError) => {
            "the peer does not know the authority of the certificate here: give activators and workers certificates of one authority, and set LIVEEDGECAST_INTERNAL_TLS_… at both sides"
        }
        Error::AlertReceived(AlertDescription::UnsupportedCertificate) => {
            "the peer finds the certificate here to be for another use: make it with the extended key usages serverAuth and clientAuth"
        }
        Error::AlertReceived(AlertDescription::BadCertificate | AlertDescription::CertificateUnknown) => {
            "the peer does not accept the certificate here; its log says why: compare LIVEEDGECAST_INTERNAL_TLS_… at both sides"
        }
        _ => return None,
    })
}
