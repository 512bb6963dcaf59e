#![no_main]

#[path = "../bodies/files.rs"]
mod files;
#[path = "../bodies/configuration.rs"]
mod configuration;

libfuzzer_sys::fuzz_target!(|data: &[u8]| configuration::check(data));
