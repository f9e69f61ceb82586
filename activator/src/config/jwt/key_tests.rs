//! Keys as issuers give them. Those in `tests/samples/jwt` were made by OpenSSL.

use super::*;

macro_rules! sample {
    ($name:literal) => {
        include_str!(concat!("../../../tests/samples/jwt/", $name))
    };
}

const JWKS: &str = sample!("jwks.json");

/// The algorithms that a key is for.
fn algorithms(key: &JwtKey) -> Vec<Algorithm> {
    super::super::ALGORITHMS.iter().map(|(_, algorithm)| *algorithm).filter(|algorithm| key.fits(*algorithm)).collect()
}

#[test]
fn each_key_is_for_the_algorithms_of_its_kind_alone() {
    let table = [
        (sample!("rsa.pem"), vec![Algorithm::RS256, Algorithm::RS384, Algorithm::RS512]),
        (sample!("p256.pem"), vec![Algorithm::ES256]),
        (sample!("p384.pem"), vec![Algorithm::ES384]),
        (sample!("ed25519.pem"), vec![Algorithm::EdDSA]),
    ];
    for (pem, wanted) in table {
        let keys = JwtKey::parse_file(pem).unwrap();
        assert_eq!(keys.iter().map(algorithms).collect::<Vec<_>>(), [wanted]);
        assert_eq!(format!("{keys:?}"), "[JwtKey(…)]");
    }
    let shared = JwtKey::shared(Secret::new("s".repeat(32))).unwrap();
    assert_eq!(algorithms(&shared), [Algorithm::HS256]);
}

#[test]
fn file_may_have_several_keys_and_none_that_cannot_be_used() {
    let both = [sample!("rsa.pem"), sample!("p256.pem")].concat();
    assert_eq!(JwtKey::parse_file(&both).unwrap().len(), 2);
    let table = [
        ("nothing", JwtKeyError::Form),
        ("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----", JwtKeyError::Form),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", JwtKeyError::Kind),
        ("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----", JwtKeyError::Private),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", JwtKeyError::Form),
        (sample!("rsa1024.pem"), JwtKeyError::Kind),
        (sample!("p521.pem"), JwtKeyError::Kind),
        ("{", JwtKeyError::Form),
        ("{\"keys\": []}", JwtKeyError::Useless),
        (
            "{\"keys\": [{\"kty\": \"oct\", \"k\": \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}]}",
            JwtKeyError::Useless,
        ),
    ];
    for (text, error) in table {
        assert_eq!(JwtKey::parse_file(text), Err(error), "{text}");
    }
    assert_eq!(JwtKey::parse_file(&sample!("p256.pem").repeat(65)), Err(JwtKeyError::Many));
    assert_eq!(JwtKey::shared(Secret::new("s".repeat(31))), Err(JwtKeyError::Short));
}

#[test]
fn set_has_the_same_keys_as_pem() {
    let keys = JwtKey::parse_set(JWKS.as_bytes()).unwrap();
    let ids: Vec<_> = keys.iter().map(|key| key.id.as_deref().unwrap()).collect();
    assert_eq!(ids, ["p256", "p384", "ed25519", "rsa"]);
    for (at, pem) in
        [sample!("p256.pem"), sample!("p384.pem"), sample!("ed25519.pem"), sample!("rsa.pem")].into_iter().enumerate()
    {
        assert!(JwtKey::parse_file(pem).unwrap()[0].material == keys[at].material, "{}", ids[at]);
    }
    assert_eq!(JwtKey::parse_file(JWKS).unwrap().len(), 4, "a file may be a set");
}

#[test]
fn set_leaves_out_what_is_for_something_else() {
    let set: Value = serde_json::from_str(JWKS).unwrap();
    let rsa = &set["keys"][3];
    let changes = [
        ("use", "\"enc\""),
        ("key_ops", "[\"sign\"]"),
        ("alg", "\"ES256\""),
        ("alg", "\"RSA-OAEP\""),
        ("alg", "\"unheard-of\""),
        ("kty", "\"unheard-of\""),
        ("n", "\"AQAB\""),
        ("n", "\"!\""),
        ("e", "\"\""),
    ];
    for (name, value) in changes {
        let mut other = rsa.clone();
        other[name] = serde_json::from_str(value).unwrap();
        let one = serde_json::json!({"keys": [other, set["keys"][0]]}).to_string();
        let keys = JwtKey::parse_set(one.as_bytes()).unwrap();
        assert_eq!(keys.len(), 1, "{name}: {value}");
        assert_eq!(keys[0].id.as_deref(), Some("p256"));
    }
    let mut only = rsa.clone();
    only["alg"] = "RS384".into();
    let keys = JwtKey::parse_set(serde_json::json!({"keys": [only]}).to_string().as_bytes()).unwrap();
    assert_eq!(algorithms(&keys[0]), [Algorithm::RS384]);
    let many = serde_json::json!({"keys": vec![rsa; 65]}).to_string();
    assert_eq!(JwtKey::parse_set(many.as_bytes()), Err(JwtKeyError::Many));
}
