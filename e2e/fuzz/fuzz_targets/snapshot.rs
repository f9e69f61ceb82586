//! See `liveedgecast_fuzz::snapshot`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| liveedgecast_fuzz::snapshot(data));
