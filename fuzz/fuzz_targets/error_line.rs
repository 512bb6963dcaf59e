#![no_main]

#[path = "../bodies/error_line.rs"]
mod error_line;

libfuzzer_sys::fuzz_target!(|data: &[u8]| error_line::check(data));
