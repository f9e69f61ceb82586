//! Tokens of publishers, their claims, and the keys of issuers.

use data_encoding::BASE64URL_NOPAD;
use liveedgecast_activator::admission::{MOST_TOKEN, Presented, check_token};
use liveedgecast_activator::config::{Jwt, JwtKey, JwtKeys, check_name};
use liveedgecast_common::clock::UtcTime;
use liveedgecast_common::key::{AppName, Secret, StreamKey};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Milliseconds since 1970.
const NOW: UtcTime = UtcTime(1_800_000_000_000);

/// First byte: the kind of the rest. 0: app, a line's end, and stream key of a publisher. 1: claims, which are signed as they should be.
/// 2: a file with keys.
///
/// A token that nobody has signed lets nobody in. A token lets its bearer in under the name that it has, and under no other; neither the app nor the key of its
/// stream has the token.
pub fn jwt(data: &[u8]) {
    let [kind, rest @ ..] = data else { return };
    match kind % 3 {
        0 => names(rest),
        1 => claims(rest),
        _ => keys(rest),
    }
}

fn rules() -> Option<(Jwt, Vec<JwtKey>)> {
    let keys = vec![JwtKey::shared(Secret::new(SECRET)).ok()?];
    let jwt = Jwt {
        keys: JwtKeys::Fixed(keys.clone()),
        issuer: None,
        audience: Some("you".to_owned()),
        algorithms: vec!["HS256".parse().ok()?],
        name_claim: "sub".to_owned(),
        app_claim: "app".to_owned(),
        route_claim: Some("route".to_owned()),
    };
    Some((jwt, keys))
}

fn names(text: &[u8]) {
    let Some((app, key)) = std::str::from_utf8(text).ok().and_then(|text| text.split_once('\n')) else { return };
    let (Ok(app), Ok(key)) = (AppName::parse(app), StreamKey::parse(key)) else { return };
    let Some(presented) = Presented::find(&app, &key) else { return };
    if let Some((app, key)) = presented.without_token() {
        let again = Presented::find(&app, &key);
        assert!(again.is_none(), "a token was left");
    }
    let (jwt, keys) = rules().expect("rules");
    // An HMAC that is right by chance would be news.
    assert!(check_token(&jwt, &keys, &presented, NOW).is_err());
}

fn claims(claims: &[u8]) {
    let message = format!("{}.{}", BASE64URL_NOPAD.encode(br#"{"alg":"HS256"}"#), BASE64URL_NOPAD.encode(claims));
    let signature = BASE64URL_NOPAD.encode(&Secret::new(SECRET).sign(&[message.as_bytes()]));
    let token = format!("{message}.{signature}");
    let (Ok(app), Ok(key)) = (AppName::parse("live"), StreamKey::parse(&format!("?a=1&token={token}"))) else { return };
    let presented = Presented::find(&app, &key).expect("a token");
    let (jwt, keys) = rules().expect("rules");
    let Ok(grant) = check_token(&jwt, &keys, &presented, NOW) else { return };
    assert!(token.len() <= MOST_TOKEN);
    let publisher = grant.granted.publisher.expect("a name");
    assert!(check_name(&publisher).is_ok());
    let key = grant.granted.key.expect("a key");
    assert_eq!((grant.app.expose(), key.expose()), ("live", format!("{publisher}?a=1").as_str()));
    assert!(
        grant.granted.route.is_none_or(|route| check_name(&route).is_ok()) && grant.granted.destinations.is_empty()
    );
    // The same token at another name.
    let other = StreamKey::parse(&format!("{publisher}x?token={token}"));
    if let Some(other) = other.ok().and_then(|other| Presented::find(&app, &other)) {
        assert!(check_token(&jwt, &keys, &other, NOW).is_err());
    }
}

fn keys(text: &[u8]) {
    let _ = JwtKey::parse_set(text);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(keys) = JwtKey::parse_file(text) else { return };
    assert!((1..=64).contains(&keys.len()));
    for key in keys {
        let algorithms = ["HS256", "RS256", "RS384", "RS512", "ES256", "ES384", "EdDSA"];
        let fits: Vec<&str> =
            algorithms.into_iter().filter(|name| name.parse().is_ok_and(|algorithm| key.fits(algorithm))).collect();
        assert!(!fits.contains(&"HS256") && !fits.is_empty(), "{fits:?}");
        assert!(key.decoding().is_some());
    }
}
