//! Keys of a server on a real socket.
#![expect(clippy::disallowed_methods, reason = "tests over real sockets: tasks of servers")]

use std::sync::atomic::{AtomicUsize, Ordering};

use jsonwebtoken::Algorithm;
use liveedgecast_common::key::{AppName, StreamKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::*;
use crate::admission::token::keyring::PAUSE;

const JWKS: &str = include_str!("../../../tests/samples/jwt/jwks.json");

/// A server that answers each request with the whole set when it is told to, and counts requests.
async fn server(answers: Arc<Notify>) -> (HttpUrl, Arc<AtomicUsize>) {
    server_of(answers, Arc::new(Mutex::new(JWKS.to_owned()))).await
}

/// The same with a set that may change.
async fn server_of(answers: Arc<Notify>, set: Arc<Mutex<String>>) -> (HttpUrl, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = HttpUrl::parse(&format!("http://{}/jwks", listener.local_addr().unwrap())).unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 4096]).await;
            counted.fetch_add(1, Ordering::SeqCst);
            answers.notified().await;
            let set = lock(&set).clone();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", set.len());
            socket.write_all(format!("{head}{set}").as_bytes()).await.unwrap();
        }
    });
    (url, requests)
}

fn rules(url: HttpUrl) -> Arc<Jwt> {
    Arc::new(Jwt {
        keys: JwtKeys::Served(url),
        issuer: None,
        audience: None,
        algorithms: vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
        name_claim: "sub".to_owned(),
        app_claim: "app".to_owned(),
        route_claim: None,
    })
}

/// The token of this algorithm that OpenSSL has made.
fn presented(algorithm: &str) -> Presented {
    let tokens = include_str!("../../../tests/samples/jwt/tokens.txt").lines();
    let token = tokens.filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == algorithm).unwrap().1;
    let key = StreamKey::parse(&format!("cam?token={token}")).unwrap();
    Presented::find(&AppName::parse("live").unwrap(), &key).unwrap()
}

#[tokio::test]
async fn one_fetch_serves_all_who_wait_and_goes_on_without_the_one_that_began_it() {
    let answers = Arc::new(Notify::new());
    let (url, requests) = server(Arc::clone(&answers)).await;
    let (desk, jwt) = (Arc::new(TokenDesk::new(AdmissionMetrics::unregistered())), rules(url));
    let check = |algorithm: &'static str| {
        let (desk, jwt) = (Arc::clone(&desk), Arc::clone(&jwt));
        async move { desk.check(&jwt, &presented(algorithm)).await }
    };
    let first = tokio::spawn(check("ES256"));
    while requests.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    let mut waiting = JoinSet::new();
    for algorithm in ["ES256", "RS256", "EdDSA"].repeat(10) {
        waiting.spawn(check(algorithm));
    }
    tokio::task::yield_now().await;
    answers.notify_one();
    while let Some(checked) = waiting.join_next().await {
        assert!(checked.unwrap().is_ok());
    }
    assert_eq!(check("RS384").await, Err(TokenError::Algorithm));
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn token_of_a_key_that_was_made_after_the_last_fetch_is_let_in_after_the_next_one() {
    let (answers, set) = (Arc::new(Notify::new()), Arc::new(Mutex::new(String::new())));
    // Before the issuer makes the key of ES256.
    let mut before: serde_json::Value = serde_json::from_str(JWKS).unwrap();
    before["keys"].as_array_mut().unwrap().retain(|key| key["kty"] != "EC");
    *lock(&set) = before.to_string();
    let (url, requests) = server_of(Arc::clone(&answers), Arc::clone(&set)).await;
    let (desk, jwt) = (TokenDesk::new(AdmissionMetrics::unregistered()), rules(url.clone()));
    answers.notify_one();
    assert!(desk.check(&jwt, &presented("RS256")).await.is_ok());
    JWKS.clone_into(&mut lock(&set));
    assert_eq!(desk.check(&jwt, &presented("ES256")).await, Err(TokenError::KeyUnfetched), "no second fetch so soon");
    assert!(TokenError::KeyUnfetched.reason().is_temporary(), "the encoder comes again");
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    lock(&desk.server(&url).ring).age(PAUSE);
    answers.notify_one();
    assert!(desk.check(&jwt, &presented("ES256")).await.is_ok());
    // A key that the server does not have either is refused for good after a fetch.
    *lock(&set) = before.to_string();
    let desk = TokenDesk::new(AdmissionMetrics::unregistered());
    answers.notify_one();
    assert!(desk.check(&jwt, &presented("RS256")).await.is_ok());
    lock(&desk.server(&url).ring).age(PAUSE);
    answers.notify_one();
    assert_eq!(desk.check(&jwt, &presented("ES256")).await, Err(TokenError::UnknownKey));
}

#[tokio::test]
async fn server_that_is_not_there_is_told_as_such() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = HttpUrl::parse(&format!("http://{}/jwks", nobody.local_addr().unwrap())).unwrap();
    drop(nobody);
    let desk = TokenDesk::new(AdmissionMetrics::unregistered());
    let jwt = rules(url);
    for _ in 0..2 {
        assert_eq!(desk.check(&jwt, &presented("ES256")).await, Err(TokenError::KeysAway));
    }
}
