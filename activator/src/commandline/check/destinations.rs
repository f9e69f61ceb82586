//! The dialogue with a destination, up to `createStream`, and with `--publish` up to the end of a stream. In: a push URL. Out: what is wrong with it. The
//! session is `common`'s, the same as a worker's.
//!
//! Note: `releaseStream` and `FCPublish` go with `createStream`, and some servers end a live stream of that name for them. So the dialogue has a name
//! of its own in place of the stream key, and no server sees `publish`, unless a person has asked for that.
#![expect(clippy::disallowed_methods, reason = "shell: dials destinations, within a time")]

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use liveedgecast_common::clock::{now, sleep_until};
use liveedgecast_common::key::StreamKey;
use liveedgecast_common::random;
use liveedgecast_common::rtmp::auth::{AuthAnswer, Challenge};
use liveedgecast_common::rtmp::client::{Class, ClientEvent, ClientSession, Stage};
use liveedgecast_common::trust::{self, Verifier};
use liveedgecast_common::url::{PushTemplate, PushUrl};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, RootCertStore};
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
/// Time for which a stream has to stay after it was let in: a server that refuses it after all does so at once.
const STAYS: Duration = Duration::from_secs(1);
/// Questions for a user and a password that are answered, as by a worker: Adobe's scheme takes two.
const MAX_CHALLENGES: usize = 2;
/// Time before the end of a certificate at which it should have been renewed: a third of the ninety days that common authorities give.
pub(super) const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// A destination to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DialTarget {
    /// Its name in the findings: of the route and the destination, or the setting.
    pub(super) name: String,
    /// Its URL.
    pub(super) url: PushTemplate,
    /// A stream without media is published, with the key of the URL.
    pub(super) publish: bool,
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

/// Dials one destination, and takes the dialogue as far as it goes without a publisher, or to the end of a stream without media.
pub(super) async fn dial(target: DialTarget, trust: Trust) -> Findings {
    let mut found = Findings::default();
    let key = StreamKey::parse(NAME);
    let resolved = key.and_then(|key| Ok((target.url.resolve_for("live", &key, "check")?, key)));
    let url = match resolved {
        Ok((url, _)) if target.publish => url,
        Ok((url, key)) => PushUrl { key, ..url },
        Err(error) => {
            found.fault(PART, &target.name, format!("its URL cannot be filled in: {error}"));
            return found;
        }
    };
    let place = url.authority();
    match converse(&url, &target, &trust, &mut found).await {
        Ok(reached) => found.good(format!("destination {}: {place} {reached}", target.name)),
        Err(text) => found.fault(PART, &target.name, format!("{place}: {text}")),
    }
    found
}

/// The dialogue, over as many connections as the question for a user and a password takes.
async fn converse(
    url: &PushUrl,
    target: &DialTarget,
    trust: &Trust,
    found: &mut Findings,
) -> Result<&'static str, String> {
    let mut answer = None;
    for connection in 0..=MAX_CHALLENGES {
        // A certificate that ends soon is one finding.
        let mut warnings = Findings::default();
        let stream = connect(url).await?;
        let session = ClientSession::new(url, answer.take());
        let talked = if url.tls {
            let stream = secure(url, stream, trust, &target.name, &mut warnings).await?;
            talk(url, session, target.publish, stream).await
        } else {
            talk(url, session, target.publish, stream).await
        };
        if connection == 0 {
            found.append(warnings);
        }
        match (talked?, &url.credentials) {
            (Talked::Asked(challenge), Some(credentials)) if target.publish => {
                let nonce = random::bytes::<4>();
                answer = Some(AuthAnswer::new(&challenge, credentials, &url.app, u32::from_ne_bytes(nonce)));
            }
            (Talked::Asked(_), Some(_)) => {
                return Ok("speaks RTMP and asks for the user and the password, which were not sent");
            }
            (Talked::Asked(_), None) => {
                return Err("wants a user and a password: write rtmp://USER:PASSWORD@… into the URL".to_owned());
            }
            (Talked::Reached(words), _) => return Ok(words),
        }
    }
    Err("asks for the user and the password again and again: correct them in the URL".to_owned())
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
            let words = match error {
                rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
                    life(not_after.as_secs(), UnixTime::now().as_secs())
                }
                _ => "the certificate is not trusted any more in two weeks".to_owned(),
            };
            found.warning(PART, name, format!("{}: {words}: its operator has to renew it", url.authority()));
        }
    }
    Ok(stream)
}

/// The end of a certificate in words. Both times: seconds since 1970.
pub(super) fn life(end: u64, now: u64) -> String {
    const DAY: u64 = 86_400;
    let span = |seconds: u64| match seconds {
        seconds if seconds >= 2 * DAY => format!("{} days", seconds / DAY),
        seconds => format!("{} hours", seconds / 3600),
    };
    match end.checked_sub(now) {
        Some(left) => format!("the certificate ends in {}", span(left)),
        None => format!("the certificate ended {} ago", span(now - end)),
    }
}

/// The end of a dialogue that did not fail.
enum Talked {
    /// How far it went.
    Reached(&'static str),
    /// The server wants a user and a password, on a new connection.
    Asked(Challenge),
}

/// The dialogue: handshake, `connect`, `createStream`, and `publish` if that is wanted.
async fn talk(
    url: &PushUrl,
    mut session: ClientSession,
    publish: bool,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<Talked, String> {
    session.start();
    let mut buffer = vec![0; 16 << 10];
    // A server may say that a stream begins, and close the connection then: nginx-rtmp does so with `deny publish`.
    let mut stays: Option<Instant> = None;
    // The time of a step begins with its stage: a server may ping for ever, and never answer.
    let (mut of_stage, mut step_ends) = (session.stage(), now() + STEP);
    loop {
        match session.stage() {
            // The stream is made. What waits to be written is `publish`.
            Stage::Publish if !publish => {
                return Ok(Talked::Reached("takes streams (connect and createStream)"));
            }
            // An app that holds a key cannot be asked for without one.
            Stage::Connect if url.app_holds_key => {
                return Ok(Talked::Reached("speaks RTMP; its app holds the key, so it was asked for nothing"));
            }
            _ => {}
        }
        let output = session.take_output();
        let stage = session.stage();
        stream.write_all(&output).await.map_err(|error| closed(stage, &error.to_string()))?;
        stream.flush().await.map_err(|error| closed(stage, &error.to_string()))?;
        if stage != of_stage {
            (of_stage, step_ends) = (stage, now() + STEP);
        }
        let until = stays.unwrap_or(step_ends);
        let read = tokio::select! {
            biased;
            read = stream.read(&mut buffer) => read,
            () = sleep_until(Some(until)) => {
                if stays.is_none() {
                    return Err(silent(stage));
                }
                end(session, stream).await;
                return Ok(Talked::Reached("takes the stream (connect, createStream and publish), which was ended after a second"));
            }
        };
        let read = match read {
            Err(error) => return Err(closed(stage, &error.to_string())),
            Ok(0) => return Err(closed(stage, "it closed the connection")),
            Ok(read) => read,
        };
        let handled = session.handle(&buffer[..read]);
        handled.map_err(|error| {
            format!("does not speak RTMP ({error}): the URL leads to another kind of server; correct its port")
        })?;
        while let Some(event) = session.poll_event() {
            match event {
                ClientEvent::Started => stays = Some(now() + STAYS),
                ClientEvent::Refused(class, text) => return Err(refused_in(stage, class, &text)),
                ClientEvent::AuthAsked(challenge) => return Ok(Talked::Asked(challenge)),
                ClientEvent::Redirected(_) => {
                    return Ok(Talked::Reached("leads to another server, which was not asked"));
                }
                ClientEvent::Ended(text) if stage >= Stage::Publish => {
                    return Err(format!("ended the stream ({text}): {KEY_FIX}"));
                }
                ClientEvent::Ended(text) => return Err(format!("ended the dialogue ({text}): look at its log")),
                ClientEvent::Acknowledged(_) => {}
            }
        }
    }
}

/// Ends the stream, and waits a moment for the server to close the connection: it may not read what a reset overtakes.
async fn end(mut session: ClientSession, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    session.end();
    let said = async {
        stream.write_all(&session.take_output()).await?;
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(STAYS, said).await;
}

/// The fix where a server took everything up to `publish`.
const KEY_FIX: &str =
    "correct the stream key in the URL, or allow it at the server; some platforms want a broadcast to be set up first";

/// A refusal in words.
fn refused_in(stage: Stage, class: Class, text: &str) -> String {
    let word = class.as_str();
    match class {
        Class::BadName => format!(
            "refuses ({word}: {text}): a stream is live under this key, or was until a moment ago; end it, or try again in a minute"
        ),
        _ if stage >= Stage::Publish => format!("refuses to publish ({word}: {text}): {KEY_FIX}"),
        _ => format!("refuses ({word}: {text}): correct the app in the URL, or allow it at the server"),
    }
}

fn closed(stage: Stage, why: &str) -> String {
    match stage {
        Stage::Handshake => {
            format!("does not speak RTMP ({why}): correct the port in the URL; with TLS it begins with rtmps://")
        }
        Stage::Publish => format!("ended the connection in place of an answer to publish ({why}): {KEY_FIX}"),
        Stage::Live => format!("let the stream begin, and ended it at once ({why}): {KEY_FIX}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_of_a_certificate_is_told_in_days_and_at_its_end_in_hours() {
        const NOW: u64 = 1_800_000_000;
        for (end, words) in [
            (NOW + 9 * 86_400, "ends in 9 days"),
            (NOW + 172_799, "ends in 47 hours"),
            (NOW + 60, "ends in 0 hours"),
            (NOW, "ends in 0 hours"),
            (NOW - 3600, "ended 1 hours ago"),
            (NOW - 40 * 86_400, "ended 40 days ago"),
        ] {
            assert_eq!(life(end, NOW), format!("the certificate {words}"), "{end}");
        }
    }
}
