//! The scaler with TLS, as KEDA meets it with a TriggerAuthentication.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::*;
use crate::config::{ScalerTls, TlsFiles};
use crate::net::CurrentTls;

/// An authority, and the certificate and key that it has signed for `localhost`.
struct Signed {
    authority: String,
    certificate: String,
    key: String,
}

fn signed() -> Signed {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    Signed { authority: authority.pem(), certificate: leaf.pem(), key: key.serialize_pem() }
}

/// Lays files as in a mounted Secret: behind a link, which is swapped.
fn lay(folder: &Path, signed: &Signed) {
    let laid = tempfile::tempdir_in(folder).unwrap().keep();
    for (name, text) in [("tls.crt", &signed.certificate), ("tls.key", &signed.key), ("ca.crt", &signed.authority)] {
        std::fs::write(laid.join(name), text).unwrap();
    }
    let next = folder.join("next");
    std::os::unix::fs::symlink(laid, &next).unwrap();
    std::fs::rename(next, folder.join("now")).unwrap();
}

fn paths(folder: &TempDir) -> ScalerTls {
    let now = folder.path().join("now");
    ScalerTls { certificate: now.join("tls.crt"), key: now.join("tls.key"), client_ca: Some(now.join("ca.crt")) }
}

/// The answer to a poll of a client that trusts `trusted` and shows `identity`.
async fn poll(house: &House, trusted: &Signed, identity: Option<&Signed>) -> Result<(f64, bool), String> {
    keda(house, trusted, identity).await?.poll().await.map_err(|status| status.to_string())
}

async fn keda(house: &House, trusted: &Signed, identity: Option<&Signed>) -> Result<Keda, String> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&trusted.authority)).domain_name("localhost");
    let tls = match identity {
        Some(own) => tls.identity(Identity::from_pem(&own.certificate, &own.key)),
        None => tls,
    };
    let endpoint = Endpoint::from_shared(format!("https://{}", house.address)).unwrap().tls_config(tls).unwrap();
    // With TLS 1.3 a client learns only by its first call that it was turned away.
    let channel = endpoint.connect().await.map_err(|error| format!("{error:?}"))?;
    Ok(Keda::new(channel, &[]))
}

#[tokio::test]
async fn with_tls_keda_keeps_its_push_stream_while_strangers_hold_idle_connections() {
    let (folder, one) = (tempfile::tempdir().unwrap(), signed());
    lay(folder.path(), &one);
    let house = house_with(Fleet::Process, Some(CurrentTls::new(paths(&folder)).unwrap()));
    let mut keda = keda(&house, &one, Some(&one)).await.unwrap();
    let mut stream = keda.stream().await.unwrap();
    let _undecided = house.dial_in_silence().await;
    let _place = house.publisher("a", "live");
    assert_eq!(keda.pushed(&mut stream).await, Some(true));
}

#[tokio::test]
async fn poll_is_answered_when_the_certificate_is_signed_by_the_client_authority() {
    let (folder, one) = (tempfile::tempdir().unwrap(), signed());
    lay(folder.path(), &one);
    let house = house_with(Fleet::Process, Some(CurrentTls::new(paths(&folder)).unwrap()));
    assert_eq!(poll(&house, &one, Some(&one)).await, Ok((0.0, false)));
    assert!(poll(&house, &one, None).await.is_err(), "a stranger");
    assert!(poll(&house, &one, Some(&signed())).await.is_err(), "known to another authority");
    let clear = Endpoint::from_shared(format!("http://{}", house.address)).unwrap();
    if let Ok(channel) = clear.connect().await {
        assert!(Keda::new(channel, &[]).poll().await.is_err());
    }
}

#[tokio::test]
async fn changed_files_apply_from_the_next_connection_unless_they_are_bad() {
    let (folder, one, two) = (tempfile::tempdir().unwrap(), signed(), signed());
    lay(folder.path(), &one);
    let house = house_with(Fleet::Process, Some(CurrentTls::new(paths(&folder)).unwrap()));
    assert_eq!(poll(&house, &one, Some(&one)).await, Ok((0.0, false)));

    lay(folder.path(), &two);
    assert_eq!(poll(&house, &two, Some(&two)).await, Ok((0.0, false)));
    assert!(poll(&house, &one, Some(&one)).await.is_err(), "who was known before");
    assert!(poll(&house, &two, Some(&one)).await.is_err(), "who was known before, and knows us");

    std::fs::write(folder.path().join("now/tls.key"), "nonsense").unwrap();
    assert_eq!(poll(&house, &two, Some(&two)).await, Ok((0.0, false)));
    lay(folder.path(), &one);
    assert_eq!(poll(&house, &one, Some(&one)).await, Ok((0.0, false)));
}

#[tokio::test]
async fn poll_is_answered_while_strangers_leave_handshakes_unfinished() {
    let (folder, one) = (tempfile::tempdir().unwrap(), signed());
    lay(folder.path(), &one);
    let house = house_with(Fleet::Process, Some(CurrentTls::new(paths(&folder)).unwrap()));
    let mut silent = Vec::new();
    for _ in 0..MAX_STRANGERS {
        silent.push(tokio::net::TcpStream::connect(house.address).await.unwrap());
    }
    assert_eq!(timeout(Duration::from_secs(10), poll(&house, &one, Some(&one))).await, Ok(Ok((0.0, false))));
}

#[test]
fn bad_file_is_rejected_under_the_name_of_its_setting() {
    let (folder, one, other) = (tempfile::tempdir().unwrap(), signed(), signed());
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (certificate, key, authority) =
        (write("tls.crt", &one.certificate), write("tls.key", &one.key), write("ca.crt", &one.authority));
    let (nothing, other_key) = (write("nothing", "nothing PRIVATE"), write("other.key", &other.key));
    let flaw = |certificate: &Path, key: &Path, client_ca: Option<&Path>| {
        let paths = ScalerTls {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            client_ca: client_ca.map(Path::to_owned),
        };
        paths.config().err().map(|flaw| {
            assert!(!flaw.to_string().contains("PRIVATE"), "{flaw}");
            flaw.setting
        })
    };
    assert_eq!(flaw(&certificate, &key, None), None);
    assert_eq!(flaw(&certificate, &key, Some(&authority)), None);
    assert_eq!(flaw(&nothing, &key, None), Some("SCALER_TLS_CERT_FILE"));
    assert_eq!(flaw(&certificate, &other_key, None), Some("SCALER_TLS_CERT_FILE"));
    assert_eq!(flaw(&certificate, &nothing, None), Some("SCALER_TLS_KEY_FILE"));
    assert_eq!(flaw(&certificate, &key, Some(&nothing)), Some("SCALER_TLS_CLIENT_CA_FILE"));
    assert_eq!(flaw(&certificate, &folder.path().join("none"), None), Some("SCALER_TLS_KEY_FILE"));
}
