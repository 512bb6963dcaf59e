//! The report as JSON: one object per client, then the summary.

use std::io::{self, Write};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::clients::Client;
use super::detail::Details;
use super::summary::Summary;
use crate::jail::show_net;
use crate::record::display_json;

/// Writes one object per client, then one with `"type": "summary"`.
///
/// # Errors
/// Of `out`, or details cannot be read.
pub fn write(summary: &Summary, details: &dyn Details, out: &mut dyn Write) -> io::Result<()> {
    for client in &summary.clients {
        let evidence = details.evidence(client.shown_ban)?.into_iter();
        let evidence = evidence.map(|(time, line)| json!({"time": time, "line": line}));
        let object = json!({
            "type": "client",
            "host": show_net(&client.net),
            "bans": client.bans,
            "first": client.first(),
            "last": client.last(),
            "in_force": in_force(client),
            "until": client.until().flatten(),
            "jails": summary.jails_of(client),
            "classes": summary.classes_of(client),
            "evidence": evidence.collect::<Vec<Value>>(),
        });
        line(out, &object)?;
    }
    let days = summary.days().into_iter();
    let object = json!({
        "type": "summary",
        "since": bound(summary.query.since),
        "until": bound(summary.query.until),
        "bans": summary.bans,
        "clients": summary.clients.len(),
        "repeat_clients": summary.repeat,
        "in_force": summary.in_force,
        "clients_in_force": summary.clients_in_force(),
        "behind_proxy": summary.behind,
        "observed": summary.query.observed,
        "bans_of_other_jails": summary.of_other_jails,
        "jails": pairs("jail", &summary.jails()),
        "classes": pairs("class", &summary.classes()),
        "hours": summary.hours,
        "days": days.map(|(day, bans)| json!({"day": day, "bans": bans})).collect::<Vec<_>>(),
        "networks": summary.networks.iter().map(|network| json!({
            "network": show_net(&network.net), "clients": network.clients, "bans": network.bans,
        })).collect::<Vec<_>>(),
        "notes": summary.notes,
    });
    line(out, &object)?;
    out.flush()
}

fn line(out: &mut dyn Write, object: &Value) -> io::Result<()> {
    writeln!(out, "{}", display_json(&object.to_string()))
}

/// `None`: a ban is active, and the firewall cannot enforce it.
fn in_force(client: &Client) -> Option<bool> {
    (client.in_force || !client.behind).then_some(client.in_force)
}

/// `None`: the period has no such bound.
fn bound(time: Timestamp) -> Option<Timestamp> {
    (time != Timestamp::MIN && time != Timestamp::MAX).then_some(time)
}

fn pairs(name: &str, counted: &[(&str, u64)]) -> Vec<Value> {
    let pair = |(word, bans): &(&str, u64)| json!({name: word, "bans": bans});
    counted.iter().map(pair).collect()
}
