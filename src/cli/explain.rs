//! `pipeban explain`

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ask::{self, print};
use super::exit::Exit;
use super::global::Global;
use super::test::Failure;
use crate::apache;
use crate::disk;
use crate::jail::show_net;
use crate::record::{Kind, Parser, display, meaning};
use crate::report::explain::{Answer, Facts, explain};
use crate::report::{count, log_lines};

mod enforcement;
mod gather;
mod logs;
mod near;
mod reading;

/// Explain why a client is banned or is not, and whether the ban is in force
///
/// Reads what the engine and the database know, asks the firewall itself, and runs the client's
/// lines in Apache's logs through the code that runs behind Apache. It changes nothing. The reason
/// that matters most comes first, each with what to do next. As root it sees everything; group adm
/// sees what the engine and readable logs say.
///
/// Works with the engine stopped or busy. Of a long log only the last 64 MiB are read. The exit
/// status is 0 if a ban is in force, 1 if not, and 2 if that cannot be found out.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pipeban explain 192.0.2.7
  pipeban explain 192.0.2.7 --log /var/log/apache2/access.log.1
  pipeban explain --json 2001:db8::/64
  pipeban explain \"$(tail -n 1 /var/log/apache2/error.log)\"")]
pub(super) struct Args {
    /// Address, network, or a line of a log
    #[arg(value_name = "ADDR|LINE", allow_hyphen_values = true)]
    client: String,
    /// Search this log instead of those that Apache writes, plain or compressed by gzip or xz; may
    /// be repeated
    #[arg(long, value_name = "FILE")]
    log: Vec<PathBuf>,
    /// First file of Apache's configuration, where it is not in a usual place
    #[arg(long, value_name = "FILE")]
    apache_config: Option<PathBuf>,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let client = args.client.trim();
    let (net, line) = match network(client) {
        Ok(net) => (net, None),
        Err(error) if !client.contains(' ') => {
            let text = display(client.as_bytes(), 80);
            eprintln!("pipeban: `{text}` is not a line of a log, and {error}");
            return Exit::Usage;
        }
        Err(_) => {
            let apache = args.apache_config.as_deref();
            if let Some((kind, net)) = client_of(client, apache, global) {
                (net, Some((kind, client)))
            } else if let Some((kind, client)) = log_lines::meaning_of(client) {
                if !global.json {
                    print(&format!("{}: {}\n", kind.line, kind.meaning));
                }
                (IpNet::from(client), None)
            } else {
                return unread(global, client);
            }
        }
    };
    let asked = gather::Asked {
        net,
        line,
        logs: &args.log,
        apache: args.apache_config.as_deref(),
    };
    answer(&asked, global)
}

/// As people copy it: an address also in brackets or with a port.
fn network(text: &str) -> Result<IpNet, String> {
    match text.parse::<SocketAddr>() {
        Ok(socket) => ask::network(&socket.ip().to_string()),
        Err(_) => ask::network(text.trim_start_matches('[').trim_end_matches(']')),
    }
}

/// `pipeban status ADDR`
pub(super) fn of(net: IpNet, global: &Global) -> Exit {
    let asked = gather::Asked {
        net,
        line: None,
        logs: &[],
        apache: None,
    };
    answer(&asked, global)
}

fn answer(asked: &gather::Asked<'_>, global: &Global) -> Exit {
    let facts = match gather::gather(asked, global) {
        Ok(facts) => facts,
        Err(gather::Failed::NotPermitted(text)) => {
            ask::complain(global, &text);
            return Exit::NotPermitted;
        }
        Err(gather::Failed::Config(problems)) => return Failure::Config(problems).report(),
    };
    let answer = explain(&facts);
    match global.json {
        true => print(&object(&facts, &answer).to_string()),
        false => show(&facts, &answer),
    }
    match (answer.banned, answer.in_force) {
        (true, Some(true)) => Exit::Yes,
        (true, None) if facts.bans.iter().all(|ban| ban.behind.is_none()) => Exit::Failed,
        _ => Exit::No,
    }
}

/// The kind of a pasted line, and the client that Apache names in it; also in a format of this host's
/// logs.
fn client_of(line: &str, apache: Option<&Path>, global: &Global) -> Option<(Kind, IpNet)> {
    let config = disk::load(&global.config).ok();
    let clients = config.map_or_else(Vec::new, |config| config.module_clients());
    let auto = [Kind::Error, Kind::Access].map(|kind| (kind, "auto".to_owned()));
    let of_host = || apache::scan(apache).map(|scan| logs::formats(&scan));
    let formats = auto.into_iter().chain(of_host().unwrap_or_default());
    formats.into_iter().find_map(|(kind, format)| {
        let parser = Parser::new(kind, &format).ok()?;
        let parser = parser.with_module_clients(clients.iter().cloned());
        let client = parser.parse(line.as_bytes())?.client?;
        Some((kind, IpNet::from(client.addr)))
    })
}

/// A line in which Apache names no client.
fn unread(global: &Global, line: &str) -> Exit {
    let kinds = [Kind::Error, Kind::Access].into_iter();
    let named = kinds.filter_map(|kind| {
        let parser = Parser::new(kind, "auto").ok()?;
        parser.parse(line.as_bytes()).map(|_| kind)
    });
    let text = match named.into_iter().next() {
        Some(kind) => format!(
            "Apache names no client in this line of its {kind} log (names are never resolved), so it \
             can ban no one: put %a into the LogFormat, or log requests that have a client"
        ),
        None => "the line has no format of Apache's that is detected, so its client is not known: \
                 `pipeban test --format FORMAT --line '...'` reads it by its format"
            .to_owned(),
    };
    match global.json {
        true => print(
            &json!({
                "host": null, "banned": false, "in_force": false,
                "reasons": [{"code": "unparsed", "text": text}], "evidence": [],
            })
            .to_string(),
        ),
        false => print(&text),
    }
    Exit::No
}

fn object(facts: &Facts, answer: &Answer) -> Value {
    let reasons = answer.reasons.iter();
    let reasons = reasons.map(|reason| json!({"code": reason.code.word(), "text": reason.text}));
    let time = |time: &Timestamp| time.to_string();
    let bans = facts.bans.iter().chain(&facts.past);
    let of_bans = bans.flat_map(|ban| {
        let lines = ban.lines.iter();
        lines.map(|(at, line)| json!({"ban": ban.id, "time": time(at), "line": line}))
    });
    let of_logs = facts.logs.iter().flat_map(|log| {
        let lines = log.evidence.iter();
        lines.map(|(at, line, matches)| {
            json!({
                "log": log.name, "time": at.as_ref().map(time), "line": line, "matches": matches,
            })
        })
    });
    let backends = facts.bans.iter().flat_map(|ban| {
        let backends = ban.backends.iter();
        backends.map(
            |backend| json!({"ban": ban.id, "name": backend.name, "in_force": backend.in_force}),
        )
    });
    json!({
        "host": show_net(&facts.host),
        "banned": answer.banned,
        "in_force": answer.in_force,
        "reasons": reasons.collect::<Vec<_>>(),
        "evidence": of_bans.chain(of_logs).collect::<Vec<_>>(),
        "backends": backends.collect::<Vec<_>>(),
    })
}

fn show(facts: &Facts, answer: &Answer) {
    let host = show_net(&facts.host);
    let mut bans = facts.bans.iter().filter(|ban| !ban.observed);
    let within = !bans.clone().any(|ban| ban.net.contains(&facts.host));
    let banned = match within {
        true => format!("{host}: clients in this network are banned"),
        false => format!("{host} is banned"),
    };
    let state = match answer.in_force {
        _ if !answer.banned => format!("{host} is not banned"),
        Some(true) if within => format!("{banned}, and a ban is in force"),
        Some(true) => format!("{banned}, and the ban is in force"),
        Some(false) if within => format!("{banned}, but no ban is in force"),
        Some(false) => format!("{banned}, but the ban is NOT in force"),
        None if bans.all(|ban| ban.behind.is_some()) => {
            format!("{banned}, but no firewall on this host can enforce it")
        }
        None => format!("{banned}; whether that is in force is not known"),
    };
    print(&state);
    for reason in &answer.reasons {
        print(&format!("\n{}: {}", reason.code.word(), reason.text));
    }
    for ban in facts.bans.iter().chain(facts.past.first()) {
        if !ban.lines.is_empty() {
            print(&format!("\nlines that led to ban {}:", ban.id));
        }
        for (_, line) in &ban.lines {
            print(&format!("    {line}"));
            if let Some(meaning) = meaning(line) {
                print(&format!("        {meaning}"));
            }
        }
    }
    for log in facts.logs.iter().filter(|log| log.lines > 0) {
        let part = match log.skipped {
            0 => String::new(),
            skipped => format!(
                ", not in its first {} MiB, which were not read",
                skipped >> 20
            ),
        };
        let lines = count(log.lines, "line");
        print(&format!(
            "\n{}: {lines} of {host}, {} with a hit{part}",
            log.name, log.matched
        ));
        for (_, line, matches) in &log.evidence {
            let matches = match matches.is_empty() {
                true => "no match".to_owned(),
                false => matches.join(", "),
            };
            print(&format!("    {line}\n        {matches}"));
            if let Some(meaning) = meaning(line) {
                print(&format!("        {meaning}"));
            }
        }
    }
}
