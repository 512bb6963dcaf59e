#![no_main]

#[path = "../bodies/files.rs"]
mod files;
#[path = "../bodies/migration.rs"]
mod migration;

libfuzzer_sys::fuzz_target!(|data: &[u8]| migration::check(data));
