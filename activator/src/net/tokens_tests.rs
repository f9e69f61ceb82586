//! Tokens in files that change.
#![expect(clippy::disallowed_methods, reason = "tests over files")]

use std::fs;

use clap::Parser;

use super::*;
use crate::config::Args;

const CONTROL: &str = "a control secret of this test";

fn current(folder: &std::path::Path) -> CurrentTokens {
    let file = folder.join("admin");
    let args = ["x", "--push-url", "rtmp://a/live/{key}", "--open", "--control-secret", CONTROL, "--admin-token-file"];
    let args = args.into_iter().chain(file.to_str());
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
    assert!(current.secrets_at(begun) == [derived(one)]);

    write(two);
    assert!(current.tokens().admin == Some(Secret::new(two)), "the old token opens nothing any more");
    // The change is found by the first look, which was a moment ago.
    let found = now();
    assert!(current.secrets_at(found) == [derived(two), derived(one)]);
    assert!(current.secrets_at(begun + PREVIOUS_FOR - Duration::from_millis(1)) == [derived(two), derived(one)]);
    assert!(current.secrets_at(found + PREVIOUS_FOR) == [derived(two)]);

    write("short");
    assert!(current.tokens().admin == Some(Secret::new(two)), "a token with a mistake is not in force");
    fs::remove_file(folder.path().join("admin")).unwrap();
    assert!(current.tokens().admin == Some(Secret::new(two)), "nor is none");
    assert!(current.secrets_at(found) == [derived(two)]);
    write(one);
    assert!(current.secrets_at(found) == [derived(one), derived(two)]);
    assert!(!format!("{current:?}").contains(one));
}
