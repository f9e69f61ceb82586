//! Tokens, each with one thing wrong. Those in `tests/samples/jwt` were made by OpenSSL; the others are signed here.

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::Algorithm;
use liveedgecast_common::key::{Secret, StreamKey};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;

use super::*;
use crate::config::JwtKeys;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Seconds since 1970.
const NOW: u64 = 1_800_000_000;

fn secret() -> JwtKey {
    JwtKey::shared(Secret::new(SECRET)).unwrap()
}

fn samples() -> Vec<JwtKey> {
    JwtKey::parse_set(include_bytes!("../../../tests/samples/jwt/jwks.json")).unwrap()
}

fn rules(keys: Vec<JwtKey>, algorithms: &[Algorithm]) -> Jwt {
    Jwt {
        keys: JwtKeys::Fixed(keys),
        issuer: None,
        audience: None,
        algorithms: algorithms.to_vec(),
        name_claim: "sub".to_owned(),
        app_claim: "app".to_owned(),
        route_claim: None,
    }
}

fn part(value: &Value) -> String {
    BASE64URL_NOPAD.encode(value.to_string().as_bytes())
}

fn signed(header: &Value, claims: &Value, key: &[u8]) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

fn token(claims: &Value) -> String {
    signed(&json!({"alg": "HS256", "typ": "JWT"}), claims, SECRET.as_bytes())
}

fn presented(app: &str, key: &str) -> Presented {
    Presented::find(&AppName::parse(app).unwrap(), &StreamKey::parse(key).unwrap()).expect("a token")
}

/// The verdict on a token at `live/cam`.
fn judge(jwt: &Jwt, token: &str) -> Result<TokenGrant, TokenError> {
    let JwtKeys::Fixed(keys) = &jwt.keys else { panic!() };
    check(jwt, keys, &presented("live", &format!("cam?token={token}")), UtcTime(NOW * 1000))
}

#[test]
fn tokens_of_every_algorithm_are_verified_and_no_key_is_taken_for_another() {
    let tokens: Vec<(&str, &str)> = include_str!("../../../tests/samples/jwt/tokens.txt")
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    assert_eq!(tokens.len(), 6);
    let all: Vec<Algorithm> = tokens.iter().map(|(name, _)| name.parse().unwrap()).collect();
    for ((name, token), algorithm) in tokens.iter().zip(&all) {
        let grant = judge(&rules(samples(), &all), token).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(grant.granted.publisher.as_deref(), Some("cam"));
        let others: Vec<Algorithm> = all.iter().copied().filter(|other| other != algorithm).collect();
        assert_eq!(judge(&rules(samples(), &others), token), Err(TokenError::Algorithm), "{name}");
        let keys: Vec<JwtKey> = samples().into_iter().filter(|key| !key.fits(*algorithm)).collect();
        assert_eq!(judge(&rules(keys, &all), token), Err(TokenError::UnknownKey), "{name}");
        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        bytes[7] ^= 1;
        let forged = format!("{message}.{}", BASE64URL_NOPAD.encode(&bytes));
        assert_eq!(judge(&rules(samples(), &all), &forged), Err(TokenError::Signature), "{name}");
        assert_eq!(judge(&rules(samples(), &all), &format!("{message}.")), Err(TokenError::Signature), "{name}");
    }
}

#[test]
fn algorithm_of_a_token_cannot_be_confused() {
    let claims = json!({"sub": "cam", "exp": NOW + 100});
    let all = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    // A public key, which everybody has, as the shared secret.
    let pem = include_str!("../../../tests/samples/jwt/rsa.pem");
    let by_public_key = signed(&json!({"alg": "HS256"}), &claims, pem.as_bytes());
    assert_eq!(judge(&rules(samples(), &all[1..]), &by_public_key), Err(TokenError::Algorithm));
    assert_eq!(judge(&rules(samples(), &all), &by_public_key), Err(TokenError::UnknownKey));
    for none in ["none", "None", "NONE", "nOnE", "", "HS255"] {
        let unsigned = format!("{}.{}.", part(&json!({"alg": none})), part(&claims));
        assert_eq!(judge(&rules(vec![secret()], &all), &unsigned), Err(TokenError::Malformed), "{none}");
    }
    // A key that the token brings itself.
    let own = json!({"alg": "HS256", "jwk": {"kty": "oct", "k": BASE64URL_NOPAD.encode(b"mine")}, "jku": "http://127.0.0.1/"});
    assert_eq!(judge(&rules(vec![secret()], &all), &signed(&own, &claims, b"mine")), Err(TokenError::Signature));
    let critical = json!({"alg": "HS256", "crit": ["exp"]});
    let token = signed(&critical, &claims, SECRET.as_bytes());
    assert_eq!(judge(&rules(vec![secret()], &all), &token), Err(TokenError::Malformed));
    assert_eq!(judge(&rules(vec![], &all), &self::token(&claims)), Err(TokenError::UnknownKey));
}

#[test]
fn key_is_chosen_by_its_id() {
    let pairs = [0; 2].map(|_| {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap()
    });
    let jwk = |pair: &EcdsaKeyPair, id: Option<&str>| {
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "kid": id, "x": BASE64URL_NOPAD.encode(x), "y": BASE64URL_NOPAD.encode(y)})
    };
    let set = |ids: [Option<&str>; 2]| {
        let keys = json!({"keys": [jwk(&pairs[0], ids[0]), jwk(&pairs[1], ids[1])]}).to_string();
        rules(JwtKey::parse_set(keys.as_bytes()).unwrap(), &[Algorithm::ES256])
    };
    let by_second = |id: Option<&str>| {
        let header = id.map_or(json!({"alg": "ES256"}), |id| json!({"alg": "ES256", "kid": id}));
        let message = format!("{}.{}", part(&header), part(&json!({"sub": "cam", "exp": NOW + 100})));
        let signature = pairs[1].sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    };
    let named = set([Some("one"), Some("two")]);
    assert!(judge(&named, &by_second(Some("two"))).is_ok());
    assert!(judge(&named, &by_second(None)).is_ok(), "without an id every key is tried");
    assert_eq!(judge(&named, &by_second(Some("one"))), Err(TokenError::Signature));
    assert_eq!(judge(&named, &by_second(Some("three"))), Err(TokenError::UnknownKey));
    assert!(judge(&set([None, None]), &by_second(Some("two"))).is_ok(), "keys without an id fit every id");
}

#[test]
fn each_wrong_claim_is_refused() {
    let good = json!({"sub": "cam", "exp": NOW + 100, "nbf": NOW, "iss": "me", "aud": ["x", "you"], "app": ["show", "live"], "route": "church"});
    let rules = Jwt {
        issuer: Some("me".to_owned()),
        audience: Some("you".to_owned()),
        route_claim: Some("route".to_owned()),
        ..rules(vec![secret()], &[Algorithm::HS256])
    };
    let grant = judge(&rules, &token(&good)).unwrap();
    assert_eq!(grant.granted.route.as_deref(), Some("church"));
    let changes = [
        ("exp", json!(NOW - 60), TokenError::Expired),
        ("exp", json!(0), TokenError::Expired),
        ("exp", json!(-1e300), TokenError::Expired),
        ("exp", json!(null), TokenError::Time),
        ("exp", json!("never"), TokenError::Time),
        ("exp", json!([NOW + 100]), TokenError::Malformed),
        ("nbf", json!(NOW + 61), TokenError::Early),
        ("nbf", json!(true), TokenError::Time),
        ("iss", json!("you"), TokenError::Issuer),
        ("iss", json!(["me"]), TokenError::Issuer),
        ("iss", json!(null), TokenError::Issuer),
        ("aud", json!("me"), TokenError::Audience),
        ("aud", json!([]), TokenError::Audience),
        ("aud", json!(null), TokenError::Audience),
        ("aud", json!({"you": "you"}), TokenError::Audience),
        ("app", json!("show"), TokenError::App),
        ("app", json!(["show", 7]), TokenError::App),
        ("app", json!(7), TokenError::App),
        ("sub", json!("other"), TokenError::OtherName),
        ("sub", json!("no good"), TokenError::NoName),
        ("sub", json!(""), TokenError::NoName),
        ("sub", json!("../x"), TokenError::NoName),
        ("sub", json!(7), TokenError::NoName),
        ("sub", json!(null), TokenError::NoName),
        ("route", json!("no good"), TokenError::Route),
        ("route", json!(7), TokenError::Route),
    ];
    for (name, value, error) in changes {
        let mut claims = good.clone();
        claims[name] = value;
        assert_eq!(judge(&rules, &token(&claims)), Err(error), "{claims}");
    }
    let fits = [
        ("exp", json!(NOW - 59)),
        ("exp", json!(NOW as f64 + 0.5)),
        ("nbf", json!(NOW + 60)),
        ("nbf", json!(null)),
        ("aud", json!("you")),
        ("app", json!("live")),
        ("app", json!(null)),
        ("route", json!(null)),
        ("iat", json!("ignored")),
    ];
    for (name, value) in fits {
        let mut claims = good.clone();
        claims[name] = value;
        assert!(judge(&rules, &token(&claims)).is_ok(), "{claims}");
    }
    let nobody = Jwt { audience: None, ..rules };
    assert_eq!(
        judge(&nobody, &token(&good)),
        Err(TokenError::Audience),
        "a token for somebody, and nobody is named here"
    );
}

#[test]
fn names_of_the_stream_have_no_token() {
    let jwt = rules(vec![secret()], &[Algorithm::HS256]);
    let token = token(&json!({"sub": "cam", "exp": NOW + 100}));
    let short = token.clone();
    assert!(short.len() <= 255, "it fits into a name");
    for (app, key, bare) in [
        ("live", format!("cam?token={token}"), "cam"),
        ("live", format!("cam?x=1&jwt={token}&y"), "cam?x=1&y"),
        ("live", format!("?token={token}"), "cam"),
        ("live", short, "cam"),
        (&format!("live?token={token}"), "cam".to_owned(), "cam"),
    ] {
        let JwtKeys::Fixed(keys) = &jwt.keys else { panic!() };
        let grant = check(&jwt, keys, &presented(app, &key), UtcTime(NOW * 1000)).unwrap();
        assert_eq!((grant.app.expose(), grant.granted.key.as_ref().unwrap().expose()), ("live", bare), "{key}");
    }
}

#[test]
fn token_that_is_none_is_refused() {
    let jwt = rules(vec![secret()], &[Algorithm::HS256]);
    let good = token(&json!({"sub": "cam", "exp": NOW + 100}));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let deep = format!("{{\"sub\":\"cam\",\"exp\":{},\"x\":{}{}}}", NOW + 100, "[".repeat(500), "]".repeat(500));
    let deep = {
        let message = format!("{}.{}", part(&json!({"alg": "HS256"})), BASE64URL_NOPAD.encode(deep.as_bytes()));
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
        format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    };
    let long = token(&json!({"sub": "cam", "exp": NOW + 100, "x": "x".repeat(3200)}));
    assert!(long.len() > MOST_TOKEN);
    for bad in
        ["x", "..", "a.b.c", message, &format!("{good}.{signature}"), &format!("{message}.{signature}="), &deep, &long]
    {
        assert_eq!(judge(&jwt, bad), Err(TokenError::Malformed), "{bad}");
    }
}
