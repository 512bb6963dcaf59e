//! What README, manual and help say is true.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use pipeban::cli::exit::Exit;
use pipeban::config;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn help(command: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pipeban"))
        .args(command)
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The names of all commands, from the help.
fn commands() -> Vec<String> {
    let help = help(&[]);
    let list = help
        .split("Commands:\n")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    let commands: Vec<String> = list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    assert!(commands.len() >= 13, "{commands:?}");
    commands
}

/// The manual without its markup, each command's entry by its name.
fn manual_entries() -> Vec<(String, String)> {
    let manual = read("man/pipeban.8");
    let section = manual
        .split(".Sh COMMANDS\n")
        .nth(1)
        .unwrap()
        .split("\n.Sh ")
        .next()
        .unwrap();
    section
        .split("\n.It Cm ")
        .skip(1)
        .map(|entry| {
            (
                entry.split_whitespace().next().unwrap().to_owned(),
                entry.to_owned(),
            )
        })
        .collect()
}

/// `--flag`s in a help text, those of every command left out.
fn flags_in_help(help: &str) -> BTreeSet<String> {
    help.split("\nOptions:\n")
        .nth(1)
        .unwrap_or("")
        .lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")))
        .map(|flag| flag.trim_end_matches([',', '.']).to_owned())
        // A line of prose may begin with a flag that ends in a bracket.
        .filter(|flag| flag.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
        .filter(|flag| !["--help", "--version", "--config", "--json"].contains(&flag.as_str()))
        .collect()
}

/// `.Fl -flag`s in an entry of the manual.
fn flags_in_manual(entry: &str) -> BTreeSet<String> {
    let words: Vec<&str> = entry.split_whitespace().collect();
    words
        .windows(2)
        .filter(|pair| pair[0].trim_start_matches('.') == "Fl")
        .map(|pair| format!("-{}", pair[1]))
        .filter(|flag| flag != "--json")
        .collect()
}

#[test]
fn every_command_is_in_the_manual_and_the_reverse() {
    let mut listed = commands();
    let mut described: Vec<String> = manual_entries().into_iter().map(|(name, _)| name).collect();
    listed.sort();
    described.sort();
    assert_eq!(listed, described);
}

#[test]
fn every_flag_is_in_help_and_manual() {
    for (command, entry) in manual_entries() {
        assert_eq!(
            flags_in_help(&help(&[&command])),
            flags_in_manual(&entry),
            "pipeban {command}: help, manual"
        );
    }
}

#[test]
fn the_fields_of_a_file_name_are_in_the_manual() {
    let manual = read("man/pipeban.8");
    assert!(
        manual
            .lines()
            .any(|line| line == format!(".Dl {}", pipeban::pipe::FIELDS))
    );
}

#[test]
fn exit_statuses_agree() {
    let manual = read("man/pipeban.8");
    let manual = manual
        .split(".Sh EXIT STATUS\n")
        .nth(1)
        .unwrap()
        .split("\n.Sh ")
        .next()
        .unwrap();
    let described: Vec<(String, String)> = manual
        .split("\n.It ")
        .skip(1)
        .map(|item| {
            let (number, meaning) = item.split_once('\n').unwrap();
            (
                number.to_owned(),
                meaning.lines().next().unwrap().to_owned(),
            )
        })
        .collect();
    let known: Vec<(String, String)> = Exit::ALL
        .iter()
        .map(|(exit, meaning)| ((*exit as u8).to_string(), (*meaning).to_owned()))
        .collect();
    assert_eq!(described, known);
    let help = help(&[]);
    for (number, meaning) in known {
        assert!(
            help.lines()
                .any(|line| line.trim() == format!("{number:<4}{meaning}")),
            "{number}: {help}"
        );
    }
}

#[test]
fn every_key_is_in_manual_and_shipped_configuration() {
    let manual = read("man/pipeban.8");
    let shipped = read("config/pipeban.toml");
    for key in config::jail_keys() {
        assert!(
            manual.contains(&format!("\n.It Ic {key}\n")),
            "{key} is not in the manual"
        );
        let line = |line: &str| {
            line.trim_start_matches("# ")
                .split('=')
                .next()
                .is_some_and(|name| name.trim() == key)
        };
        assert!(
            shipped.lines().any(line),
            "{key} is not in config/pipeban.toml"
        );
    }
    // And the reverse: every key of the manual is accepted or refused for its value, never unknown.
    let section = manual
        .split(".Sh CONFIGURATION\n")
        .nth(1)
        .unwrap()
        .split("\n.Ss Filters")
        .next()
        .unwrap();
    let mut header = "";
    let mut seen = 0;
    for line in section.lines() {
        if let Some(name) = line.strip_prefix(".Ss ") {
            header = ["paths", "firewall", "syslog", "proxies", "defaults"]
                .into_iter()
                .find(|known| name.contains(&format!("[{known}]")))
                .unwrap();
        } else if let Some(key) = line.strip_prefix(".It Ic ") {
            seen += 1;
            let told = problems(&format!("[{header}]\n{key} = 1979-05-27\n"));
            assert!(
                !told
                    .iter()
                    .any(|text| text.contains("unknown key") || text.contains("no key")),
                "{key}: {told:?}"
            );
        }
    }
    assert!(seen > 25, "{seen}");
}

fn problems(text: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("p.toml");
    fs::write(&file, text).unwrap();
    match config::load(&file) {
        Ok(_) => Vec::new(),
        Err(found) => found.iter().map(ToString::to_string).collect(),
    }
}

/// Every command line of README, in its order.
pub(crate) fn readmes_commands() -> Vec<String> {
    let lines = readmes_blocks("sh").join("\n");
    let lines = lines
        .lines()
        .map(|line| line.split(" #").next().unwrap().trim());
    lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Fenced blocks of README in a language.
pub(crate) fn readmes_blocks(language: &str) -> Vec<String> {
    let readme = read("README.md");
    let mut found = Vec::new();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        if line.trim() == format!("```{language}") {
            let block: Vec<&str> = lines
                .by_ref()
                .take_while(|line| line.trim() != "```")
                .map(str::trim)
                .collect();
            found.push(block.join("\n"));
        }
    }
    found
}

#[test]
fn readmes_jail_and_filter_are_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let [jail] = readmes_blocks("toml").try_into().unwrap();
    let [filter] = readmes_blocks("ini").try_into().unwrap();
    fs::write(directory.path().join("p.toml"), jail).unwrap();
    fs::create_dir(directory.path().join("filters.d")).unwrap();
    fs::write(directory.path().join("filters.d/wp-login.conf"), filter).unwrap();
    let config = config::load(&directory.path().join("p.toml")).unwrap();
    assert!(config.jails.contains_key(&"wp-login".parse().unwrap()));
    let shipped = read("config/jails.d/apache.toml")
        .matches("\n[jails.")
        .count();
    assert_eq!(shipped, 9);
    assert!(read("README.md").contains("\nNine jails are on from the start."));
}

#[test]
fn every_command_in_the_readme_exists() {
    let commands = commands();
    let makefile = read("Makefile") + &read("packaging/install.mk");
    let mut seen = 0;
    for line in &readmes_commands() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["make", target] => assert!(makefile.contains(&format!("\n{target}:")), "{line}"),
            ["pipeban", command, rest @ ..] => {
                seen += 1;
                assert!(commands.iter().any(|known| known == command), "{line}");
                let flags = flags_in_help(&help(&[command]));
                for flag in rest.iter().filter(|word| word.starts_with("--")) {
                    assert!(flags.contains(*flag), "{line}: {flags:?}");
                }
            }
            ["apache2ctl", "graceful"] => {}
            _ => panic!("README: a command that no test knows: {line}"),
        }
    }
    assert!(seen >= 12, "{seen}");
}

#[test]
fn the_manual_is_well_formed() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/pipeban.8");
    match Command::new("mandoc")
        .args(["-Tlint", "-W", "warning"])
        .arg(&manual)
        .output()
    {
        Ok(output) => assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        ),
        Err(_) => eprintln!("SKIPPED: no mandoc on this machine"),
    }
}

#[test]
fn without_root_the_demo_is_a_dry_run_that_leaves_nothing() {
    use std::os::unix::fs::PermissionsExt as _;
    // Where somebody without rights may read and write.
    let directory = tempfile::tempdir().unwrap();
    let scratch = directory.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    for open in [directory.path(), &scratch] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let program = directory.path().join("pipeban");
    fs::copy(env!("CARGO_BIN_EXE_pipeban"), &program).unwrap();
    let script = directory.path().join("demo.sh");
    fs::write(&script, read("tests/demo.sh")).unwrap();
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            "65533",
            "--regid",
            "65533",
            "--clear-groups",
            "bash",
        ]);
        command
    } else {
        Command::new("bash")
    };
    let output = command
        .arg(&script)
        .arg(&program)
        .env("TMPDIR", &scratch)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for shown in [
        "Missing: root",
        "Ban 198.51.100.7 for 365d",
        "Ban 2001:db8:a000::/64 for 365d",
        "banned by apache-cgitraversal:",
    ] {
        assert!(said.contains(shown), "{shown}: {said}");
    }
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
}
