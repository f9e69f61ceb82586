//! Files of certificates, good and bad.
#![expect(clippy::disallowed_methods, reason = "tests over files")]

use std::fs;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

/// The files of a new certificate for `name`.
fn lay(folder: &TempDir, name: &str) -> CertificateFiles {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let files = CertificateFiles {
        certificate: folder.path().join(format!("{name}.crt")),
        key: folder.path().join(format!("{name}.key")),
    };
    fs::write(&files.certificate, certificate.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

fn mistake(files: CertificateFiles) -> String {
    RtmpsTls(vec![files]).config().map(drop).unwrap_err().to_string()
}

#[test]
fn files_that_do_not_belong_together_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (lay(&folder, "a.example"), lay(&folder, "b.example"));
    assert!(RtmpsTls(vec![a.clone(), b.clone()]).config().is_ok());
    let mixed = mistake(CertificateFiles { certificate: a.certificate.clone(), key: b.key.clone() });
    assert!(mixed.starts_with("RTMPS_KEY_FILE: ") && mixed.contains("is not the key of the certificate"), "{mixed}");
    let swapped = mistake(CertificateFiles { certificate: a.key.clone(), key: a.certificate.clone() });
    assert!(swapped.starts_with("RTMPS_CERT_FILE: ") && swapped.ends_with("has no certificate in PEM"), "{swapped}");
    let no_key = mistake(CertificateFiles { certificate: a.certificate.clone(), key: a.certificate.clone() });
    assert!(no_key.starts_with("RTMPS_KEY_FILE: ") && no_key.ends_with("has no key in PEM"), "{no_key}");
    let missing = mistake(CertificateFiles { certificate: folder.path().join("none"), key: a.key });
    assert!(missing.starts_with("RTMPS_CERT_FILE: ") && missing.contains("none"), "{missing}");
}

#[test]
fn certificate_is_for_its_own_name_alone() {
    let folder = tempfile::tempdir().unwrap();
    let files = lay(&folder, "a.example");
    let key = files.read((CERTIFICATE, KEY), &ring::default_provider()).unwrap();
    for (name, fits) in [("a.example", true), ("A.Example", true), ("b.example", false)] {
        assert_eq!(is_for(&key, &ServerName::try_from(name).unwrap()), fits, "{name}");
    }
}
