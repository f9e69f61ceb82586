//! The ports of the settings, and the own certificates. In: settings. Out: those that cannot be had, and certificates that have ended or will soon.

use std::io;
use std::net::{SocketAddr, TcpListener};

use liveedgecast_common::encryption::certificate_end;
use liveedgecast_common::health;
use liveedgecast_common::setting::file;

use super::destinations::{SOON, life};
use super::finding::Findings;
use crate::config::{Args, Settings};

const PORT: &str = "port";
const CERTIFICATE: &str = "certificate";
const INTERNAL: &str = "LIVEEDGECAST_INTERNAL_TLS_CERT_FILE";

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

/// Looks at the certificates that this gateway shows. `now`: seconds since 1970. A file that cannot be read is a mistake, which is found elsewhere.
pub(super) fn certificates(args: &Args, settings: &Settings, now: u64) -> Findings {
    let mut found = Findings::default();
    let rtmps = settings.rtmps_tls.iter().flat_map(|tls| &tls.0).map(|pair| ("RTMPS_CERT_FILE", &pair.certificate));
    let scaler = settings.scaler_tls.iter().map(|tls| ("SCALER_TLS_CERT_FILE", &tls.certificate));
    let internal = file(&args.internal_tls.internal_tls_cert_file);
    let internal = internal.iter().map(|path| (INTERNAL, path));
    for (setting, path) in rtmps.chain(scaler).chain(internal) {
        let Some(end) = certificate_end(setting, path) else { continue };
        let text = format!("{}: {}: renew it", path.display(), life(end, now));
        match end.saturating_sub(now) {
            // The gateway does not start with it, which is found as a mistake.
            _ if end < now && setting == INTERNAL => {}
            // The second of the end is in the certificate's life (RFC 5280, 4.1.2.5).
            _ if end < now => found.fault(CERTIFICATE, setting, text),
            left if left < SOON.as_secs() => found.warning(CERTIFICATE, setting, text),
            left => found.good(format!("certificate {}: lasts for {} days", path.display(), left / 86_400)),
        }
    }
    found
}
