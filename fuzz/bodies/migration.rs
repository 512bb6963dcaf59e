//! fail2ban's `jail.conf` and `jail.local` into pipeban's configuration.

use std::path::{Path, PathBuf};

use pipeban::config;
use pipeban::filter::{self, Definition};
use pipeban::host_commands::HostCommands;
use pipeban::migrate::{self, Host, Text};
use pipeban::record::Kind;

use super::files::Files;

const DIRECTORY: &str = "/etc/fail2ban";

pub(super) fn check(data: &[u8]) {
    let files = Files::of("/etc/fail2ban/jail.conf", data);
    let definition = definition();
    let host = Host {
        logs: &|path| match path.to_string_lossy().contains("error") {
            true => vec![Kind::Error],
            false => vec![Kind::Access],
        },
        filter: &|_| definition.clone(),
        service: &|name| (name == "http").then_some(80),
        ignoreip: vec!["127.0.0.0/8".to_owned()],
    };
    let Ok(migration) = migrate::plan(Path::new(DIRECTORY), &host, &files) else {
        return;
    };
    let text = Text {
        migration: &migration,
        commands: HostCommands::default(),
    };
    let _ = text.advice();
    // What is wrong with the result has a place there.
    let mut ours = Files::of("/etc/pipeban/pipeban.toml", text.toml().as_bytes());
    for moved in &migration.moved {
        let name = moved.filter.split('[').next().unwrap_or_default();
        let path = PathBuf::from("/etc/pipeban/filters.d").join(format!("{name}.conf"));
        ours.texts.insert(path, FILTER.to_owned());
        if let Some((name, text)) = &moved.copy {
            let path = Path::new("/etc/pipeban/filters.d").join(name);
            ours.texts.insert(path, text.clone());
        }
    }
    let read = config::load(Path::new("/etc/pipeban/pipeban.toml"), &ours);
    for problem in read.err().into_iter().flatten() {
        let (line, column) = problem.place.expect("a place");
        ours.assert_place(&problem.file, line, column);
    }
}

const FILTER: &str = "[Definition]\nfailregex = ^<HOST> refused$\n";

fn definition() -> Option<Definition> {
    let files = Files::of("f.conf", FILTER.as_bytes());
    filter::read("f", Path::new("f.conf"), &Default::default(), &files).ok()
}
