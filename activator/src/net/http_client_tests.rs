//! Calls of servers that answer in their own ways.
#![expect(clippy::disallowed_methods, reason = "tests over real sockets: tasks of servers")]

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A server that answers every request with `answer`, and counts its connections.
async fn server(answer: &'static [u8]) -> (HttpUrl, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = HttpUrl::parse(&format!("http://{}/hook?token=x", listener.local_addr().unwrap())).unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while socket.read(&mut request).await.is_ok_and(|read| read > 0) {
                    socket.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (url, connections)
}

async fn post(client: &HttpClient, to: &HttpUrl, within: Duration) -> Result<HttpReply, HttpCallError> {
    let body = Bytes::from_static(b"call=publish");
    let headers = [("authorization", "Bearer s3cret")];
    client.post(HttpPost { to, content_type: "text/plain", headers: &headers, body, within, most: 8 }).await
}

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn answers_are_read_and_the_connection_is_used_again() {
    let answer = b"HTTP/1.1 302 Found\r\nLocation: rtmp://a/b\r\nContent-Length: 2\r\n\r\nok";
    let ((url, connections), client) = (server(answer).await, HttpClient::new());
    for _ in 0..3 {
        let reply = post(&client, &url, SOON).await.unwrap();
        let location = Some("rtmp://a/b".to_owned());
        let body = Bytes::from_static(b"ok");
        assert_eq!(reply, HttpReply { status: 302, location, cache_control: None, link: None, date: None, body });
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn question_without_a_body_has_the_same_bounds() {
    let (url, connections) =
        server(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=7\r\nContent-Length: 9\r\n\r\n123456789").await;
    let client = HttpClient::new();
    let get = |most| client.get(HttpGet { from: &url, within: SOON, most });
    let reply = get(9).await.unwrap();
    assert_eq!(
        (reply.status, reply.cache_control.as_deref(), &reply.body[..]),
        (200, Some("max-age=7"), &b"123456789"[..])
    );
    get(9).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    assert_eq!(get(8).await, Err(HttpCallError::TooLong(8)));
}

#[tokio::test]
async fn answers_have_a_longest_length_and_a_longest_time() {
    let (long, _) = server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789").await;
    let client = HttpClient::new();
    assert_eq!(post(&client, &long, SOON).await, Err(HttpCallError::TooLong(8)));
    let (silent, _) = server(b"").await;
    assert_eq!(post(&client, &silent, Duration::from_millis(50)).await, Err(HttpCallError::Late));
}

#[tokio::test]
async fn server_that_is_away_is_named_without_the_path() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = HttpUrl::parse(&format!("http://{}/s3cret", nobody.local_addr().unwrap())).unwrap();
    drop(nobody);
    let error = post(&HttpClient::new(), &url, SOON).await.unwrap_err();
    assert!(matches!(error, HttpCallError::Unreachable(_)) && !error.to_string().contains("s3cret"), "{error}");
    let (broken, _) = server(b"RTSP/1.0 200 OK\r\n\r\n").await;
    assert!(matches!(post(&HttpClient::new(), &broken, SOON).await, Err(HttpCallError::Unreachable(_))));
}

#[tokio::test]
async fn rest_of_an_answer_that_does_not_end_is_bounded() {
    let (url, _) = server(b"HTTP/1.1 503 Away\r\nContent-Length: 1000\r\n\r\nabc").await;
    let client = HttpClient::new();
    for (within, most) in [(Duration::from_millis(50), 1000), (SOON, 2)] {
        let (to, body) = (&url, Bytes::new());
        let call = HttpCall { method: Method::GET, to, headers: &[], body, within: SOON, most: 1000 };
        let answer = client.open(call).await.unwrap();
        assert_eq!((answer.status, answer.rest(within, most).await), (503, b"abc".to_vec()));
    }
}
