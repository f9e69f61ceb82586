//! The receiver of events, and the secret that they are signed with (standardwebhooks.com). In: settings, or the table `events` of the configuration
//! file. Out: an [`EventHook`], or mistakes. Next: `events`, which delivers to it.

use std::fmt;

use data_encoding::BASE64;
use liveedgecast_common::config::{Problems, source_of, value_or_file};
use liveedgecast_common::setting::shown;
use ring::hmac;

use super::args::Args;
use super::http_url::HttpUrl;

/// Beginning of a secret for signatures.
const PREFIX: &str = "whsec_";
/// Bytes of such a secret, by the specification.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;
/// The way to make one.
pub(super) const MAKE: &str = "make one with `echo whsec_$(openssl rand -base64 32)` and give the same to the receiver";

/// The receiver of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventHook {
    /// Its address.
    pub url: HttpUrl,
    /// The secret that it shares with this activator.
    pub secret: SigningSecret,
}

/// The secret of signatures. It redacts itself.
#[derive(Clone)]
pub struct SigningSecret(hmac::Key);

/// The mistake in a secret, and its fix. Shows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be whsec_ and then 24 to 64 bytes in base64: {MAKE}")]
pub struct SigningSecretError;

impl SigningSecret {
    /// Parses a secret as the specification writes it.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, SigningSecretError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(SigningSecretError)?;
        let bytes = BASE64.decode(encoded.as_bytes()).map_err(|_| SigningSecretError)?;
        if !LENGTHS.contains(&bytes.len()) {
            return Err(SigningSecretError);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The header `webhook-signature` of a message. `timestamp`: seconds since 1970.
    #[must_use]
    pub fn signature(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64.encode(context.sign().as_ref()))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

/// Equal secrets sign equally.
impl PartialEq for SigningSecret {
    fn eq(&self, other: &Self) -> bool {
        hmac::verify(&self.0, b"", hmac::sign(&other.0, b"").as_ref()).is_ok()
    }
}

impl Eq for SigningSecret {}

/// The receiver that the arguments name, or else the one of the file.
pub(super) fn resolve(args: &Args, of_file: Option<&EventHook>, problems: &mut Problems) -> Option<EventHook> {
    let secret = value_or_file(
        "LIVEEDGECAST_EVENTS_SECRET",
        shown(&args.events_secret),
        args.events_secret_file.as_deref(),
        problems,
    );
    let Some(url) = shown(&args.events_url) else {
        if secret.is_some() {
            problems.add(
                "LIVEEDGECAST_EVENTS_SECRET",
                "is about the receiver of events: set LIVEEDGECAST_EVENTS_URL, or remove it",
            );
        }
        return of_file.cloned();
    };
    if of_file.is_some() {
        problems
            .add("LIVEEDGECAST_EVENTS_URL", "the configuration file has a receiver of events, too: remove one of them");
    }
    let url = problems.check("LIVEEDGECAST_EVENTS_URL", HttpUrl::parse(url));
    let secret = match secret {
        Some(secret) => {
            let setting = source_of("LIVEEDGECAST_EVENTS_SECRET", args.events_secret_file.as_deref());
            problems.check(&setting, SigningSecret::parse(&secret))
        }
        None => {
            problems
                .add("LIVEEDGECAST_EVENTS_SECRET", format_args!("is required with LIVEEDGECAST_EVENTS_URL: {MAKE}"));
            None
        }
    };
    Some(EventHook { url: url?, secret: secret? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_signed_as_the_specification_has_it() {
        // The vector of the specification's own libraries.
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secret.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(format!("{secret:?}"), "SigningSecret(…)");
    }

    #[test]
    fn secrets_of_another_form_or_length_are_refused() {
        let encoded = |bytes: usize| format!("whsec_{}", BASE64.encode(&vec![7; bytes]));
        for good in [encoded(24), encoded(64), format!("{}\n", encoded(32))] {
            assert!(SigningSecret::parse(&good).is_ok(), "{good}");
        }
        for bad in [encoded(23), encoded(65), "whsec_".into(), "whsec_!".into(), encoded(32).replace("whsec_", "")] {
            assert_eq!(SigningSecret::parse(&bad).err(), Some(SigningSecretError), "{bad}");
        }
        let (one, two) = (SigningSecret::parse(&encoded(24)).unwrap(), SigningSecret::parse(&encoded(25)).unwrap());
        assert!(one == one.clone() && one != two);
    }
}
