//! The fuzz targets that need this crate, on the committed corpus.

#[path = "../../e2e/fuzz/src/hook_answer.rs"]
#[expect(unreachable_pub, reason = "the fuzz target calls it from another crate")]
mod hook_answer;

#[test]
fn committed_answers_of_hooks_break_nothing() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../e2e/fuzz/corpus/hook_answer");
    let mut replayed = 0;
    #[expect(clippy::disallowed_methods, reason = "the test reads the corpus")]
    for entry in std::fs::read_dir(folder).unwrap() {
        hook_answer::hook_answer(&std::fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed >= 12, "only {replayed}");
}
