#![no_main]

#[path = "../bodies/decoding.rs"]
mod decoding;

libfuzzer_sys::fuzz_target!(|data: &[u8]| decoding::check(data));
