//! The dialogue with a destination, up to `createStream`. In: a push URL. Out: what is wrong with it. The session is `common`'s, the same as a worker's.
//!
//! Note: `releaseStream` and `FCPublish` go with `createStream`, and some servers end a live stream of that name for them. So the dialogue has a name
//! of its own in place of the stream key, and no server sees `publish`.
#![expect(clippy::disallowed_methods, reason = "shell: dials destinations, within a time")]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use liveedgecast_common::key::StreamKey;
use liveedgecast_common::rtmp::client::{ClientEvent, ClientSession, Stage};
use liveedgecast_common::trust::{self, Verifier};
use liveedgecast_common::url::{PushTemplate, PushUrl};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::finding::Findings;

const PART: &str = "destination";
/// The name that the dialogue has in place of a stream key.
const NAME: &str = "liveedgecast-check";
/// Time for each step: a server that needs longer loses publishers, too.
const STEP: Duration = Duration::from_secs(5);
/// Time before the end of a certificate at which it should have been renewed: a third of the ninety days that common authorities give.
pub(super) const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// A destination to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DialTarget {
    /// Its name in the findings: of the route and the destination, or the setting.
    pub(super) name: String,
    /// Its URL.
    pub(super) url: PushTemplate,
}

/// The part that all dialogues share: the authorities, read once.
#[derive(Clone)]
pub(super) struct Trust {
    config: Result<Arc<ClientConfig>, String>,
    verifier: Option<Arc<Verifier>>,
}

impl Trust {
    /// Reads the authorities of the system, or of `SSL_CERT_FILE`.
    pub(super) fn read() -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            let fix = "no root certificates: install ca-certificates, or set SSL_CERT_FILE to a file with PEM certificates in it";
            return Self { config: Err(fix.to_owned()), verifier: None };
        }
        let made = Verifier::new(roots).map(Arc::new).and_then(|verifier| {
            let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
            let builder = builder.with_safe_default_protocol_versions()?;
            let shared: Arc<Verifier> = Arc::clone(&verifier);
            let config = builder.dangerous().with_custom_certificate_verifier(shared).with_no_client_auth();
            Ok((Arc::new(config), verifier))
        });
        match made {
            Ok((config, verifier)) => Self { config: Ok(config), verifier: Some(verifier) },
            Err(error) => Self { config: Err(error.to_string()), verifier: None },
        }
    }
}

/// Dials one destination, and takes the dialogue as far as it goes without a publisher.
pub(super) async fn dial(target: DialTarget, trust: Trust) -> Findings {
    let mut found = Findings::default();
    let key = StreamKey::parse(NAME);
    let resolved = key.and_then(|key| Ok((target.url.resolve_for("live", &key, "check")?, key)));
    let url = match resolved {
        Ok((url, key)) => PushUrl { key, ..url },
        Err(error) => {
            found.fault(PART, &target.name, format!("its URL cannot be filled in: {error}"));
            return found;
        }
    };
    let place = url.authority();
    let stream = match connect(&url).await {
        Ok(stream) => stream,
        Err(text) => {
            found.fault(PART, &target.name, format!("{place}: {text}"));
            return found;
        }
    };
    let talked = if url.tls {
        match secure(&url, stream, &trust, &target.name, &mut found).await {
            Ok(stream) => talk(&url, stream).await,
            Err(text) => Err(text),
        }
    } else {
        talk(&url, stream).await
    };
    match talked {
        Ok(reached) => found.good(format!("destination {}: {place} {reached}", target.name)),
        Err(text) => found.fault(PART, &target.name, format!("{place}: {text}")),
    }
    found
}

/// A connection, by the first address that takes one.
async fn connect(url: &PushUrl) -> Result<TcpStream, String> {
    let name = (url.host.as_str(), url.port);
    let addresses = match timeout(STEP, tokio::net::lookup_host(name)).await {
        Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
        Ok(Err(error)) => {
            return Err(format!(
                "the name has no address ({error}): correct it in the URL, or mend this machine's DNS"
            ));
        }
        Err(_) => return Err("the name servers do not answer: mend this machine's DNS (/etc/resolv.conf)".to_owned()),
    };
    let mut last = "the name has no address: correct it in the URL".to_owned();
    for address in addresses {
        last = match timeout(STEP, TcpStream::connect(address)).await {
            Ok(Ok(stream)) if stream.local_addr().ok() != stream.peer_addr().ok() => return Ok(stream),
            Ok(Ok(_)) => refused(),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => refused(),
            Ok(Err(error)) => format!("cannot be reached ({error}): look at routes and firewalls between here and there"),
            Err(_) => {
                "does not answer: look at routes and firewalls between here and there, which drop what they do not let through"
                    .to_owned()
            }
        };
    }
    Err(last)
}

fn refused() -> String {
    "no server listens there: correct the port in the URL, or start the server".to_owned()
}

/// TLS, with a warning about a certificate that ends soon.
async fn secure(
    url: &PushUrl,
    stream: TcpStream,
    trust: &Trust,
    name: &str,
    found: &mut Findings,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let config = trust.config.clone()?;
    let server = ServerName::try_from(url.host.clone())
        .map_err(|_| "the host is no name that a certificate can have: correct it in the URL".to_owned())?;
    let secured = timeout(STEP, TlsConnector::from(config).connect(server.clone(), stream)).await;
    let stream = match secured {
        Err(_) => {
            return Err(
                "the server does not answer with TLS: without TLS at that port, the URL begins with rtmp://".to_owned()
            );
        }
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            return Err(match tls {
                Some(error) => format!("TLS: {}", trust::explain(error, &url.host)),
                None => format!("TLS: {error}: without TLS at that port, the URL begins with rtmp://"),
            });
        }
    };
    let presented = stream.get_ref().1.peer_certificates();
    if let Some(([own, others @ ..], verifier)) = presented.zip(trust.verifier.as_ref()) {
        let then = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + SOON);
        if let Err(error) = verifier.verify_server_cert(own, others, &server, &[], then) {
            let words =
                expiry(&error).unwrap_or_else(|| "the certificate is not trusted any more in two weeks".to_owned());
            found.warning(PART, name, format!("{}: {words}: its operator has to renew it", url.authority()));
        }
    }
    Ok(stream)
}

/// The end of a certificate in words, if that is the error.
pub(super) fn expiry(error: &rustls::Error) -> Option<String> {
    let rustls::Error::InvalidCertificate(rustls::CertificateError::ExpiredContext { not_after, .. }) = error else {
        return None;
    };
    let now = UnixTime::now().as_secs();
    let (end, days) = (not_after.as_secs(), not_after.as_secs().saturating_sub(now) / 86_400);
    Some(match end.checked_sub(now) {
        Some(_) => format!("the certificate ends in {days} days"),
        None => format!("the certificate ended {} days ago", (now - end) / 86_400),
    })
}

/// The dialogue: handshake, `connect`, `createStream`. Returns how far it went.
async fn talk(url: &PushUrl, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<&'static str, String> {
    let mut session = ClientSession::new(url, None);
    session.start();
    let mut buffer = vec![0; 16 << 10];
    loop {
        match session.stage() {
            // The stream is made. What waits to be written is `publish`.
            Stage::Publish | Stage::Live => return Ok("takes streams (connect and createStream)"),
            // An app that holds a key cannot be asked for without one.
            Stage::Connect if url.app_holds_key => {
                return Ok("speaks RTMP; its app holds the key, so it was asked for nothing");
            }
            _ => {}
        }
        let output = session.take_output();
        let stage = session.stage();
        stream.write_all(&output).await.map_err(|error| closed(stage, &error.to_string()))?;
        stream.flush().await.map_err(|error| closed(stage, &error.to_string()))?;
        let read = timeout(STEP, stream.read(&mut buffer)).await;
        let read = match read {
            Err(_) => return Err(silent(stage)),
            Ok(Err(error)) => return Err(closed(stage, &error.to_string())),
            Ok(Ok(0)) => return Err(closed(stage, "it closed the connection")),
            Ok(Ok(read)) => read,
        };
        let handled = session.handle(&buffer[..read]);
        handled.map_err(|error| {
            format!("does not speak RTMP ({error}): the URL leads to another kind of server; correct its port")
        })?;
        while let Some(event) = session.poll_event() {
            match event {
                ClientEvent::Refused(class, text) => {
                    return Err(format!(
                        "refuses ({}: {text}): correct the app in the URL, or allow it at the server",
                        class.as_str()
                    ));
                }
                ClientEvent::AuthAsked(_) if url.credentials.is_none() => {
                    return Err("wants a user and a password: write rtmp://USER:PASSWORD@… into the URL".to_owned());
                }
                ClientEvent::AuthAsked(_) => {
                    return Ok("speaks RTMP and asks for the user and the password, which were not sent");
                }
                ClientEvent::Redirected(_) => return Ok("leads to another server, which was not asked"),
                ClientEvent::Ended(text) => return Err(format!("ended the dialogue ({text}): look at its log")),
                ClientEvent::Started | ClientEvent::Acknowledged(_) => {}
            }
        }
    }
}

fn closed(stage: Stage, why: &str) -> String {
    match stage {
        Stage::Handshake => {
            format!("does not speak RTMP ({why}): correct the port in the URL; with TLS it begins with rtmps://")
        }
        stage => format!(
            "ended the connection in the stage {} ({why}): correct the app in the URL, or look at the server's log",
            stage.as_str()
        ),
    }
}

fn silent(stage: Stage) -> String {
    match stage {
        Stage::Handshake => {
            "does not answer the handshake: correct the port in the URL; with TLS it begins with rtmps://".to_owned()
        }
        stage => format!("does not answer in the stage {}: look at the server's log, or restart it", stage.as_str()),
    }
}
