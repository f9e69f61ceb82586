//! See `liveedgecast_fuzz::scanner`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| liveedgecast_fuzz::scanner(data));
