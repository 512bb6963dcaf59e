//! Every ban, however many there are: a page at a time, so that neither the engine nor this
//! process holds them all.

use std::io::{self, BufWriter, Write};

use ipnet::IpNet;
use serde::Serialize;

use super::view::{Client, View, Widths};
use crate::cli::ask;
use crate::cli::exit::Exit;
use crate::cli::global::Global;
use crate::config::JailName;
use crate::control::{BanStatus, Command, JailStatus, ListedBan, Reply, Status};

/// Bans that one answer holds.
pub(super) const AT_ONCE: usize = 1_000;

/// Prints one object; the bans of a status that lacks some are requested page by page.
pub(super) fn json(status: Status, global: &Global) -> Exit {
    let listed = |jail: &JailStatus| (jail.banned.len() + jail.observed.len()) as u64;
    let whole = |jail: &JailStatus| {
        jail.currently_banned
            .saturating_add(jail.currently_observed)
            <= listed(jail)
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if status.jails.iter().all(whole) {
        object(&mut out, &status)
    } else {
        pages(&mut out, status, global)
    };
    let written = written.and_then(|()| Ok(writeln!(out).and_then(|()| out.flush())?));
    match written {
        Ok(()) => Exit::Yes,
        Err(Stop::Exit(exit)) => exit,
        // The reader closed the pipe.
        Err(Stop::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Yes,
        Err(Stop::Io(error)) => {
            eprintln!("pipeban: cannot write to standard output: {error}");
            Exit::Failed
        }
    }
}

/// Why an output ends early.
enum Stop {
    Io(io::Error),
    Exit(Exit),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Io(error)
    }
}

fn object(out: &mut impl Write, value: &impl Serialize) -> Result<(), Stop> {
    serde_json::to_writer(out, value).map_err(|error| Stop::Io(error.into()))
}

/// The same object as [`object`] makes, with every ban.
fn pages(out: &mut impl Write, status: Status, global: &Global) -> Result<(), Stop> {
    write!(out, "{{\"engine\":")?;
    object(out, &status.engine)?;
    write!(out, ",\"workers\":")?;
    object(out, &status.workers)?;
    write!(out, ",\"jails\":[")?;
    let mut comma = "";
    for mut shown in status.jails {
        shown.banned.clear();
        shown.observed.clear();
        let mut value = serde_json::to_value(&shown).map_err(|error| Stop::Io(error.into()))?;
        if let Some(members) = value.as_object_mut() {
            members.remove("banned");
            members.remove("observed");
        }
        let text = value.to_string();
        write!(out, "{comma}{}", text.trim_end_matches('}'))?;
        comma = ",";
        for (name, observed, count) in [
            ("banned", false, shown.currently_banned),
            ("observed", true, shown.currently_observed),
        ] {
            write!(out, ",\"{name}\":[")?;
            let mut comma = "";
            if count > 0 {
                each_page(Some(&shown.name), Some(observed), global, |bans| {
                    for listed in bans {
                        write!(out, "{comma}")?;
                        object(out, &listed.ban)?;
                        comma = ",";
                    }
                    Ok(())
                })?;
            }
            write!(out, "]")?;
        }
        write!(out, "}}")?;
    }
    write!(out, "],\"failing\":")?;
    object(out, &status.failing)?;
    write!(out, ",\"warnings\":")?;
    object(out, &status.warnings)?;
    Ok(write!(out, "}}")?)
}

/// Prints every client, by its address.
///
/// # Errors
/// The exit status; what is wrong is printed.
pub(super) fn text(jail: Option<&JailName>, view: &View, global: &Global) -> Result<(), Exit> {
    let mut out = BufWriter::new(io::stdout().lock());
    for (title, observed) in [
        ("banned now:", false),
        ("would be banned (enforce = false):", true),
    ] {
        let (mut widths, mut begun) = (Widths::default(), false);
        let printed = each_page(jail, Some(observed), global, |bans| {
            let clients = clients(bans);
            widths.fit(view, &clients);
            if !begun && !bans.is_empty() {
                writeln!(out, "{title}\n{}", view.heading(&widths))?;
                begun = true;
            }
            for client in &clients {
                writeln!(out, "{}", view.client(client, &widths))?;
            }
            Ok(out.flush()?)
        });
        match printed {
            Ok(()) if !begun && !observed => {
                // A closed pipe is no error.
                let _ = writeln!(out, "{title} 0");
            }
            Ok(()) => {}
            Err(Stop::Exit(exit)) => return Err(exit),
            Err(Stop::Io(_)) => return Err(Exit::Yes),
        }
    }
    Ok(())
}

/// All bans of a network are on one page, one after the other.
fn clients(bans: &[ListedBan]) -> Vec<Client<'_>> {
    let mut clients: Vec<Client<'_>> = Vec::new();
    for ListedBan { jail, ban, .. } in bans {
        let ban: (&JailName, &BanStatus) = (jail, ban);
        match clients.last_mut() {
            Some((host, bans)) if *host == ban.1.host => bans.push(ban),
            _ => clients.push((&ban.1.host, vec![ban])),
        }
    }
    clients
}

fn each_page(
    jail: Option<&JailName>,
    observed: Option<bool>,
    global: &Global,
    mut print: impl FnMut(&[ListedBan]) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut after: Option<IpNet> = None;
    loop {
        let command = Command::StatusPage {
            jail: jail.cloned(),
            observed,
            after,
        };
        let (bans, next) = match ask::ask(global, &command) {
            Ok(Reply::StatusPage { bans, next }) => (bans, next),
            Ok(reply) => return Err(Stop::Exit(ask::show(global, &reply))),
            Err(error) => return Err(Stop::Exit(ask::fail(global, &error))),
        };
        print(&bans)?;
        if next.is_none() {
            return Ok(());
        }
        after = next;
    }
}
