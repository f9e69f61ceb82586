//! See `liveedgecast_fuzz::page`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| liveedgecast_fuzz::page(data));
