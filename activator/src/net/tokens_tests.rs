//! Tokens in files that change.
#![expect(clippy::disallowed_methods, reason = "tests over files")]

use std::fs;

use clap::Parser;

use super::*;
use crate::config::Args;

const CONTROL: &str = "a control secret of this test";

fn current(folder: &std::path::Path) -> CurrentTokens {
    given(folder, &[])
}

fn given(folder: &std::path::Path, more: &[&str]) -> CurrentTokens {
    let file = folder.join("admin");
    let args = ["x", "--push-url", "rtmp://a/live/{key}", "--open", "--control-secret", CONTROL];
    let args = args.iter().chain(more).copied().chain(["--admin-token-file"]).chain(file.to_str());
    CurrentTokens::new(&Settings::resolve(&Args::try_parse_from(args).unwrap(), [0; 32]).unwrap())
}

fn derived(token: &str) -> Secret {
    let tokens = ApiTokens { admin: Some(Secret::new(token)), view: None };
    tokens.activator_secret(&Secret::new(CONTROL))
}

#[test]
fn new_token_counts_at_once_and_the_secret_before_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let write = |token: &str| fs::write(folder.path().join("admin"), token).unwrap();
    let (one, two) = ("one-token-of-this-test", "another-token-of-this-test");
    write(one);
    let current = current(folder.path());
    let begun = now();
    assert_eq!(current.paths(), [folder.path().join("admin")]);
    assert!(current.secrets_at(begun, false) == [derived(one)]);

    write(two);
    assert!(current.tokens().admin == Some(Secret::new(two)), "the old token opens nothing any more");
    // The change is found by the first look, which was a moment ago.
    let found = now();
    assert!(current.secrets_at(found, false) == [derived(two), derived(one)]);
    assert!(current.secrets_at(begun + PREVIOUS_FOR - Duration::from_millis(1), false) == [derived(two), derived(one)]);
    assert!(current.secrets_at(found + PREVIOUS_FOR, false) == [derived(two)]);

    write("short");
    assert!(current.tokens().admin == Some(Secret::new(two)), "a token with a mistake is not in force");
    fs::remove_file(folder.path().join("admin")).unwrap();
    assert!(current.tokens().admin == Some(Secret::new(two)), "nor is none");
    assert!(current.secrets_at(found, false) == [derived(two)]);
    write(one);
    assert!(current.secrets_at(found, false) == [derived(one), derived(two)]);
    assert!(!format!("{current:?}").contains(one));
}

#[test]
fn token_whose_file_may_be_missing_comes_and_goes_with_the_file() {
    // As Kubernetes mounts a Secret: `admin -> ..data/admin`, `..data -> ..1`; without the Secret the folder is empty.
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let current = given(folder.path(), &["--token-files-optional"]);
    let begun = now();
    let none = ApiTokens::default().activator_secret(&Secret::new(CONTROL));
    assert!(current.tokens() == ApiTokens::default());
    assert!(
        current.secrets_at(begun, true) == [none.clone()],
        "without tokens activators pass on what changes nothing"
    );

    let token = "one-token-of-this-test";
    let publish = |version: &str, token: Option<&str>| {
        fs::create_dir(at(version)).unwrap();
        if let Some(token) = token {
            fs::write(at(version).join("admin"), token).unwrap();
        }
        std::os::unix::fs::symlink(version, at("..next")).unwrap();
        fs::rename(at("..next"), at("..data")).unwrap();
    };
    publish("..1", Some(token));
    std::os::unix::fs::symlink("..data/admin", at("admin")).unwrap();
    assert!(current.tokens().admin == Some(Secret::new(token)));
    assert!(current.secrets_at(begun, false) == [derived(token), none.clone()]);
    assert!(
        current.secrets_at(begun, true) == [derived(token)],
        "a worker knows the secret before, and must not change streams"
    );

    // The link of the file is still there when the file is gone already.
    publish("..2", None);
    assert!(current.tokens() == ApiTokens::default());
    fs::remove_file(at("admin")).unwrap();
    assert!(current.tokens() == ApiTokens::default());
    assert!(current.secrets_at(begun, true) == [none, derived(token)]);

    fs::write(at("admin"), token).unwrap();
    assert!(current.tokens().admin == Some(Secret::new(token)));
    fs::rename(at("admin"), at("amdin")).unwrap();
    assert!(
        current.tokens().admin == Some(Secret::new(token)),
        "a file under another name is a mistake, and takes no token away"
    );
    // The file that is looked for is missing as before, and the folder is as it may be.
    fs::remove_file(at("amdin")).unwrap();
    assert!(current.tokens() == ApiTokens::default(), "the mistake is over");
}
