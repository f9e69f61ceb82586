//! See `liveedgecast_fuzz::preface`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| liveedgecast_fuzz::preface(data));
