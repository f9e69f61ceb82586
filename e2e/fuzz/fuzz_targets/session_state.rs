//! See `liveedgecast_fuzz::session_state`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| liveedgecast_fuzz::session_state(data));
