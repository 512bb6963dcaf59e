#![no_main]

#[path = "../bodies/pattern.rs"]
mod pattern;

libfuzzer_sys::fuzz_target!(|data: &[u8]| pattern::check(data));
