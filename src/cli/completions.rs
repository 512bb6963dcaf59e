//! `pipeban completions`

use std::io::Write as _;

use super::exit::Exit;

/// Print what a shell needs to complete pipeban's commands and options
///
/// `make install` writes it to the places where bash, zsh and fish search.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pipeban completions bash >~/.local/share/bash-completion/completions/pipeban"
)]
pub(super) struct Args {
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(args: &Args, mut command: clap::Command) -> Exit {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    // Not to a pipe: it panics where that is closed.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "pipeban", &mut text);
    match std::io::stdout().write_all(&text) {
        Ok(()) => Exit::Yes,
        Err(error) => {
            eprintln!("pipeban: cannot write: {error}");
            Exit::Failed
        }
    }
}
