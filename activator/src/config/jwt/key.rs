//! The keys that tokens are checked with. In: a shared secret, a file with public keys (PEM, or a JWK Set, RFC 7517), or the JWK Set of a server. Out:
//! [`JwtKey`]s, each bound to the algorithms of its own type, so that no token can choose how its key is read. Next: `admission`, which checks
//! signatures with them. Pure.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use liveedgecast_common::key::Secret;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::{self, PemObject};
use serde::Deserialize;
use serde_json::Value;

/// Fewest bytes of a shared secret: as many as its hash has (RFC 7518, 3.2).
const LEAST_SECRET_BYTES: usize = 32;
/// Most keys of one file or server. Issuers have one or two, and one or two more while they change them.
pub(super) const MOST_KEYS: usize = 64;
/// Lengths of an RSA modulus, in bytes: 2048 to 8192 bits (RFC 7518, 3.3).
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Tags of DER (X.690, 8).
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
/// The algorithm identifiers of public keys: `rsaEncryption` (RFC 3279, 2.3.1) …
const RSA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
/// … `ecPublicKey` with `prime256v1` and with `secp384r1` (RFC 5480, 2.1.1) …
const P256: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x22];
/// … and `id-Ed25519` (RFC 8410, 3).
const ED25519: &[u8] = &[6, 3, 0x2b, 0x65, 0x70];

/// A key of an issuer.
#[derive(Clone, PartialEq, Eq)]
pub struct JwtKey {
    /// The id by which tokens name it (`kid`).
    pub id: Option<String>,
    /// The one algorithm that its issuer allows it for.
    only: Option<Algorithm>,
    material: KeyMaterial,
}

#[derive(Clone, PartialEq, Eq)]
enum KeyMaterial {
    Hmac(Secret),
    /// Modulus and exponent, without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point, uncompressed.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// The mistake in a key, and its fix. Shows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtKeyError {
    /// A shared secret that can be guessed.
    #[error("is shorter than {LEAST_SECRET_BYTES} bytes: make one with `openssl rand -hex 32`")]
    Short,
    /// Neither PEM nor JSON.
    #[error("has no public key: write PEM (`-----BEGIN PUBLIC KEY-----`) or a JWK Set")]
    Form,
    /// PEM that ends within a block.
    #[error("has a block without its line `-----END PUBLIC KEY-----`: copy the whole file, up to that line")]
    Cut,
    /// The half of the key that is the issuer's alone.
    #[error("has a private key, which belongs to the issuer alone: write `openssl pkey -in KEY -pubout`")]
    Private,
    /// PEM of another kind of key.
    #[error("has a public key of another kind: use RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519")]
    Kind,
    /// A JWK Set without a key for signatures.
    #[error("has no key that signatures can be checked with")]
    Useless,
    /// Too many keys.
    #[error("has more than {MOST_KEYS} keys")]
    Many,
}

/// A JWK Set. Its keys are read one by one, because one of an unknown kind must not spoil the others (RFC 7517, 5).
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl JwtKey {
    /// The key of a secret that issuer and activator share.
    ///
    /// # Errors
    /// It is too short.
    pub fn shared(secret: Secret) -> Result<Self, JwtKeyError> {
        if secret.expose().len() < LEAST_SECRET_BYTES {
            return Err(JwtKeyError::Short);
        }
        Ok(Self { id: None, only: None, material: KeyMaterial::Hmac(secret) })
    }

    /// The keys of a file: public keys in PEM, or a JWK Set.
    ///
    /// # Errors
    /// It has none, or one that cannot be used.
    pub fn parse_file(text: &str) -> Result<Vec<Self>, JwtKeyError> {
        if text.trim_start().starts_with('{') {
            return Self::parse_set(text.as_bytes());
        }
        if text.contains("PRIVATE KEY-----") {
            return Err(JwtKeyError::Private);
        }
        let mut keys = Vec::new();
        for info in SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes()) {
            let info = info.map_err(|error| match error {
                pem::Error::MissingSectionEnd { .. } => JwtKeyError::Cut,
                _ => JwtKeyError::Form,
            })?;
            let material = KeyMaterial::of_info(&info).ok_or(JwtKeyError::Kind)?;
            keys.push(Self { id: None, only: None, material });
        }
        match keys.len() {
            0 => Err(JwtKeyError::Form),
            1..=MOST_KEYS => Ok(keys),
            _ => Err(JwtKeyError::Many),
        }
    }

    /// The keys of a JWK Set that signatures can be checked with. Shared secrets in it are left out: whoever can read the set could sign.
    ///
    /// # Errors
    /// It has none.
    pub fn parse_set(json: &[u8]) -> Result<Vec<Self>, JwtKeyError> {
        let set: KeySet = serde_json::from_slice(json).map_err(|_| JwtKeyError::Form)?;
        if set.keys.len() > MOST_KEYS {
            return Err(JwtKeyError::Many);
        }
        let keys = set.keys.into_iter().filter_map(|key| Self::of_jwk(serde_json::from_value(key).ok()?));
        let keys: Vec<Self> = keys.collect();
        if keys.is_empty() { Err(JwtKeyError::Useless) } else { Ok(keys) }
    }

    fn of_jwk(jwk: Jwk) -> Option<Self> {
        let Jwk { common, algorithm } = jwk;
        if common.public_key_use.is_some_and(|purpose| purpose != PublicKeyUse::Signature)
            || common.key_operations.is_some_and(|all| !all.contains(&KeyOperations::Verify))
        {
            return None;
        }
        let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        let material = match &algorithm {
            AlgorithmParameters::RSA(key) => KeyMaterial::rsa(&decode(&key.n)?, &decode(&key.e)?)?,
            AlgorithmParameters::EllipticCurve(key) => {
                let point = [&[4], decode(&key.x)?.as_slice(), decode(&key.y)?.as_slice()].concat();
                match key.curve {
                    EllipticCurve::P256 if point.len() == 65 => KeyMaterial::P256(point),
                    EllipticCurve::P384 if point.len() == 97 => KeyMaterial::P384(point),
                    _ => return None,
                }
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                KeyMaterial::Ed25519(decode(&key.x).filter(|bytes| bytes.len() == 32)?)
            }
            _ => return None,
        };
        let only = common.key_algorithm.map(Algorithm::try_from).transpose().ok()?;
        let key = Self { id: common.key_id, only, material };
        only.is_none_or(|only| key.fits(only)).then_some(key)
    }

    /// Returns whether tokens of that algorithm may be checked with it.
    #[must_use]
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        let of_its_kind: &[Algorithm] = match &self.material {
            KeyMaterial::Hmac(_) => &[Algorithm::HS256],
            KeyMaterial::Rsa { .. } => &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512],
            KeyMaterial::P256(_) => &[Algorithm::ES256],
            KeyMaterial::P384(_) => &[Algorithm::ES384],
            KeyMaterial::Ed25519(_) => &[Algorithm::EdDSA],
        };
        of_its_kind.contains(&algorithm) && self.only.is_none_or(|only| only == algorithm)
    }

    /// The key as `jsonwebtoken` takes it; `None`, which no key is, for an empty secret.
    #[must_use]
    pub fn decoding(&self) -> Option<DecodingKey> {
        Some(match &self.material {
            KeyMaterial::Hmac(secret) => DecodingKey::from_secret(secret.expose().as_bytes()).ok()?,
            KeyMaterial::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
            KeyMaterial::P256(point) | KeyMaterial::P384(point) => DecodingKey::from_ec_der(point),
            KeyMaterial::Ed25519(key) => DecodingKey::from_ed_der(key),
        })
    }
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JwtKey(…)")
    }
}

impl KeyMaterial {
    fn rsa(n: &[u8], e: &[u8]) -> Option<Self> {
        let bare = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
        let (n, e) = (bare(n), bare(e));
        (RSA_BYTES.contains(&n.len()) && !e.is_empty()).then_some(Self::Rsa { n, e })
    }

    /// The key of a SubjectPublicKeyInfo (RFC 5280, 4.1).
    fn of_info(info: &[u8]) -> Option<Self> {
        let (info, _) = element(SEQUENCE, info)?;
        let (kind, info) = element(SEQUENCE, info)?;
        let (bits, _) = element(BIT_STRING, info)?;
        // The number of bits that do not count.
        let key = bits.strip_prefix(&[0])?;
        match kind {
            RSA => {
                let (key, _) = element(SEQUENCE, key)?;
                let (n, key) = element(INTEGER, key)?;
                Self::rsa(n, element(INTEGER, key)?.0)
            }
            P256 => (key.len() == 65 && key[0] == 4).then(|| Self::P256(key.to_vec())),
            P384 => (key.len() == 97 && key[0] == 4).then(|| Self::P384(key.to_vec())),
            ED25519 => (key.len() == 32).then(|| Self::Ed25519(key.to_vec())),
            _ => None,
        }
    }
}

/// The content of a DER element with that tag, and the bytes behind the element.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match bytes.strip_prefix(&[tag])? {
        [short @ 0..=0x7f, rest @ ..] => (usize::from(*short), rest),
        [0x81, length, rest @ ..] => (usize::from(*length), rest),
        [0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
