//! Apache: which lines reach pipeban, and in which form.

use super::host::Host;
use super::outcome::{Outcome, Verdict, broken, ok, warning};
use super::processes;
use crate::apache::{ClientNaming, Code, Remedy, Scan};
use crate::config::Backend;

const NONE: &str = "this host has no Apache configuration";

/// What the scan found of these kinds, else that all is well.
fn findings(host: &Host, codes: &[Code], verdict: Verdict, fine: &str) -> Vec<Outcome> {
    let Some(scan) = &host.scan else {
        return vec![ok(NONE)];
    };
    let found = scan.findings.iter();
    let found = found.filter(|finding| codes.contains(&finding.code()));
    let outcomes = found.map(|finding| Outcome {
        verdict,
        text: finding.to_string(),
        fix: match finding.remedy() {
            Remedy::Setup => host.setup_changes.then(|| host.setup()),
            comment_out => Some(format!(
                "{} && {}",
                comment_out.command(),
                host.reload_apache()
            )),
        },
    });
    or_fine(outcomes.collect(), fine)
}

fn or_fine(outcomes: Vec<Outcome>, fine: &str) -> Vec<Outcome> {
    match outcomes.is_empty() {
        true => vec![ok(fine)],
        false => outcomes,
    }
}

pub(super) fn running(host: &Host) -> Vec<Outcome> {
    let running: Vec<_> = processes::apaches(&host.processes).collect();
    let pids: Vec<String> = running
        .iter()
        .map(|apache| apache.pid.to_string())
        .collect();
    let Some(scan) = &host.scan else {
        return vec![broken(NONE, Some("apt-get install apache2".to_owned()))];
    };
    let root = scan.root.display();
    match pids.is_empty() {
        true => vec![broken(
            format!("Apache is not running ({root})"),
            Some(host.start_apache()),
        )],
        false => vec![ok(format!("runs as process {} ({root})", pids.join(", ")))],
    }
}

pub(super) fn sites(host: &Host) -> Vec<Outcome> {
    let sites = host
        .scan
        .as_ref()
        .map_or(0, |scan| scan.layout.servers.len());
    let fine = format!(
        "every log of the main server and of {} virtual hosts reaches pipeban",
        sites.saturating_sub(1)
    );
    let mut outcomes = findings(
        host,
        &[Code::ErrorBypass, Code::AccessBypass],
        Verdict::Broken,
        &fine,
    );
    let twice = [Code::TwoPipes, Code::SameFile];
    let twice = findings(host, &twice, Verdict::Warning, "");
    outcomes.extend(
        twice
            .into_iter()
            .filter(|twice| twice.verdict != Verdict::Ok),
    );
    // What pipeban cannot follow can hide a log.
    let notes = host.scan.iter().flat_map(|scan| &scan.layout.notes);
    outcomes.extend(notes.map(|note| warning(note, None)));
    if outcomes.len() > 1 {
        outcomes.retain(|outcome| outcome.verdict != Verdict::Ok);
    }
    outcomes
}

pub(super) fn arguments(host: &Host) -> Vec<Outcome> {
    let codes = [Code::Arguments, Code::WrongKind, Code::MissingProgram];
    findings(
        host,
        &codes,
        Verdict::Broken,
        "the arguments of each `pipeban log` are right",
    )
}

pub(super) fn formats(host: &Host) -> Vec<Outcome> {
    findings(
        host,
        &[Code::Format],
        Verdict::Broken,
        "pipeban can read the format of each log",
    )
}

pub(super) fn host_names(host: &Host) -> Vec<Outcome> {
    findings(
        host,
        &[Code::Names],
        Verdict::Broken,
        "Apache logs addresses, not host names",
    )
}

pub(super) fn buffered(host: &Host) -> Vec<Outcome> {
    findings(
        host,
        &[Code::Buffered],
        Verdict::Warning,
        "Apache writes each line at once",
    )
}

pub(super) fn shell(host: &Host) -> Vec<Outcome> {
    findings(
        host,
        &[Code::Shell],
        Verdict::Warning,
        "no shell is between Apache and its loggers",
    )
}

/// Who may name the client, and whether a ban can reach it.
pub(super) fn remoteip(host: &Host) -> Vec<Outcome> {
    let naming = host.scan.as_ref().map(Scan::client_naming);
    let codes = [Code::AnyClient, Code::ProxyProtocol];
    vec![match naming {
        None => ok(NONE),
        Some(ClientNaming::AnyClient(_) | ClientNaming::AnyClientOf(..)) => {
            return findings(host, &codes, Verdict::Broken, "");
        }
        Some(ClientNaming::ProxyProtocol(_)) => {
            return findings(host, &codes, Verdict::Warning, "");
        }
        Some(ClientNaming::Connection) => match host.config.trusted_proxies.first() {
            None => ok("no proxy is configured: the client is the peer of the connection"),
            Some(proxy) => broken(
                format!(
                    "[proxies] trusted lists {proxy}, but Apache has no RemoteIPHeader: it logs the \
                     proxy as the client, and a trusted proxy is never banned"
                ),
                Some(enable_remoteip(host)),
            ),
        },
        Some(ClientNaming::ListedProxies(_)) if host.config.firewall.has(Backend::Apache) => {
            ok("the listed proxies name the client, and Apache refuses banned clients")
        }
        Some(ClientNaming::ListedProxies(_)) => warning(
            "the firewall cannot stop clients behind a proxy; the back end `apache` can",
            Some(host.set_in_conf_d(
                "doctor-backend.toml",
                &format!(
                    "[firewall]\\nbackend = [\"{}\", \"apache\"]\\n",
                    backends(host)
                ),
                &format!("{}; {}", host.restart_engine(), host.setup()),
            )),
        ),
    }]
}

fn backends(host: &Host) -> String {
    let all = host.config.firewall.backend.iter().map(Backend::to_string);
    all.collect::<Vec<_>>().join("\", \"")
}

/// The header and the proxies, in a file of their own.
fn enable_remoteip(host: &Host) -> String {
    let proxies = host.config.trusted_proxies.iter();
    let proxies: Vec<String> = proxies.map(ToString::to_string).collect();
    format!(
        "printf 'RemoteIPHeader X-Forwarded-For\\nRemoteIPInternalProxy {}\\n' \
         >/etc/apache2/conf-available/remoteip.conf && a2enmod -q remoteip && a2enconf -q remoteip && {}",
        proxies.join(" "),
        host.reload_apache()
    )
}
