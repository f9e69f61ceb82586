//! See `liveedgecast_fuzz::client`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| liveedgecast_fuzz::client(data));
