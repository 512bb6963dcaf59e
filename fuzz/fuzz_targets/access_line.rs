#![no_main]

#[path = "../bodies/access_line.rs"]
mod access_line;

libfuzzer_sys::fuzz_target!(|data: &[u8]| access_line::check(data));
