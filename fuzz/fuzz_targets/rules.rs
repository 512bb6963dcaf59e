#![no_main]

#[path = "../bodies/files.rs"]
mod files;
#[path = "../bodies/rules.rs"]
mod rules;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rules::check(data));
