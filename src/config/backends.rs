//! The keys of `[firewall]`.

use super::argv::{COMMAND_PLACEHOLDERS, argv, patience};
use super::document::{Located, Value};
use super::schema::{Faults, Key, apply, boolean, items, key, number, set, text};
use super::words::nearest;
use super::{Backend, BanCommand, Blocktype, Firewall};

pub(super) const FIREWALL: &[Key<Firewall>] = &[
    key("backend", |t, v, f| set(&mut t.backend, backends(v, f))),
    key("instant", |t, v, f| set(&mut t.instant, boolean(v, f))),
    key("max_rules", |t, v, f| {
        set(
            &mut t.max_rules,
            number(v, 0, 10_000, f).map(|n| n as usize),
        );
    }),
    key("mirror", |t, v, f| set(&mut t.mirror, boolean(v, f))),
    key("blocktype", |t, v, f| match text(v, f) {
        Some("drop") => t.blocktype = Blocktype::Drop,
        Some("reject") => t.blocktype = Blocktype::Reject,
        Some(_) => f.expected("\"drop\" or \"reject\"", v),
        None => {}
    }),
    key("command", command),
];

const COMMAND: &[Key<BanCommand>] = &[
    key("ban", |t, v, f| {
        set(&mut t.ban, argv(v, &COMMAND_PLACEHOLDERS, f))
    }),
    key("unban", |t, v, f| {
        set(&mut t.unban, argv(v, &COMMAND_PLACEHOLDERS, f))
    }),
    key("check", |t, v, f| {
        set(&mut t.check, argv(v, &COMMAND_PLACEHOLDERS, f).map(Some));
    }),
    key("timeout", |t, v, f| set(&mut t.timeout, patience(v, f))),
];

const BACKENDS: [(&str, Backend); 6] = [
    ("ufw", Backend::Ufw),
    ("nftables", Backend::Nftables),
    ("ipset", Backend::Ipset),
    ("apache", Backend::Apache),
    ("command", Backend::Command),
    ("dry-run", Backend::DryRun),
];

fn backends(value: &Located, faults: &mut Faults<'_>) -> Option<Vec<Backend>> {
    let mut found = Vec::new();
    for item in items(value) {
        let name = text(&item, faults)?;
        let Some((_, backend)) = BACKENDS.iter().find(|(known, _)| *known == name) else {
            let near = nearest(name, BACKENDS.iter().map(|(known, _)| *known))
                .map_or(String::new(), |near| format!(" (did you mean `{near}`?)"));
            let names: Vec<String> = BACKENDS
                .iter()
                .map(|(known, _)| format!("\"{known}\""))
                .collect();
            let what = format!("one or more of {}{near}", names.join(", "));
            faults.expected(&what, &item);
            return None;
        };
        if !found.contains(backend) {
            found.push(*backend);
        }
    }
    if found.is_empty() {
        faults.expected("a back end like \"ufw\", or a list of them", value);
        return None;
    }
    if found.len() > 1 && found.contains(&Backend::DryRun) {
        faults.at(
            value.place,
            "with \"dry-run\" nothing is enforced: it stands alone",
        );
        return None;
    }
    Some(found)
}

fn command(target: &mut Firewall, value: &Located, faults: &mut Faults<'_>) {
    let Value::Table(table) = &value.value else {
        faults.expected(
            "a section: write `[firewall.command]` with `ban` and `unban`",
            value,
        );
        return;
    };
    let mut command = target.command.take().unwrap_or_default();
    apply("firewall.command", COMMAND, table, &mut command, faults);
    target.command = Some(command);
}

/// What the back ends still lack when every file has been read.
pub(super) fn lacking(firewall: &Firewall) -> Option<&'static str> {
    if !firewall.backend.contains(&Backend::Command) {
        return None;
    }
    let complete = |command: &BanCommand| !command.ban.is_empty() && !command.unban.is_empty();
    (!firewall.command.as_ref().is_some_and(complete)).then_some(
        "the back end `command` needs to know what to run: write `[firewall.command]` with \
         `ban = [\"/PROGRAM\", \"{host}\"]` and `unban = [...]`",
    )
}
