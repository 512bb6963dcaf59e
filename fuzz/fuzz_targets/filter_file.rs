#![no_main]

#[path = "../bodies/files.rs"]
mod files;
#[path = "../bodies/filter_file.rs"]
mod filter_file;

libfuzzer_sys::fuzz_target!(|data: &[u8]| filter_file::check(data));
