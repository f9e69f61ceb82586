//! Certificates for RTMPS, of upstreams and of activators. Out: a certificate authority in a file, for `SSL_CERT_FILE`, and servers'
//! configurations and files under it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::{NamedTempFile, TempDir};

use crate::wait::{now, wall};

/// A certificate authority that only the scenario knows.
#[derive(Debug)]
pub struct Authority {
    file: NamedTempFile,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes an authority with a new key.
    ///
    /// # Panics
    /// There is no temporary directory.
    #[must_use]
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let file = NamedTempFile::new().expect("a temporary file");
        // Authorities of the same name would be taken for each other, and found out by their signatures alone.
        params.distinguished_name.push(DnType::CommonName, file.path().display().to_string());
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(file.path(), certificate.pem()).expect("the certificate");
        Self { file, issuer: Issuer::new(params, key) }
    }

    /// The authority's certificate, as PEM.
    #[must_use]
    pub fn file(&self) -> &Path {
        self.file.path()
    }

    /// A server's configuration with a certificate for `name`, a host name or an address.
    ///
    /// # Panics
    /// `name` is neither.
    #[must_use]
    pub fn server(&self, name: &str) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        configuration(certificate.der().clone(), &key)
    }

    /// A server's configuration as [`Self::server`], whose certificate ends at `end`.
    ///
    /// # Panics
    /// `name` is neither a host name nor an address.
    #[must_use]
    pub fn server_until(&self, name: &str, end: SystemTime) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_after = end.into();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        configuration(certificate.der().clone(), &key)
    }

    /// Files with a certificate that ends at `end`, as [`Self::files`].
    ///
    /// # Panics
    /// `name` is neither a host name nor an address, or there is no temporary directory.
    #[must_use]
    pub fn files_until(&self, name: &str, end: SystemTime) -> ServerFiles {
        let files = self.files(name);
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_after = end.into();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        for (path, text) in [(&files.certificate, certificate.pem()), (&files.key, key.serialize_pem())] {
            std::fs::write(path, text).expect("a file");
        }
        files
    }

    /// Files with a certificate for `name`, a host name or an address, and its key.
    ///
    /// # Panics
    /// `name` is neither, or there is no temporary directory.
    #[must_use]
    pub fn files(&self, name: &str) -> ServerFiles {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let files = ServerFiles {
            certificate: directory.path().join("tls.crt"),
            key: directory.path().join("tls.key"),
            _directory: directory,
        };
        self.renew(&files, name);
        files
    }

    /// A folder with the files of one of our processes, for the settings `INTERNAL_TLS_…`; the certificate is good for this time.
    ///
    /// # Panics
    /// There is no temporary directory.
    #[must_use]
    pub fn process_files(&self, good_for: Duration) -> ProcessFiles {
        let files = ProcessFiles(tempfile::tempdir().expect("a temporary directory"));
        self.renew_process(&files, good_for, &[self]);
        files
    }

    /// Writes a new certificate, its key and the authorities into the files of a process.
    ///
    /// # Panics
    /// The files cannot be written.
    pub fn renew_process(&self, files: &ProcessFiles, good_for: Duration, trusted: &[&Self]) {
        self.renew_process_until(files, wall(now()) + good_for, trusted);
    }

    /// The same with a certificate that ends at `end`.
    ///
    /// # Panics
    /// The files cannot be written.
    pub fn renew_process_until(&self, files: &ProcessFiles, end: SystemTime, trusted: &[&Self]) {
        for (name, text) in self.process_texts_until(end, trusted) {
            std::fs::write(files.0.path().join(name), text).expect("a file");
        }
    }

    /// A new certificate for one of our processes, its key and the authorities, by the names that they have in a Secret.
    ///
    /// # Panics
    /// The file of an authority is gone.
    #[must_use]
    pub fn process_texts(&self, good_for: Duration, trusted: &[&Self]) -> [(&'static str, String); 3] {
        self.process_texts_until(wall(now()) + good_for, trusted)
    }

    fn process_texts_until(&self, end: SystemTime, trusted: &[&Self]) -> [(&'static str, String); 3] {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["liveedgecast".to_owned()]).expect("a name");
        params.not_after = end.into();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let authorities =
            trusted.iter().map(|authority| std::fs::read_to_string(authority.file()).expect("an authority"));
        [("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem()), ("ca.crt", authorities.collect())]
    }

    /// Writes a new certificate for `name`, and its key, into the files.
    ///
    /// # Panics
    /// `name` is neither a host name nor an address, or the files cannot be written.
    pub fn renew(&self, files: &ServerFiles, name: &str) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        for (path, text) in [(&files.certificate, certificate.pem()), (&files.key, key.serialize_pem())] {
            std::fs::write(path, text).expect("a file");
        }
    }
}

/// The files of a server's certificate and its key, removed with the guard.
#[derive(Debug)]
pub struct ServerFiles {
    /// The certificate, as PEM.
    pub certificate: PathBuf,
    /// The key, as PEM.
    pub key: PathBuf,
    _directory: TempDir,
}

/// The files of a process's certificate, key and authorities, removed with the guard.
#[derive(Debug)]
pub struct ProcessFiles(TempDir);

impl ProcessFiles {
    /// The settings of a process that shows this certificate, on loopback too.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.0.path().join(name).display().to_string();
        vec![
            ("ENCRYPTION", "on".to_owned()),
            ("LIVEEDGECAST_INTERNAL_TLS_CERT_FILE", path("tls.crt")),
            ("LIVEEDGECAST_INTERNAL_TLS_KEY_FILE", path("tls.key")),
            ("LIVEEDGECAST_INTERNAL_TLS_CA_FILE", path("ca.crt")),
        ]
    }
}

/// A server's certificate that nobody has signed, as `openssl req -x509` makes them: an authority's.
#[derive(Debug)]
pub struct SelfSigned {
    file: NamedTempFile,
    server: Arc<ServerConfig>,
}

impl SelfSigned {
    /// Makes a certificate for `name`, a host name or an address.
    ///
    /// # Panics
    /// `name` is neither, or there is no temporary directory.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let file = NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), certificate.pem()).expect("the certificate");
        Self { file, server: configuration(certificate.der().clone(), &key) }
    }

    /// The certificate, as PEM.
    #[must_use]
    pub fn file(&self) -> &Path {
        self.file.path()
    }

    /// The configuration of its server.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }
}

fn configuration(certificate: CertificateDer<'static>, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a key that fits");
    Arc::new(config)
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
