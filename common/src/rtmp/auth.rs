//! Credentials that an upstream asks for in a refused `connect`: Adobe `authmod=adobe` and Limelight `authmod=llnw`.
//!
//! In: the description of `NetConnection.Connect.Rejected`. Out: the text that is appended to `app` and `tcUrl` of the next connection.
//! Next: [`super::client`].
//!
//! Note: it takes three connections. The first is refused with the name of the scheme, the second names the user and is refused with a
//! challenge, the third answers it. Values are neither quoted nor escaped, in either direction, and the user in the answer is the one the
//! upstream wrote (it may have normalised ours).

use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use md5::{Digest, Md5};

use crate::url::Credentials;

/// Longest value in a challenge, in bytes: real ones have 8 to 32; they come back in our `connect`, three of them in one chunk.
const MAX_VALUE_BYTES: usize = 512;
/// Limelight's realm, method and quality of protection: constants of that service.
const REALM: &str = "live";
const METHOD: &str = "publish";
const QOP: &str = "auth";
/// Count of uses of a nonce: each is used once.
const NONCE_COUNT: &str = "00000001";

/// The authentication scheme of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Adobe's access manager; Akamai and Wowza have it too.
    Adobe,
    /// Limelight's: HTTP digest in other words.
    Limelight,
}

impl Scheme {
    /// Name of the scheme on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Adobe => "adobe",
            Self::Limelight => "llnw",
        }
    }
}

/// The part that the description of a refused `connect` says about credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Credentials are asked for.
    Asks(Challenge),
    /// Credentials were wrong.
    Wrong(Wrong),
    /// Credentials are asked for by a scheme that we do not know.
    Unknown,
    /// Refused for another reason.
    Unrelated,
}

/// The reason why credentials were not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// `reason=authfailed`.
    #[error("wrong password")]
    Password,
    /// `reason=nosuchuser`.
    #[error("no such user")]
    User,
}

/// The question of an upstream. `Debug` does not show its values, which would only help an attacker.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    scheme: Scheme,
    proof: Option<Proof>,
}

/// The values from which the answer is computed.
#[derive(Clone, Default, PartialEq, Eq)]
struct Proof {
    user: String,
    salt: String,
    challenge: String,
    opaque: Option<String>,
    nonce: String,
}

impl Rejection {
    /// Reads a description, such as `[ AccessManager.Reject ] : [ code=403 need auth; authmod=adobe ] : `.
    #[must_use]
    pub fn read(description: &str) -> Self {
        let scheme = match value_after(description, "authmod=") {
            Some("adobe") => Scheme::Adobe,
            Some("llnw") => Scheme::Limelight,
            Some(_) => return Self::Unknown,
            None => return Self::Unrelated,
        };
        // The parameters of the second refusal are looked for first: their text could contain the words of the first one.
        let Some((_, parameters)) = description.split_once("?reason=") else {
            if description.contains("code=403 need auth") {
                return Self::Asks(Challenge { scheme, proof: None });
            }
            return Self::Unknown;
        };
        let mut parameters = parameters.split('&').map(until_blank);
        match parameters.next() {
            Some("needauth") => Proof::read(parameters)
                .map_or(Self::Unknown, |proof| Self::Asks(Challenge { scheme, proof: Some(proof) })),
            Some("authfailed") => Self::Wrong(Wrong::Password),
            Some("nosuchuser") => Self::Wrong(Wrong::User),
            _ => Self::Unknown,
        }
    }
}

impl Proof {
    /// Reads the parameters; `None` if a value is longer than any real one.
    fn read<'a>(parameters: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut proof = Self::default();
        for parameter in parameters {
            let Some((name, value)) = parameter.split_once('=') else { continue };
            if value.len() > MAX_VALUE_BYTES {
                return None;
            }
            match name {
                "user" => value.clone_into(&mut proof.user),
                "salt" => value.clone_into(&mut proof.salt),
                "challenge" => value.clone_into(&mut proof.challenge),
                "opaque" => proof.opaque = Some(value.to_owned()),
                "nonce" => value.clone_into(&mut proof.nonce),
                _ => {}
            }
        }
        Some(proof)
    }
}

impl Challenge {
    /// The scheme that the upstream uses.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// True if only the user's name is asked for yet. The answer to that question is good for every connection.
    #[must_use]
    pub const fn asks_for_the_user(&self) -> bool {
        self.proof.is_none()
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenge")
            .field("scheme", &self.scheme)
            .field("asks_for_the_user", &self.asks_for_the_user())
            .finish_non_exhaustive()
    }
}

/// The text that the next connection sends. A secret: `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthAnswer(String);

impl AuthAnswer {
    /// The answer to a challenge. `app` is the app of the push URL, which Limelight's digest covers. `nonce`: 32 random bits, fresh for
    /// every answer.
    #[must_use]
    pub fn new(challenge: &Challenge, credentials: &Credentials, app: &str, nonce: u32) -> Self {
        let scheme = challenge.scheme.as_str();
        let password = credentials.password.expose();
        let Some(proof) = &challenge.proof else {
            return Self(format!("authmod={scheme}&user={}", credentials.user));
        };
        let user = if proof.user.is_empty() { &credentials.user } else { &proof.user };
        let ours = format!("{nonce:08x}");
        Self(match challenge.scheme {
            Scheme::Adobe => {
                let response = adobe_response(proof, user, password, &ours);
                let opaque = proof.opaque.as_ref().map(|opaque| format!("&opaque={opaque}")).unwrap_or_default();
                format!("authmod={scheme}&user={user}&challenge={ours}&response={response}{opaque}")
            }
            Scheme::Limelight => {
                let asked = &proof.nonce;
                let response = limelight_response(asked, user, password, app, &ours);
                format!("authmod={scheme}&user={user}&nonce={asked}&cnonce={ours}&nc={NONCE_COUNT}&response={response}")
            }
        })
    }

    /// `app` or `tcUrl` with the answer appended.
    #[must_use]
    pub fn appended_to(&self, text: &str) -> String {
        let separator = if text.contains('?') { '&' } else { '?' };
        format!("{text}{separator}{}", self.0)
    }
}

impl fmt::Debug for AuthAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthAnswer(…)")
    }
}

fn adobe_response(proof: &Proof, user: &str, password: &str, ours: &str) -> String {
    let salted = base64_md5(&[user, &proof.salt, password]);
    base64_md5(&[&salted, proof.opaque.as_ref().unwrap_or(&proof.challenge), ours])
}

/// RFC 2617, 3.2.2, with constants in the place of HTTP's method and realm. The URI is the app without its query, with the default instance
/// if it names none.
fn limelight_response(asked: &str, user: &str, password: &str, app: &str, ours: &str) -> String {
    let app = app.split_once('?').map_or(app, |(name, _)| name);
    let instance = if app.contains('/') { "" } else { "/_definst_" };
    let who = hex_md5(&[user, ":", REALM, ":", password]);
    let what = hex_md5(&[METHOD, ":/", app, instance]);
    hex_md5(&[&who, ":", asked, ":", NONCE_COUNT, ":", ours, ":", QOP, ":", &what])
}

fn md5(parts: &[&str]) -> [u8; 16] {
    let mut hash = Md5::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

fn base64_md5(parts: &[&str]) -> String {
    BASE64.encode(&md5(parts))
}

fn hex_md5(parts: &[&str]) -> String {
    HEXLOWER.encode(&md5(parts))
}

/// The text after `name`, to the next blank, bracket, semicolon or ampersand.
fn value_after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(name)?;
    Some(rest.split([' ', ']', ';', '&']).next().unwrap_or(rest))
}

fn until_blank(text: &str) -> &str {
    text.split([' ', ']']).next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Secret;

    fn credentials() -> Credentials {
        Credentials { user: "foo".to_owned(), password: Secret::new("bar") }
    }

    fn challenge(description: &str) -> Challenge {
        match Rejection::read(description) {
            Rejection::Asks(challenge) => challenge,
            other => panic!("{description}: {other:?}"),
        }
    }

    const NEED_ADOBE: &str = "[ AccessManager.Reject ] : [ code=403 need auth; authmod=adobe ] : ";
    const NEED_LLNW: &str = "[ AccessManager.Reject ] : [ code=403 need auth; authmod=llnw ] : ";

    #[test]
    fn first_refusal_asks_for_the_user() {
        for (description, name) in [(NEED_ADOBE, "adobe"), (NEED_LLNW, "llnw")] {
            let challenge = challenge(description);
            assert!(challenge.asks_for_the_user());
            let answer = AuthAnswer::new(&challenge, &credentials(), "live", 1);
            assert_eq!(answer.appended_to("live"), format!("live?authmod={name}&user=foo"));
            assert_eq!(answer.appended_to("live2?backup=1"), format!("live2?backup=1&authmod={name}&user=foo"));
        }
    }

    #[test]
    fn adobe_answers_with_the_opaque_value_where_there_is_one() {
        let asked = challenge(
            "[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=needauth&user=foo&salt=FgAAAA==&challenge=yhUAAA==&opaque=zzUAAA== ",
        );
        assert!(!asked.asks_for_the_user());
        // salted = base64(md5("foo" "FgAAAA==" "bar")) = BqrZ8N1WzZEaMhLPRFscoQ==
        // response = base64(md5(salted "zzUAAA==" "0badcafe"))
        let answer = AuthAnswer::new(&asked, &credentials(), "live", 0x0BAD_CAFE);
        assert_eq!(
            answer.appended_to("rtmp://h/live"),
            "rtmp://h/live?authmod=adobe&user=foo&challenge=0badcafe&response=HzOpw4owyZ6zWTU4lLmvmA==&opaque=zzUAAA=="
        );
    }

    #[test]
    fn adobe_answers_with_the_challenge_where_there_is_no_opaque_value() {
        let asked = challenge("[ authmod=adobe ] : ?reason=needauth&user=foo&salt=FgAAAA==&challenge=yhUAAA==");
        // response = base64(md5(salted "yhUAAA==" "0badcafe"))
        let answer = AuthAnswer::new(&asked, &credentials(), "live", 0x0BAD_CAFE);
        assert_eq!(
            answer.appended_to("live"),
            "live?authmod=adobe&user=foo&challenge=0badcafe&response=Uw3tVOxIuOMZK68uSE2rdA=="
        );
    }

    #[test]
    fn limelight_answers_with_a_digest_over_app_and_instance() {
        let asked = challenge("[ AccessManager.Reject ] : [ authmod=llnw ] : ?reason=needauth&user=foo&nonce=N0NCE==");
        // who = md5("foo:live:bar") = 04f2f878f9745e1a0f89c4bf10e9c5e7
        // what = md5("publish:/live/_definst_") = a2d981c976a6851bc5ed3f2beab823c8
        //     or md5("publish:/live/inst") = d557cdab04c1013c3983ea378aaca31e
        // response = md5(who ":N0NCE==:00000001:0badcafe:auth:" what)
        for (app, response) in [
            ("live", "b5d5772e18823d057775216087bbc512"),
            ("live?token=1", "b5d5772e18823d057775216087bbc512"),
            ("live/inst", "a7c9f05668cd4ea9708150d42e3e18ea"),
        ] {
            let answer = AuthAnswer::new(&asked, &credentials(), app, 0x0BAD_CAFE);
            assert_eq!(
                answer.appended_to("live"),
                format!("live?authmod=llnw&user=foo&nonce=N0NCE==&cnonce=0badcafe&nc=00000001&response={response}")
            );
        }
    }

    #[test]
    fn answer_names_the_user_as_the_upstream_wrote_it() {
        let asked = challenge("authmod=adobe ?reason=needauth&user=FOO&salt=s&challenge=c");
        let answer = AuthAnswer::new(&asked, &credentials(), "live", 1).appended_to("");
        assert!(answer.contains("user=FOO&"), "{answer}");
        let asked = challenge("authmod=adobe ?reason=needauth&salt=s&challenge=c");
        let answer = AuthAnswer::new(&asked, &credentials(), "live", 1).appended_to("");
        assert!(answer.contains("user=foo&"), "{answer}");
    }

    #[test]
    fn other_refusals_are_told_apart() {
        let long = format!("authmod=adobe ?reason=needauth&salt={}", "x".repeat(MAX_VALUE_BYTES + 1));
        for (description, expected) in [
            ("", Rejection::Unrelated),
            ("Connection failed.", Rejection::Unrelated),
            (
                "[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=authfailed&opaque=zz==",
                Rejection::Wrong(Wrong::Password),
            ),
            ("[ AccessManager.Reject ] : [ authmod=llnw ] : ?reason=authfailed", Rejection::Wrong(Wrong::Password)),
            ("[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=nosuchuser ", Rejection::Wrong(Wrong::User)),
            ("[ AccessManager.Reject ] : [ code=403 need auth; authmod=kerberos ] :", Rejection::Unknown),
            ("[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=later", Rejection::Unknown),
            ("[ AccessManager.Reject ] : [ authmod=adobe ] : ", Rejection::Unknown),
            (&long, Rejection::Unknown),
        ] {
            assert_eq!(Rejection::read(description), expected, "{description}");
        }
    }

    #[test]
    fn debug_shows_no_challenge_and_no_answer() {
        let asked = challenge("authmod=adobe ?reason=needauth&user=foo&salt=SALT&challenge=CHALL");
        let answer = AuthAnswer::new(&asked, &credentials(), "live", 1);
        let shown = format!("{asked:?} {answer:?}");
        for secret in ["foo", "bar", "SALT", "CHALL", "response"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
