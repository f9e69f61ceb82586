//! See `liveedgecast_fuzz::proxy`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| liveedgecast_fuzz::proxy(data));
