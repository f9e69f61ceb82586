//! See `liveedgecast_fuzz::amf0`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| liveedgecast_fuzz::amf0(data));
