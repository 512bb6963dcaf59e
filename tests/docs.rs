//! What README, manual and help say is true.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use pipeban::cli::exit::Exit;
use pipeban::config;
use pipeban::disk;

use crate::support::skip_without;

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
        .filter(|name| *name != "help")
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
        .filter(|flag| {
            flag.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
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

/// The entries of a section of pipeban.toml(5), without markup: `key = default`, then the text.
fn keys_in_manual(section: &str) -> Vec<(String, String)> {
    let manual = read("man/pipeban.toml.5");
    let title = match section {
        "increment" => "The table increment".to_owned(),
        "defaults" => "Sections [defaults]".to_owned(),
        section => format!("Section [{section}]"),
    };
    let section = manual
        .split("\n.Ss ")
        .find(|text| text.starts_with(&title))
        .unwrap_or_else(|| panic!("no {section}"));
    let entries = section.split("\n.It Ic ").skip(1);
    let entries = entries.map(|entry| {
        let (tag, text) = entry.split_once('\n').unwrap();
        let tag = tag.replace(" No ", " ").replace(r"\(dq", "\"");
        let text: Vec<&str> = text.split_whitespace().collect();
        (tag, text.join(" "))
    });
    entries.collect()
}

/// The lines of a section of the shipped configuration, without blanks.
fn shipped_section(section: &str) -> String {
    let section = match section {
        "increment" => "defaults",
        section => section.split('.').next().unwrap(),
    };
    let shipped = read("config/pipeban.toml");
    let (_, rest) = shipped.split_once(&format!("\n[{section}]\n")).unwrap();
    rest.split("\n[").next().unwrap().replace(' ', "")
}

#[test]
fn every_key_is_in_manual_and_shipped_configuration() {
    let keys = config::keys();
    let sections: BTreeSet<&str> = keys.iter().map(|key| key.section).collect();
    assert!(sections.len() >= 6, "{sections:?}");
    for section in sections {
        let (manual, shipped) = (keys_in_manual(section), shipped_section(section));
        let keys: Vec<_> = keys.iter().filter(|key| key.section == section).collect();
        assert_eq!(manual.len(), keys.len(), "[{section}]: {manual:?}");
        for (key, (tag, text)) in keys.into_iter().zip(manual) {
            let expected = match key.default {
                "required" => format!("{} (required)", key.key),
                "the jail's name" => format!("{} (default: the name of the jail)", key.key),
                default => format!("{} = {default}", key.key),
            };
            assert_eq!(tag, expected, "[{section}]");
            let begins = format!("{}.", key.help).to_lowercase();
            assert!(text.to_lowercase().starts_with(&begins), "{begins} {text}");
            // `log` and `filter` have no default, and `command` is its keys.
            if !expected.ends_with(')') && key.key != "command" {
                let expected = expected.replace(' ', "");
                assert!(shipped.contains(&expected), "[{section}] {expected}");
            }
        }
    }
}

/// The displayed blocks of a manual, without their markup.
fn displays(manual: &str) -> Vec<String> {
    let text = read(manual);
    let blocks = text.split("\n.Bd -literal").skip(1);
    let blocks = blocks.map(|block| {
        let block = block.split_once('\n').unwrap().1;
        block.split("\n.Ed").next().unwrap().replace(r"\e", "\\")
    });
    blocks.collect()
}

/// The manual's jail and its native filter, as a user of fail2ban would take them over.
#[test]
fn the_manuals_filter_for_a_module_finds_its_client() {
    let directory = tempfile::tempdir().unwrap();
    let filters = displays("man/pipeban-filters.5");
    let filter = filters.iter().find(|text| text.contains("[[client]]"));
    let file = directory.path().join("mymod.toml");
    fs::write(&file, filter.unwrap()).unwrap();
    let line = "[Sun Nov 22 11:00:33 2026] [mymod:error] [pid 7:tid 8] My module: too many \
                connections from 192.0.2.7";
    let output = Command::new(env!("CARGO_BIN_EXE_pipeban"))
        .args([
            "--config",
            "/dev/null",
            "test",
            "--json",
            "--line",
            line,
            "--filter",
        ])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(r#""host":"192.0.2.7""#), "{said}");
}

#[test]
fn the_manuals_wp_login_jail_matches_guessed_passwords() {
    let directory = tempfile::tempdir().unwrap();
    let jails = displays("man/pipeban.toml.5");
    let jail = jails
        .iter()
        .find(|text| text.starts_with("[jails.wp-login]"))
        .unwrap();
    let config = directory.path().join("pipeban.toml");
    fs::write(
        &config,
        format!("[paths]\nshare = \"/nonexistent\"\n{jail}"),
    )
    .unwrap();
    fs::create_dir(directory.path().join("filters.d")).unwrap();
    let filters = displays("man/pipeban-filters.5");
    let filters: Vec<_> = filters
        .iter()
        .filter(|text| text.contains("\n[[match]]") && text.contains("wp-login"))
        .collect();
    assert_eq!(filters.len(), 2);
    for filter in filters {
        fs::write(directory.path().join("filters.d/wp-login.toml"), filter).unwrap();
        for (request, status, matches) in [
            ("POST /wp-login.php", 200, true),
            ("POST /wp-login.php", 302, false),
            ("GET /wp-login.php", 200, false),
        ] {
            let line = format!(
                r#"192.0.2.7 - - [22/Nov/2026:11:00:32 +0000] "{request} HTTP/1.1" {status} 718 "-" "-""#
            );
            let output = Command::new(env!("CARGO_BIN_EXE_pipeban"))
                .args(["test", "--jail", "wp-login", "--line", &line, "--config"])
                .arg(&config)
                .output()
                .unwrap();
            assert_eq!(
                output.status.code(),
                Some(i32::from(!matches)),
                "{line}: {output:?}"
            );
        }
    }
}

#[test]
fn the_manual_has_the_codes_of_apache_that_attacks_cause() {
    let manual = read("man/pipeban-filters.5");
    let (_, list) = manual.split_once(".Ss Codes of Apache").unwrap();
    let list = list.split("\n.El").next().unwrap();
    let items = list.split("\n.It Ql ").skip(1).map(|item| {
        let (codes, meaning) = item.split_once('\n').unwrap();
        (codes.replace(" ,", ","), meaning.replace('\n', " "))
    });
    let known = pipeban::record::ATTACK_CODES.iter();
    let known = known.map(|(codes, meaning)| (codes.join(", "), (*meaning).to_owned()));
    assert_eq!(items.collect::<Vec<_>>(), known.collect::<Vec<_>>());
}

#[test]
fn the_manuals_jails_and_filters_are_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let jails = ["man/pipeban.toml.5", "man/pipeban-filters.5"]
        .map(displays)
        .concat();
    let is_jail = |text: &&String| {
        text.starts_with('[') && !text.starts_with("[Definition]") && !text.starts_with("[]")
    };
    let jails: Vec<_> = jails.iter().filter(is_jail).collect();
    assert!(jails.len() >= 5, "{jails:?}");
    fs::create_dir(directory.path().join("filters.d")).unwrap();
    let filters = displays("man/pipeban-filters.5");
    let filters = filters
        .iter()
        .filter(|text| text.starts_with("[Definition]"));
    let mut count = 0;
    for filter in filters {
        let file = directory.path().join("filters.d/wp-login.conf");
        fs::write(&file, filter).unwrap();
        let line = r#"192.0.2.7 - - [22/Nov/2026:11:00:32 +0000] "POST /wp-login.php HTTP/1.1" 200 718 "-" "-""#;
        let output = Command::new(env!("CARGO_BIN_EXE_pipeban"))
            .args(["test", "--kind", "access", "--line", line, "--filter"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        count += 1;
    }
    assert_eq!(count, 2);
    for jail in jails {
        let file = directory.path().join("p.toml");
        // A shipped jail has its other keys from the shipped file.
        let text = format!(
            "[paths]\nshare = \"{}/config\"\n{jail}",
            env!("CARGO_MANIFEST_DIR")
        );
        fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_pipeban"))
            .args(["check", "--apache-config", "/dev/null", "--config"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{jail}: {output:?}");
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
    let [jail, filter] = readmes_blocks("toml").try_into().unwrap();
    fs::write(directory.path().join("p.toml"), jail).unwrap();
    fs::create_dir(directory.path().join("filters.d")).unwrap();
    fs::write(directory.path().join("filters.d/wp-login.toml"), filter).unwrap();
    let config = disk::load(&directory.path().join("p.toml")).unwrap();
    assert!(config.jails.contains_key(&"wp-login".parse().unwrap()));
    let files = ["apache", "login"].map(|file| read(&format!("config/jails.d/{file}.toml")));
    let shipped = files.concat().matches("\n[jails.").count();
    assert_eq!(shipped, 12);
    assert!(read("README.md").contains("\nTwelve jails ban clients from the start."));
}

/// `make pictures` makes them.
#[test]
fn the_readme_shows_pictures_without_an_address_of_anyone() {
    let readme = read("README.md");
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    for picture in ["docs/session.svg", "docs/report.png"] {
        assert!(readme.contains(picture), "{picture}");
        let size = fs::metadata(tree.join(picture)).unwrap().len();
        assert!(size < 300_000, "{picture}: {size} bytes");
    }
    let session = read("docs/session.svg");
    let address = regex::Regex::new(r"\b\d+\.\d+\.\d+\.\d+").unwrap();
    let documentation = ["192.0.2.", "198.51.100.", "203.0.113."];
    let mut addresses = address.find_iter(&session).map(|found| found.as_str());
    assert!(addresses.all(|text| documentation.iter().any(|net| text.starts_with(net))));
    assert!(session.contains("pipeban explain"));
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

const MANUALS: [&str; 3] = [
    "man/pipeban.8",
    "man/pipeban.toml.5",
    "man/pipeban-filters.5",
];

#[test]
fn the_manuals_are_well_formed() {
    for manual in MANUALS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(manual);
        let output = Command::new("mandoc").arg("-Tlint").arg(path).output();
        let Ok(output) = output else {
            return skip_without("mandoc");
        };
        let text = String::from_utf8_lossy(&output.stdout);
        // Whether other manuals are installed says nothing of pipeban's.
        let ours = |line: &&str| !line.contains("referenced manual not found");
        let found: Vec<_> = text.lines().filter(ours).collect();
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[test]
fn every_manual_is_installed_and_removed() {
    let makefile = read("packaging/install.mk");
    for manual in MANUALS {
        let name = manual.trim_start_matches("man/");
        for part in ["install -m 0644", "rm -f"] {
            let lines = makefile.split(part).skip(1);
            let mut lines = lines.map(|line| line.split("\n\t@").next().unwrap());
            assert!(lines.any(|line| line.contains(name)), "{part} {name}");
        }
    }
}

#[test]
fn without_root_the_demo_is_a_dry_run_that_leaves_nothing() {
    use std::os::unix::fs::PermissionsExt as _;
    // Where a user without rights may read and write.
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
        "Without a real Apache: that needs root",
        "Done. With root",
        "Ban 198.51.100.7 for 365d",
        "Ban 2001:db8:a000::/64 for 365d",
        "banned now: 2",
    ] {
        assert!(said.contains(shown), "{shown}: {said}");
    }
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
}
