//! RTMPS over real sockets, with rustls' client as the publisher.
#![expect(clippy::disallowed_methods, reason = "tests over files")]

use std::fs;
use std::future::poll_fn;
use std::io::IoSliceMut;
use std::net::SocketAddr;

use liveedgecast_common::encryption::CertificateFiles;
use liveedgecast_common::socket;
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::connection::PublisherConnection;
use super::*;
use crate::config::RtmpsTls;

/// A listener with a certificate for `localhost`.
struct Door {
    _folder: TempDir,
    roots: RootCertStore,
    rtmps: RtmpsListener,
    listener: TcpListener,
}

impl Door {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let pair = KeyPair::generate().unwrap();
        let signed = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&pair).unwrap();
        fs::write(&certificate, signed.pem()).unwrap();
        fs::write(&key, pair.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(signed.pem().as_bytes()).unwrap()).unwrap();
        let rtmps = RtmpsListener::new(RtmpsTls(vec![CertificateFiles { certificate, key }])).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { _folder: folder, roots, rtmps, listener }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    async fn client(&self, version: &'static SupportedProtocolVersion) -> TlsStream<TcpStream> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        let socket = TcpStream::connect(self.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
    }

    /// The next connection, after its handshake.
    async fn secured(&self) -> Result<PublisherConnection, TlsFailure> {
        let (socket, _) = self.listener.accept().await.unwrap();
        self.rtmps.secure(socket).await.map_err(|failed| failed.why)
    }

    async fn pair(&self, version: &'static SupportedProtocolVersion) -> (TlsStream<TcpStream>, Box<TlsConnection>) {
        let (client, secured) = tokio::join!(self.client(version), self.secured());
        let Ok(PublisherConnection::Tls(connection)) = secured else { panic!("no TLS") };
        (client, connection)
    }
}

/// Reads until the end, into two buffers of `room` bytes together.
async fn read_all(connection: &TlsConnection, room: usize) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        poll_fn(|cx| connection.poll_readable(cx)).await?;
        let (mut one, mut two) = (vec![0; room / 3], vec![0; room - room / 3]);
        let mut parts = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
        match connection.receive(&mut parts, socket::receive) {
            Ok(0) => return Ok(all),
            Ok(read) => {
                all.extend_from_slice(&one[..read.min(one.len())]);
                all.extend_from_slice(&two[..read.saturating_sub(one.len())]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[tokio::test]
async fn every_byte_arrives_in_order_whatever_the_room() {
    let door = Door::open().await;
    for (version, room) in [(&TLS13, 1), (&TLS13, 4096), (&TLS12, 16 << 10), (&TLS13, 16 << 10), (&TLS12, 100_000)] {
        let (mut client, connection) = door.pair(version).await;
        let sent = pattern(if room == 1 { 20_000 } else { 700_000 });
        let sending = async {
            for piece in sent.chunks(33_333) {
                client.write_all(piece).await.unwrap();
            }
            client.shutdown().await.unwrap();
        };
        let ((), received) = tokio::join!(sending, read_all(&connection, room));
        assert!(received.unwrap() == sent, "{version:?}, room of {room}");
        assert!(connection.has_more(), "the end stays readable");
    }
}

#[tokio::test]
async fn publisher_that_closes_without_close_notify_has_ended() {
    let door = Door::open().await;
    let (mut client, connection) = door.pair(&TLS13).await;
    client.write_all(b"last words").await.unwrap();
    client.flush().await.unwrap();
    let (mut socket, _) = client.into_inner();
    socket.shutdown().await.unwrap();
    assert_eq!(read_all(&connection, 4096).await.unwrap(), b"last words");
}

#[tokio::test]
async fn bytes_that_are_not_tls_end_the_connection_with_an_error() {
    let door = Door::open().await;
    let (client, connection) = door.pair(&TLS13).await;
    let (mut socket, _) = client.into_inner();
    socket.write_all(&[3; 100]).await.unwrap();
    assert_eq!(read_all(&connection, 4096).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn answers_wait_for_a_publisher_that_reads_late() {
    let door = Door::open().await;
    let (mut client, connection) = door.pair(&TLS12).await;
    let answers = pattern(8 << 20);
    let mut written = 0;
    // Until the kernel takes no more.
    while let Ok(more) = connection.try_write(&answers[written..]) {
        written += more;
    }
    assert!(written < answers.len() && !connection.is_flushed());
    let mut received = vec![0; written];
    let flushed = async {
        while !connection.is_flushed() {
            connection.socket().writable().await.unwrap();
            TlsConnection::flush(&connection).unwrap();
        }
        connection.finish().unwrap();
    };
    let (read, ()) = tokio::join!(client.read_exact(&mut received), flushed);
    read.unwrap();
    assert!(received == answers[..written]);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "close_notify");
}

#[tokio::test]
async fn stranger_without_tls_is_named() {
    let door = Door::open().await;
    let flood = [&[0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff][..], &[0; 40_000]].concat();
    let rows: [(&[u8], TlsFailure); 4] = [
        (&[3; 1537], TlsFailure::PlainRtmp),
        (b"GET / HTTP/1.1\r\n\r\n", TlsFailure::NotTls),
        (b"", TlsFailure::Left),
        (&flood, TlsFailure::Handshake),
    ];
    for (bytes, why) in rows {
        let speaking = async {
            let mut socket = TcpStream::connect(door.address()).await.unwrap();
            let _ = socket.write_all(bytes).await;
            let _ = socket.shutdown().await;
            socket
        };
        let (_socket, secured) = tokio::join!(speaking, door.secured());
        assert_eq!(secured.err(), Some(why), "{:?}", &bytes[..bytes.len().min(8)]);
    }
}
