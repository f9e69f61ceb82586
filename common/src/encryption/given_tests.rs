//! Certificates of two authorities over real sockets, files that do not belong together, and files that change.
#![expect(clippy::disallowed_methods, reason = "tests over files, and certificates with times")]

use std::fs;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::encryption::bound_secret;
use crate::key::Secret;
use crate::socket::PeerSocket;

const PATIENCE: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        Self::called("an authority")
    }

    fn called(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate and its key. It is in force until a day after now, unless it has expired.
    fn leaf(&self, expired: bool, usages: &[ExtendedKeyUsagePurpose]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["liveedgecast".to_owned()]).unwrap();
        let now = SystemTime::now();
        params.not_before = (now - 2 * DAY).into();
        params.not_after = if expired { now - DAY } else { now + DAY }.into();
        params.extended_key_usages = usages.to_vec();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A folder with the three files.
struct Folder(TempDir);

impl Folder {
    fn new((certificate, key): (String, String), authorities: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write(&certificate, &key, authorities);
        folder
    }

    fn write(&self, certificate: &str, key: &str, authorities: &str) {
        for (name, text) in [("tls.crt", certificate), ("tls.key", key), ("ca.crt", authorities)] {
            fs::write(self.0.path().join(name), text).unwrap();
        }
    }

    fn args(&self) -> InternalTlsArgs {
        let path = |name: &str| Some(self.0.path().join(name));
        InternalTlsArgs {
            internal_tls_cert_file: path("tls.crt"),
            internal_tls_key_file: path("tls.key"),
            internal_tls_ca_file: path("ca.crt"),
            internal_tls_name: None,
        }
    }

    fn protection(&self) -> Protection {
        resolved(&self.args()).unwrap()
    }

    /// The protection of a process that has read the files some time ago.
    fn read_earlier(&self, ago: Duration) -> Protection {
        let path = |name: &str| self.0.path().join(name);
        let own = CertificateFiles { certificate: path("tls.crt"), key: path("tls.key") };
        let files = InternalTlsFiles { own, authorities: path("ca.crt"), name: None };
        let then = SystemTime::now() - ago;
        let then = UnixTime::since_unix_epoch(then.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        let present = PresentCertificates {
            watched: files.paths().into_iter().map(Watched::new).collect(),
            both: files.read(then).unwrap(),
            end: files.end(),
        };
        let given = GivenCertificates { files, present: Mutex::new(present) };
        Protection { encryption: Encryption::On, certificates: Some(Arc::new(given)) }
    }
}

fn resolved(args: &InternalTlsArgs) -> Result<Protection, String> {
    let mut problems = Problems::new();
    let protection = args.resolve(Encryption::On, &mut problems);
    problems.into_result().map(|()| protection).map_err(|problems| problems.to_string())
}

/// Both ends, each after it has heard from the other one, or the mistake at the end that found it.
async fn pair(
    dialing: &Protection,
    accepting: &Protection,
) -> (std::io::Result<PeerSocket>, std::io::Result<PeerSocket>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let greeted = |mut socket: PeerSocket| async move {
        socket.write_all(b"hello").await?;
        socket.flush().await?;
        let mut hello = [0; 5];
        socket.read_exact(&mut hello).await?;
        Ok(socket)
    };
    let accepted = async {
        let (socket, peer) = listener.accept().await?;
        greeted(accepting.accept(socket, peer.ip()).await?).await
    };
    let dialed = async { greeted(dialing.dial(address, PATIENCE).await?).await };
    tokio::join!(dialed, accepted)
}

#[tokio::test]
async fn certificates_of_one_authority_connect_and_the_secret_is_bound_to_the_connection() {
    let authority = Authority::new();
    let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    for usages in [&[][..], &both] {
        let (one, other) = (
            Folder::new(authority.leaf(false, usages), &authority.pem),
            Folder::new(authority.leaf(false, &[]), &authority.pem),
        );
        let (dialed, accepted) = pair(&one.protection(), &other.protection()).await;
        let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap());
        let secret = Secret::new("a secret of this test");
        assert!(bound_secret(&secret, &dialed).unwrap() == bound_secret(&secret, &accepted).unwrap());
        assert!(bound_secret(&secret, &dialed).unwrap() != secret);
    }
}

#[tokio::test]
async fn certificate_that_does_not_belong_is_refused_by_either_side() {
    let (authority, another) = (Authority::new(), Authority::called("another"));
    let ours = Folder::new(authority.leaf(false, &[]), &authority.pem);
    let both_authorities = format!("{}{}", authority.pem, another.pem);
    // It knows our authority, and its own certificate is another's: the other end alone refuses.
    let shown = Folder::new(another.leaf(false, &[]), &both_authorities);
    let foreign = Folder::new(another.leaf(false, &[]), &another.pem);
    let expired = Folder::new(authority.leaf(true, &[]), &authority.pem);
    let expired = expired.read_earlier(DAY + DAY / 2);
    let bare = Protection::from(Encryption::On);
    let renamed = Authority::new();
    let renamed = Folder::new(renamed.leaf(false, &[]), &format!("{}{}", authority.pem, renamed.pem));
    for (name, other, words) in [
        ("of another authority", &shown.protection(), "UnknownIssuer"),
        ("of another authority, and knows no other", &foreign.protection(), ""),
        ("expired", &expired, "expired"),
        ("of an authority of the same name", &renamed.protection(), "BadSignature"),
        ("self-made", &bare, ""),
    ] {
        for (dialing, accepting) in [(other, &ours.protection()), (&ours.protection(), other)] {
            let (dialed, accepted) = pair(dialing, accepting).await;
            let errors = [dialed.err(), accepted.err()].map(|error| error.map(|error| error.to_string()));
            assert!(errors.iter().all(Option::is_some), "{name}: {errors:?}");
            assert!(errors.iter().flatten().any(|error| error.contains(words)), "{name}: {errors:?}");
        }
    }
    let (dialed, accepted) = pair(&ours.protection(), &ours.protection()).await;
    assert!(dialed.is_ok() && accepted.is_ok());
}

#[test]
fn files_that_do_not_belong_together_are_named_with_their_fix() {
    let (authority, another, again) = (Authority::new(), Authority::called("another"), Authority::new());
    let (good, other) = (authority.leaf(false, &[]), authority.leaf(false, &[]));
    let of = |pair: (String, String), authorities: &str| {
        let folder = Folder::new(pair, authorities);
        resolved(&folder.args()).err().unwrap_or_default()
    };
    let key = good.1.clone();
    for (mistakes, parts) in [
        (of((good.0.clone(), other.1), &authority.pem), ["INTERNAL_TLS_KEY_FILE", "is not the key of the certificate"]),
        (of((good.0.clone(), "no key".to_owned()), &authority.pem), ["INTERNAL_TLS_KEY_FILE", "has no key in PEM"]),
        (of(good.clone(), &another.pem), ["INTERNAL_TLS_CERT_FILE", "is not signed by an authority in"]),
        (of(good.clone(), &again.pem), ["INTERNAL_TLS_CERT_FILE", "is not signed by an authority in"]),
        (of(good.clone(), "nothing"), ["INTERNAL_TLS_CA_FILE", "has no certificate in PEM"]),
        (of(authority.leaf(true, &[]), &authority.pem), ["INTERNAL_TLS_CERT_FILE", "has expired: renew it"]),
        (
            of(authority.leaf(false, &[ExtendedKeyUsagePurpose::ServerAuth]), &authority.pem),
            ["INTERNAL_TLS_CERT_FILE", "serverAuth and clientAuth"],
        ),
        (
            of(authority.leaf(false, &[ExtendedKeyUsagePurpose::ClientAuth]), &authority.pem),
            ["INTERNAL_TLS_CERT_FILE", "serverAuth and clientAuth"],
        ),
    ] {
        assert!(parts.iter().all(|part| mistakes.contains(part)), "{parts:?}: {mistakes}");
        assert!(!mistakes.contains(&key) && !mistakes.contains("PRIVATE"), "{mistakes}");
    }
    let folder = Folder::new(good, &authority.pem);
    let missing = InternalTlsArgs { internal_tls_key_file: Some("/nowhere/tls.key".into()), ..folder.args() };
    assert!(resolved(&missing).unwrap_err().contains("INTERNAL_TLS_KEY_FILE: can not read /nowhere/tls.key"));
    let half = InternalTlsArgs { internal_tls_ca_file: None, ..folder.args() };
    assert!(resolved(&half).unwrap_err().contains("INTERNAL_TLS_CA_FILE: is required"));
    let mut problems = Problems::new();
    let _ = folder.args().resolve(Encryption::Off, &mut problems);
    assert!(problems.to_string().contains("ENCRYPTION: is off"), "{problems}");
    assert!(resolved(&InternalTlsArgs::default()).unwrap().certificates.is_none());
}

#[tokio::test]
async fn name_is_asked_of_both_sides_where_it_is_set() {
    let authority = Authority::new();
    let folder = Folder::new(authority.leaf(false, &[]), &authority.pem);
    let named = |name: &str| InternalTlsArgs { internal_tls_name: Some(name.to_owned()), ..folder.args() };
    let ours = resolved(&named("liveedgecast")).unwrap();
    assert!(ours.flags().contains(&("--internal-tls-name", "liveedgecast".to_owned())));
    for (name, part) in
        [("other.example", "does not have the name"), ("10.0.0.1", "is no DNS name"), ("a b", "is no DNS name")]
    {
        let mistakes = resolved(&named(name)).unwrap_err();
        assert!(mistakes.contains(part), "{name}: {mistakes}");
    }
    // A certificate of the same authority, with another name.
    let key = KeyPair::generate().unwrap();
    let other = CertificateParams::new(["database".to_owned()]).unwrap().signed_by(&key, &authority.issuer).unwrap();
    let other = Folder::new((other.pem(), key.serialize_pem()), &authority.pem).protection();
    for (dialing, accepting) in [(&ours, &other), (&other, &ours)] {
        let (dialed, accepted) = pair(dialing, accepting).await;
        assert!(dialed.is_err() && accepted.is_err());
    }
    let (dialed, accepted) = pair(&ours, &ours).await;
    assert!(dialed.is_ok() && accepted.is_ok());
}

#[tokio::test]
async fn renewed_files_count_from_the_next_connection_on_and_bad_ones_do_not() {
    let (authority, next) = (Authority::new(), Authority::new());
    let folder = Folder::new(authority.leaf(false, &[]), &authority.pem);
    let (ours, before) = (folder.protection(), folder.read_earlier(Duration::ZERO));
    let (mut dialed, accepted) = pair(&ours, &before).await;
    let mut accepted = accepted.unwrap();

    let (certificate, _) = next.leaf(false, &[]);
    let (_, key) = next.leaf(false, &[]);
    folder.write(&certificate, &key, &next.pem);
    let (again, _) = pair(&ours, &ours).await;
    assert!(again.is_ok(), "the last good files stay in force: {again:?}");

    let (certificate, key) = next.leaf(false, &[]);
    folder.write(&certificate, &key, &next.pem);
    let elsewhere = Folder::new(next.leaf(false, &[]), &next.pem).protection();
    let (renewed, _) = pair(&ours, &elsewhere).await;
    assert!(renewed.is_ok(), "{renewed:?}");

    // A connection that is there goes on.
    let dialed = dialed.as_mut().unwrap();
    dialed.write_all(b"still").await.unwrap();
    dialed.flush().await.unwrap();
    let mut still = [0; 5];
    accepted.read_exact(&mut still).await.unwrap();
    assert_eq!(&still, b"still");
}
