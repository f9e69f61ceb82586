//! The signatures of tokens, by *ring*, which makes those of TLS here, too. In: an algorithm and a key. Out: a verifier, for `jsonwebtoken`. Pure.
//!
//! The crate's own providers would bring a second library for the same: one with an advisory (`rsa`), or one that needs a C compiler. Nothing is
//! signed here.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, new_error};
use jsonwebtoken::signature::{Error as SignatureError, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(unsupported()),
    verifier_factory: |algorithm, key| match key.family().algorithms().contains(algorithm) {
        true => Ok(Box::new(RingVerifier { algorithm: *algorithm, key: key.clone() })),
        false => Err(new_error(ErrorKind::InvalidAlgorithm)),
    },
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(unsupported()),
        rsa_pub_components_from_public_key: |_| Err(unsupported()),
        ec_pub_components_from_private_key: |_, _| Err(unsupported()),
        ed_pub_components_from_private_key: |_, _| Err(unsupported()),
        compute_digest: |_, _| Err(unsupported()),
    },
};

fn unsupported() -> Error {
    new_error(ErrorKind::UnsupportedAlgorithm)
}

/// Makes it the process's provider; later calls do nothing.
pub(super) fn install() {
    let _ = PROVIDER.install_default();
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        match self.algorithm {
            Algorithm::HS256 => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.bytes()?);
                hmac::verify(&key, message, signature).map_err(|_| SignatureError::new())
            }
            Algorithm::RS256 => self.by_rsa(&RSA_PKCS1_2048_8192_SHA256, message, signature),
            Algorithm::RS384 => self.by_rsa(&RSA_PKCS1_2048_8192_SHA384, message, signature),
            Algorithm::RS512 => self.by_rsa(&RSA_PKCS1_2048_8192_SHA512, message, signature),
            Algorithm::ES256 => self.by_bytes(&ECDSA_P256_SHA256_FIXED, message, signature),
            Algorithm::ES384 => self.by_bytes(&ECDSA_P384_SHA384_FIXED, message, signature),
            Algorithm::EdDSA => self.by_bytes(&ED25519, message, signature),
            _ => Err(SignatureError::new()),
        }
    }
}

impl RingVerifier {
    fn bytes(&self) -> Result<&[u8], SignatureError> {
        self.key.try_get_as_bytes().map_err(|_| SignatureError::new())
    }

    fn by_bytes(
        &self,
        algorithm: &'static dyn VerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        let key = UnparsedPublicKey::new(algorithm, self.bytes()?);
        key.verify(message, signature).map_err(|_| SignatureError::new())
    }

    fn by_rsa(&self, parameters: &RsaParameters, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let DecodingKeyKind::RsaModulusExponent { n, e } = self.key.kind() else { return Err(SignatureError::new()) };
        RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).map_err(|_| SignatureError::new())
    }
}
