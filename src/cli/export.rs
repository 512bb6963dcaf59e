//! `pipeban export`

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use super::ask;
use super::exit::Exit;
use super::global::Global;
use crate::config::JailName;
use crate::control::{Command, Exported, Reply};
use crate::record::display_json;

/// Addresses in one `banip`, so that the line is not too long for a shell.
const IN_ONE_LINE: usize = 50;

/// Print the bans, for `pipeban import` or other programs
///
/// Formats: json, which `pipeban import` reads to ban the same clients until the same time, here or
/// on another host; a list of addresses; or commands for fail2ban, which apply the bantime of
/// fail2ban's jails. Jails that only observe (enforce = false) have no bans to export.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipeban export > bans.json\n  \
    pipeban export --jail apache-auth --format list\n  \
    pipeban export | ssh web2 pipeban import")]
pub(super) struct Args {
    /// Only this jail's bans
    #[arg(long)]
    jail: Option<JailName>,
    /// json: one object per line; list: one address or network per line; fail2ban:
    /// `fail2ban-client set JAIL banip ...`
    #[arg(long, value_enum, default_value_t = Format::Json, hide_possible_values = true)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Json,
    List,
    Fail2ban,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let mut out = Writer {
        out: BufWriter::new(io::stdout().lock()),
        format: args.format,
        last: String::new(),
        by_jail: BTreeMap::new(),
    };
    let mut after = None;
    loop {
        let jail = args.jail.clone();
        let reply = match ask::ask(global, &Command::Export { jail, after }) {
            Ok(reply) => reply,
            Err(error) => return ask::fail(global, &error),
        };
        let Reply::Bans { bans, next } = reply else {
            return ask::show(global, &reply);
        };
        let written = bans.into_iter().try_for_each(|ban| out.write(ban));
        let written = match next {
            Some(_) => written,
            None => written.and_then(|()| out.finish()),
        };
        match written {
            Ok(()) if next.is_some() => after = next,
            Ok(()) => return Exit::Yes,
            // The reader closed the pipe.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Exit::Yes,
            Err(error) => {
                eprintln!("pipeban: cannot write to standard output: {error}");
                return Exit::Failed;
            }
        }
    }
}

struct Writer<W: Write> {
    out: W,
    format: Format,
    /// The last host of a list: bans of one host are next to each other.
    last: String,
    /// Hosts of each jail that wait for a full line.
    by_jail: BTreeMap<JailName, Vec<String>>,
}

impl<W: Write> Writer<W> {
    fn write(&mut self, ban: Exported) -> io::Result<()> {
        match self.format {
            Format::Json => {
                let json = serde_json::to_string(&ban)?;
                writeln!(self.out, "{}", display_json(&json))
            }
            Format::List if ban.host == self.last => Ok(()),
            Format::List => {
                self.last = ban.host;
                writeln!(self.out, "{}", self.last)
            }
            Format::Fail2ban => {
                let waiting = self.by_jail.entry(ban.jail.clone()).or_default();
                waiting.push(ban.host);
                if waiting.len() < IN_ONE_LINE {
                    return Ok(());
                }
                let hosts = std::mem::take(waiting);
                banip(&mut self.out, &ban.jail, &hosts)
            }
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        for (jail, hosts) in std::mem::take(&mut self.by_jail) {
            if !hosts.is_empty() {
                banip(&mut self.out, &jail, &hosts)?;
            }
        }
        self.out.flush()
    }
}

fn banip(out: &mut impl Write, jail: &JailName, hosts: &[String]) -> io::Result<()> {
    writeln!(out, "fail2ban-client set {jail} banip {}", hosts.join(" "))
}
