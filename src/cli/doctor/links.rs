//! Every link: its name and its probe, in the order of a line's way from Apache to the firewall.

use super::host::Host;
use super::outcome::Outcome;
use super::{apache, engine, firewall, proof, system};

/// A probe may find several things; it finds at least one.
pub(super) struct Link {
    pub(super) name: &'static str,
    pub(super) probe: fn(&Host) -> Vec<Outcome>,
}

const fn link(name: &'static str, probe: fn(&Host) -> Vec<Outcome>) -> Link {
    Link { name, probe }
}

pub(super) const LINKS: &[Link] = &[
    link("configuration", system::configuration),
    link("owners", system::owners),
    link("apache", apache::running),
    link("sites", apache::sites),
    link("arguments", apache::arguments),
    link("formats", apache::formats),
    link("host-names", apache::host_names),
    link("buffered-logs", apache::buffered),
    link("shell", apache::shell),
    link("remoteip", apache::remoteip),
    link("engine", engine::running),
    link("unit", engine::unit),
    link("off", engine::off),
    link("socket", engine::socket),
    link("alarms", engine::alarms),
    link("workers", engine::workers),
    link("lines", engine::lines),
    link("sandbox", engine::sandbox),
    link("versions", engine::versions),
    link("database", engine::database),
    link("disk", system::disk),
    link("table", firewall::table),
    link("ufw", firewall::ufw),
    link("ufw-ipv6", firewall::ipv6),
    link("rule-order", firewall::rule_order),
    link("cutting", firewall::cutting),
    link("syslog", system::syslog),
    link("clock", system::clock),
    link("fail2ban", system::fail2ban),
    link("proof", proof::proof),
];
