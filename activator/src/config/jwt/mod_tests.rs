//! The variables of tokens.

use clap::Parser;

use super::*;
use crate::config::{Args, Reloaded, Settings};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn settings(args: &[&str]) -> Result<Settings, String> {
    let args = Args::try_parse_from(["x", "--push-url", "rtmp://a/live/{key}"].iter().chain(args)).unwrap();
    Settings::resolve(&args, [0; 32]).map_err(|problems| problems.to_string())
}

#[test]
fn keys_say_who_may_publish() {
    let all = settings(&["--jwt-secret", SECRET, "--jwt-issuer", "me", "--jwt-audience", "you"]).unwrap();
    assert!(!all.is_open_to_strangers());
    let jwt = all.jwt.as_deref().unwrap();
    assert_eq!(
        (jwt.issuer.as_deref(), jwt.audience.as_deref(), jwt.name_claim.as_str()),
        (Some("me"), Some("you"), "sub")
    );
    assert_eq!(jwt.algorithms, [Algorithm::HS256]);
    assert!(!format!("{all:?}").contains(SECRET));
    let served = settings(&["--jwt-jwks-url", "https://a.example/jwks"]).unwrap();
    assert_eq!(served.jwt.unwrap().algorithms, PUBLIC);
}

#[test]
fn mistakes_of_variables_are_told() {
    let table: &[(&[&str], &str)] = &[
        (&["--jwt-secret", "S3CRET"], "LIVEEDGECAST_JWT_SECRET: is shorter than 32 bytes"),
        (&["--jwt-secret", ""], "nobody is listed"),
        (&["--jwt-issuer", "me"], "LIVEEDGECAST_JWT_ISSUER: is about tokens whose keys are not set"),
        (&["--jwt-audience", "me"], "LIVEEDGECAST_JWT_AUDIENCE: is about tokens whose keys are not set"),
        (
            &["--jwt-secret", SECRET, "--jwt-jwks-url", "https://a/b"],
            "LIVEEDGECAST_JWT_SECRET: is given besides LIVEEDGECAST_JWT_JWKS_URL",
        ),
        (&["--jwt-jwks-url", "a/b"], "LIVEEDGECAST_JWT_JWKS_URL: is no address"),
        (&["--jwt-key-file", "/nowhere/key"], "LIVEEDGECAST_JWT_KEY_FILE: can not read /nowhere/key"),
    ];
    for (args, wanted) in table {
        let found = settings(args).expect_err("a mistake");
        assert!(found.contains(wanted) && !found.contains("S3CRET") && !found.contains(SECRET), "{args:?}: {found}");
    }
}

#[test]
fn changed_key_file_counts_from_the_next_publisher_and_a_wrong_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    #[expect(clippy::disallowed_methods, reason = "the test changes a file")]
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write(include_str!("../../../tests/samples/jwt/p256.pem"));
    let settings = settings(&["--jwt-key-file", path.to_str().unwrap()]).unwrap();
    let mut files = Reloaded::new(&settings);
    let before = files.jwt().cloned().unwrap();
    assert!(files.refresh().is_empty());
    write("nonsense");
    let news = files.refresh();
    assert!(news[0].setting == "LIVEEDGECAST_JWT_KEY_FILE" && news[0].rejected.is_some(), "{news:?}");
    assert_eq!(files.jwt(), Some(&before));
    write(include_str!("../../../tests/samples/jwt/rsa.pem"));
    assert_eq!(files.refresh()[0].rejected, None);
    assert_ne!(files.jwt(), Some(&before));
}
