//! See `hook_answer::hook_answer`.
#![no_main]

#[path = "../src/hook_answer.rs"]
mod hook_answer;

libfuzzer_sys::fuzz_target!(|data: &[u8]| hook_answer::hook_answer(data));
