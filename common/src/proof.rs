//! How the two ends of a control call prove to each other that they know the control secret, without sending it.
//!
//! In: a nonce of each side, the activator's name, the purpose of the call. Out: one proof for each side, 64 hex digits, which travels as
//! the metadata `liveedgecast-proof`. [`crate::greet`] is the caller's shell; the activator's is its control service.
//!
//! ```text
//!  caller                                                                activator
//!    │ Greet: nonce 32 ───────────────────────────────────────────────────▶ │
//!    │ ◀─────────────────────────────────────────── Challenge: nonce 32, name │
//!    │ call, its metadata: HMAC(secret, "control caller" | transcript) ─────▶ │   the caller is proved
//!    │ ◀── answer, its metadata: HMAC(secret, "control activator" | the same) │
//!    │ the activator is proved: from here on its words are obeyed            │
//! ```
//! The transcript is `0 | purpose | 0 | caller's nonce | activator's nonce | activator's name`. An activator keeps its nonce with the
//! connection and takes one proof for it, so a proof that was captured is of no use on another connection or at another activator; no
//! clock is involved. The caller proves itself first, as in [`crate::handoff`]: a stranger who dials an activator gets nothing to try
//! weak secrets on.
//!
//! Note: a stranger in the path that passes the bytes on, and then speaks for one side, is not found out by the proof alone. So between
//! machines the connection is encrypted, and the secret of the proof is bound to it (see [`crate::encryption`]).

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ring::aead;

use crate::key::Secret;

/// The metadata key of a proof.
pub const METADATA: &str = "liveedgecast-proof";
/// Bytes of each side's nonce.
pub const NONCE_BYTES: usize = 32;
/// Bytes of a proof: HMAC-SHA256.
const PROOF_BYTES: usize = 32;
// The roles have proofs of their own: what one side sends cannot be sent back to it.
const CALLER: &[u8] = b"control caller";
const ACTIVATOR: &[u8] = b"control activator";
/// The role of the key with which a caller seals its one message.
const SEAL: &[u8] = b"control seal";

/// A random number that its side uses once.
pub type Nonce = [u8; NONCE_BYTES];

/// The call that is proved, so that a proof for one is none for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A worker registers.
    Join,
    /// A caller asks where activators are.
    Introduce,
    /// An activator follows another one.
    Follow,
    /// An activator passes on a request of the API.
    Act,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Introduce => "introduce",
            Self::Follow => "follow",
            Self::Act => "act",
        }
    }
}

/// Why a proof is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The text does not look like a proof.
    #[error("the proof cannot be read; if the other side is of another version, run one version of both")]
    Malformed,
    /// The proof was made with another secret, or for another connection.
    #[error(
        "the proof was made with another secret: give both sides the same CONTROL_SECRET, and activators the same ADMIN_TOKEN and VIEW_TOKEN"
    )]
    Wrong,
}

/// The parts of which both proofs of one call are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The call.
    pub purpose: Purpose,
    /// The caller's nonce.
    pub caller: Nonce,
    /// The activator's nonce.
    pub challenge: Nonce,
    /// The activator's name.
    pub activator: String,
}

impl Exchange {
    /// The proof that the caller sends.
    #[must_use]
    pub fn caller_proof(&self, secret: &Secret) -> String {
        HEXLOWER.encode(&self.sign(secret, CALLER))
    }

    /// The proof that the activator answers with.
    #[must_use]
    pub fn activator_proof(&self, secret: &Secret) -> String {
        HEXLOWER.encode(&self.sign(secret, ACTIVATOR))
    }

    /// Judges what a caller has sent. Takes the same time for every wrong proof.
    ///
    /// # Errors
    /// It cannot be read, or was made with another secret.
    pub fn judge_caller(&self, secret: &Secret, proof: &str) -> Result<(), ProofError> {
        self.judge(secret, CALLER, proof)
    }

    /// Judges what an activator has answered, as [`Self::judge_caller`].
    ///
    /// # Errors
    /// It cannot be read, or was made with another secret.
    pub fn judge_activator(&self, secret: &Secret, proof: &str) -> Result<(), ProofError> {
        self.judge(secret, ACTIVATOR, proof)
    }

    /// Seals the one message of the caller, so that the activator alone can read it: AES-256-GCM under a key that is good for this exchange.
    #[must_use]
    pub fn seal(&self, secret: &Secret, mut content: Vec<u8>) -> Vec<u8> {
        let nonce = aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN]);
        match self.key(secret).seal_in_place_append_tag(nonce, aead::Aad::empty(), &mut content) {
            Ok(()) => content,
            // The content is too long for AES-GCM, which takes 64 GiB.
            Err(_) => Vec::new(),
        }
    }

    /// Opens what [`Self::seal`] has sealed; `None`: it was sealed with another secret or for another exchange, or changed.
    #[must_use]
    pub fn open(&self, secret: &Secret, mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        let nonce = aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN]);
        let length = self.key(secret).open_in_place(nonce, aead::Aad::empty(), &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }

    fn key(&self, secret: &Secret) -> aead::LessSafeKey {
        let Ok(key) = aead::UnboundKey::new(&aead::AES_256_GCM, &self.sign(secret, SEAL)) else {
            unreachable!("the key has the right length")
        };
        aead::LessSafeKey::new(key)
    }

    fn judge(&self, secret: &Secret, role: &[u8], proof: &str) -> Result<(), ProofError> {
        let proof = decoded(proof).ok_or(ProofError::Malformed)?;
        if secret.verify(&self.signed(role), &proof) { Ok(()) } else { Err(ProofError::Wrong) }
    }

    fn sign(&self, secret: &Secret, role: &[u8]) -> [u8; PROOF_BYTES] {
        secret.sign(&self.signed(role))
    }

    /// The name comes last, because it alone has no fixed length.
    fn signed<'a>(&'a self, role: &'a [u8]) -> [&'a [u8]; 7] {
        let purpose = self.purpose.as_str().as_bytes();
        [role, b"\0", purpose, b"\0", &self.caller, &self.challenge, self.activator.as_bytes()]
    }
}

/// True for a text that can be a proof at all; the proofs of earlier versions cannot.
#[must_use]
pub fn is_readable(text: &str) -> bool {
    decoded(text).is_some()
}

/// The bytes of a proof. The length of the text comes first: a caller's text may be as long as a message, and is not decoded for nothing.
fn decoded(text: &str) -> Option<[u8; PROOF_BYTES]> {
    if text.len() != 2 * PROOF_BYTES {
        return None;
    }
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> Exchange {
        Exchange {
            purpose: Purpose::Join,
            caller: *b"0123456789abcdef0123456789abcdef",
            challenge: *b"fedcba9876543210fedcba9876543210",
            activator: "a-1".into(),
        }
    }

    fn secret() -> Secret {
        Secret::new("secret")
    }

    #[test]
    fn proofs_are_as_pythons_hmac_module_computes_them() {
        assert_eq!(
            exchange().caller_proof(&secret()),
            "e649e2b2584b94691a5d379d40adf844173a091348e602dafb39df01b371335c"
        );
        assert_eq!(
            exchange().activator_proof(&secret()),
            "71a886b5504f252320a4543fd7e91e952861b8b20c6b39c0872fa0b5ec25eff4"
        );
    }

    #[test]
    fn a_proof_is_good_for_its_own_role_call_connection_and_activator_alone() {
        let (one, secret) = (exchange(), secret());
        let proof = one.caller_proof(&secret);
        assert_eq!(one.judge_caller(&secret, &proof), Ok(()));
        assert_eq!(one.judge_activator(&secret, &one.activator_proof(&secret)), Ok(()));
        assert_eq!(one.judge_activator(&secret, &proof), Err(ProofError::Wrong), "sent back to its sender");
        let others = [
            Exchange { purpose: Purpose::Follow, ..one.clone() },
            Exchange { caller: [1; NONCE_BYTES], ..one.clone() },
            Exchange { challenge: [1; NONCE_BYTES], ..one.clone() },
            Exchange { activator: "a-2".into(), ..one.clone() },
        ];
        for other in others {
            assert_eq!(other.judge_caller(&secret, &proof), Err(ProofError::Wrong), "{other:?}");
        }
        assert_eq!(one.judge_caller(&Secret::new("Secret"), &proof), Err(ProofError::Wrong));
    }

    #[test]
    fn sealed_message_is_opened_by_the_same_exchange_alone() {
        let (one, secret) = (exchange(), secret());
        let sealed = one.seal(&secret, b"rtmp://a/live/key".to_vec());
        assert!(!sealed.windows(4).any(|bytes| bytes == b"rtmp"));
        assert_eq!(one.open(&secret, sealed.clone()).as_deref(), Some(&b"rtmp://a/live/key"[..]));
        assert_eq!(one.open(&Secret::new("Secret"), sealed.clone()), None);
        assert_eq!(Exchange { challenge: [1; NONCE_BYTES], ..one.clone() }.open(&secret, sealed.clone()), None);
        let mut changed = sealed;
        changed[3] ^= 1;
        assert_eq!(one.open(&secret, changed), None);
        assert_eq!(one.open(&secret, Vec::new()), None);
    }

    #[test]
    fn a_proof_of_an_earlier_version_cannot_be_read() {
        let old = "1800000000.30313233343536373839616263646566.658ec194065c23d160b8adc85d77c599537aa6dac6dcc31101e8e4d7a6071e20";
        let good = exchange().caller_proof(&secret());
        for rubbish in ["", old, "é", &good[..good.len() - 1], &format!("{good}0")] {
            assert_eq!(exchange().judge_caller(&secret(), rubbish), Err(ProofError::Malformed), "{rubbish:?}");
            assert!(!is_readable(rubbish));
        }
    }
}
