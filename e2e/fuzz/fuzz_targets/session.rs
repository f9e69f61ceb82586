//! See `liveedgecast_fuzz::session`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| liveedgecast_fuzz::session(data));
