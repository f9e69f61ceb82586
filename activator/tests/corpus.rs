//! The fuzz targets that need this crate, on the committed corpus.

#[path = "../../e2e/fuzz/src/configuration.rs"]
#[expect(unreachable_pub, reason = "the fuzz target calls it from another crate")]
mod configuration;
#[path = "../../e2e/fuzz/src/hook_answer.rs"]
#[expect(unreachable_pub, reason = "the fuzz target calls it from another crate")]
mod hook_answer;
#[path = "../../e2e/fuzz/src/jwt.rs"]
#[expect(unreachable_pub, reason = "the fuzz target calls it from another crate")]
mod jwt;

/// Runs a target on its corpus, which has so many files at least.
#[expect(clippy::disallowed_methods, reason = "the test reads the corpus")]
fn replay(name: &str, target: fn(&[u8]), least: usize) {
    let folder = format!("{}/../e2e/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut replayed = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus") {
        let file = entry.expect("a file").path();
        target(&std::fs::read(file).expect("its bytes"));
        replayed += 1;
    }
    assert!(replayed >= least, "{name}: only {replayed}");
}

#[test]
fn committed_answers_of_hooks_break_nothing() {
    replay("hook_answer", hook_answer::hook_answer, 12);
}

#[test]
fn committed_tokens_and_keys_break_nothing() {
    replay("jwt", jwt::jwt, 25);
}

#[test]
fn committed_configuration_files_break_nothing() {
    replay("configuration", configuration::configuration, 11);
}
