//! argv in, status out.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    pipeban::cli::main()
}
