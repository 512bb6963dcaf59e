//! `pipeban completions`: every command and option, in each shell; bash completes for real.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const PIPEBAN: &str = env!("CARGO_BIN_EXE_pipeban");

fn completions(shell: &str) -> String {
    let output = Command::new(PIPEBAN)
        .args(["completions", shell])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_shell_gets_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let text = completions(shell);
        for word in ["status", "migrate", "disallow", "apache-config", "forget"] {
            assert!(text.contains(word), "{shell}: {word}");
        }
        let program = format!("/usr/bin/{shell}");
        if Path::new(&program).exists() {
            let mut checked = Command::new(program)
                .args(if shell == "fish" {
                    ["--no-execute"]
                } else {
                    ["-n"]
                })
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            checked
                .stdin
                .take()
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
            assert!(checked.wait().unwrap().success(), "{shell}");
        }
    }
    let unknown = Command::new(PIPEBAN)
        .args(["completions", "tcsh"])
        .output()
        .unwrap();
    assert_eq!(unknown.status.code(), Some(64));
}

#[test]
fn bash_completes_commands_and_options() {
    let script = format!(
        "{}
        complete_words() {{
            COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            _pipeban pipeban \"${{@: -1}}\" \"${{@: -2:1}}\"
            echo \"${{COMPREPLY[*]}}\"
        }}
        complete_words pipeban mig
        complete_words pipeban unban --fo
        complete_words pipeban replay --kind ''",
        completions("bash")
    );
    let output = Command::new("bash")
        .args(["--norc", "-c", &script])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text, "migrate\n--forget\naccess error\n",
        "{:?}",
        output.stderr
    );
}

#[test]
fn make_installs_and_removes_completions_and_hooks() {
    let directory = tempfile::tempdir().unwrap();
    let make = |what: &str| {
        let output = Command::new("make")
            .args(["--silent", "-C", env!("CARGO_MANIFEST_DIR"), what])
            .arg(format!("DESTDIR={}", directory.path().display()))
            .arg(format!("BIN={PIPEBAN}"))
            .env_remove("MAKEFLAGS")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let files = [
        "usr/share/bash-completion/completions/pipeban",
        "usr/share/zsh/vendor-completions/_pipeban",
        "usr/share/fish/vendor_completions.d/pipeban.fish",
        "usr/share/pipeban/examples/hooks/mail",
    ]
    .map(|name| directory.path().join(name));
    make("install");
    for file in &files {
        assert!(file.metadata().unwrap().len() > 0, "{}", file.display());
    }
    make("uninstall");
    for file in &files {
        assert!(!file.exists(), "{}", file.display());
    }
    // Nothing is beside the directories of a system.
    for entry in directory.path().read_dir().unwrap() {
        let name = entry.unwrap().file_name();
        let name = name.to_str().unwrap();
        assert!(["etc", "lib", "usr", "var"].contains(&name), "{name}");
    }
}
