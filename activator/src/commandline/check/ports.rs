//! The ports of the settings, and the own certificates. In: settings. Out: those that cannot be had, and certificates that have ended or will soon.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use liveedgecast_common::config::read_file;
use liveedgecast_common::health;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::destinations::{SOON, expiry};
use super::finding::Findings;
use crate::config::Settings;

const PORT: &str = "port";
const CERTIFICATE: &str = "certificate";

/// Tries every port.
pub(super) fn ports(settings: &Settings) -> Findings {
    let mut found = Findings::default();
    let listen = &settings.listen;
    let all = [
        ("RTMP_LISTEN", Some(listen.rtmp)),
        ("RTMPS_LISTEN", listen.rtmps),
        ("HTTP_LISTEN", Some(listen.http)),
        ("CONTROL_LISTEN", Some(listen.control)),
        ("LINK_LISTEN", Some(listen.link)),
        ("SCALER_LISTEN", listen.scaler),
    ];
    let all: Vec<(&str, SocketAddr)> =
        all.into_iter().filter_map(|(setting, address)| Some((setting, address?))).collect();
    // A gateway with these settings may run here; then the ports are its own.
    let ours = listen.shared || health::ask(listen.http, health::ALIVE).is_ok();
    // They are held until all are tried, so that two settings with one port are found.
    let mut held = Vec::new();
    for (setting, address) in &all {
        match TcpListener::bind(address) {
            Ok(listener) => held.push(listener),
            Err(error) if ours && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => found.fault(PORT, setting, port(setting, *address, &error)),
        }
    }
    if ours {
        found.good("ports: a gateway runs here and has them");
    } else if found.findings.is_empty() {
        found.good(format!("ports: all {} can be had", all.len()));
    }
    found
}

fn port(setting: &str, address: SocketAddr, error: &io::Error) -> String {
    let number = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{address} is in use: end the program that has port {number} (`ss -ltnp` names it), or choose another with {setting}"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "{address} may not be used: choose a port from 1024 on with {setting}, or give the program CAP_NET_BIND_SERVICE"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!(
                "this machine has no address {}: choose one that `ip address` lists, or [::], with {setting}",
                address.ip()
            )
        }
        _ => format!("{address} cannot be used ({error}): choose another with {setting}"),
    }
}

/// Looks at the certificates that this gateway shows.
pub(super) fn certificates(settings: &Settings) -> Findings {
    let mut found = Findings::default();
    let rtmps = settings.rtmps_tls.iter().flat_map(|tls| &tls.0).map(|pair| ("RTMPS_CERT_FILE", &pair.certificate));
    let scaler = settings.scaler_tls.iter().map(|tls| ("SCALER_TLS_CERT_FILE", &tls.certificate));
    for (setting, path) in rtmps.chain(scaler) {
        match end_of(path) {
            Some((true, words)) => {
                found.fault(CERTIFICATE, setting, format!("{}: {words}: renew it", path.display()));
            }
            Some((false, words)) => {
                found.warning(CERTIFICATE, setting, format!("{}: {words}: renew it", path.display()));
            }
            None => found.good(format!("certificate {}: lasts two weeks or more", path.display())),
        }
    }
    found
}

/// Whether the first certificate of a file has ended, and the end in words; nothing if it lasts, or cannot be read, which is a mistake that is found
/// elsewhere.
fn end_of(path: &Path) -> Option<(bool, String)> {
    let text = read_file(path).ok()?;
    let certificate = CertificateDer::pem_slice_iter(text.as_bytes()).next()?.ok()?;
    // Any anchor will do: the time of a certificate is looked at before its issuer.
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).ok()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()?;
    let name = ServerName::try_from("any.invalid").ok()?;
    let now = UnixTime::now();
    let then = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.as_secs()) + SOON);
    for (moment, ended) in [(now, true), (then, false)] {
        let verdict = verifier.verify_server_cert(&certificate, &[], &name, &[], moment);
        if let Some(words) = verdict.err().as_ref().and_then(expiry) {
            return Some((ended, words));
        }
    }
    None
}
