//! Apache's lines as patterns, without their time: every line, and those of one client who puts
//! text of his own where Apache writes a client's, as Apache escapes it (`ap_escape_logitem`,
//! `ap_escape_errorlog_item` in httpd's server/util.c: quotes are escaped in the access log alone).

use regex_syntax::hir::Hir;

use super::automaton::Automaton;
use super::language::Address;
use crate::filter::regexes::coarse_syntax;
use crate::record::Kind;

/// Who writes the lines of [`attack`].
pub(super) const ATTACKER: &str = "203.0.113.66";

/// Whether the time stands in a line as patterns see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    /// Cut out, its brackets left: what fail2ban does, and pipeban.
    Cut,
    /// As Apache wrote it.
    Kept,
}

/// Every line of a log in one of the forms that are read without a LogFormat string, of this
/// client: perhaps some more, but none less.
pub(super) fn lines(kind: Kind, client: Address, time: Time) -> Option<Automaton> {
    let client = regex_syntax::escape(client.text);
    let access = r"\d{2}/[A-Z][a-z]{2}/\d{4}:\d{2}:\d{2}:\d{2} [+-]\d{4}";
    let error = r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2}(?:\.\d+)? \d{4}";
    let time = match (time, kind) {
        (Time::Cut, _) => "",
        (Time::Kept, Kind::Access) => access,
        (Time::Kept, Kind::Error) => error,
    };
    let text = match kind {
        Kind::Access => format!(
            r#"(?:[^ ]+:\d+ )?{client}(?: [0-9a-fA-F.:]+)? - (?:[^"\\]|\\.)+ \[{time}\] "(?:[^"\\]|\\.)*" (?:\d{{3}}|-)(?: .*)?"#
        ),
        Kind::Error => format!(
            r"\[{time}\] \[(?:[\w.-]*:)?{LEVEL}\] (?:\[pid \d+(?::tid \d+)?\] )?(?:\(-?\d+\)[^:\[\]]*: |[\w./-]+\(\d+\): ){{0,2}}\[client {client}(?::\d+)?\] .*"
        ),
    };
    whole(&format!("(?s:{text})"))
}

/// Lines that [`ATTACKER`] can bring about: his text is bounded only by what Apache lets through
/// and escapes.
pub(super) fn attack(kind: Kind) -> Option<Automaton> {
    match kind {
        Kind::Access => whole(&access_attack()),
        Kind::Error => whole(&error_attack(&MESSAGES)),
    }
}

/// The same of the error log, with whatever message a pattern may want some module to write, as
/// long as that names no address.
pub(super) fn any_module_attack() -> Option<Automaton> {
    let message = r"(?:AH\d{5}: )?[A-Za-z '(),./:;=_`-]*";
    whole(&error_attack(&[("[A-Za-z_]+:error", "", message)]))
}

/// Messages that repeat what a client sent: the module and its level, what stands before the
/// client, the message.
const MESSAGES: [(&str, &str, &str); 14] = [
    ("core:error", "", r"AH10244: invalid URI path \(/{url}\)"),
    (
        "core:error",
        "",
        "AH00135: Invalid method in request {request}",
    ),
    (
        "core:error",
        "",
        "AH00126: Invalid URI in request {request}",
    ),
    (
        "core:error",
        r"\(36\)File name too long: ",
        r"AH00127: Cannot map GET /{url} HTTP/1\.1 to file",
    ),
    (
        "core:info",
        "",
        "AH00128: File does not exist: /var/www/html/{path}",
    ),
    (
        "authz_core:error",
        "",
        "AH01630: client denied by server configuration: /var/www/html/{path}",
    ),
    (
        "auth_basic:error",
        "",
        "AH01618: user {user} not found: /{path}",
    ),
    (
        "auth_basic:error",
        "",
        "AH01617: user {user}: authentication failure for \"/{path}\": Password Mismatch",
    ),
    (
        "auth_digest:error",
        "",
        "AH01790: user `{digest}' in realm `private' not found: /{path}",
    ),
    (
        "cgid:error",
        "",
        "AH01264: script not found or unable to stat: /usr/lib/cgi-bin/{path}",
    ),
    (
        "cgid:error",
        "",
        "AH01215: stderr from /usr/lib/cgi-bin/x: failed",
    ),
    (
        "php:error",
        "",
        "script '/var/www/html/{path}' not found or unable to stat",
    ),
    (
        "proxy_fcgi:error",
        "",
        "AH01071: Got error 'Primary script unknown'",
    ),
    (
        "security2:error",
        "",
        r#"ModSecurity: Access denied with code 403 \(phase 2\)\. Operator GE matched 5 at TX:score\. \[uri "/{url}"\]"#,
    ),
];

const LEVEL: &str = "(?:emerg|alert|crit|error|warn|notice|info|debug|trace[1-8])";

/// A path without a query; what is not of these is refused with 400.
const URL: &str = r"(?:[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=-]|%[0-9A-F]{2})*";

/// A text that neither begins nor ends with a space.
fn trimmed(unit: &str) -> String {
    format!("(?:{unit}(?:(?:{unit}| )*{unit})?)")
}

fn access_attack() -> String {
    let header = trimmed(r#"(?:[!#-\[\]-~]|\\["\\]|\\x[89a-f][0-9a-f])"#);
    // Not a colon: there Basic's password begins.
    let user = r#"(?:[ !#-9;-\[\]-~]|\\["\\nrt]|\\x[0-9a-f]{2})+"#;
    let request = r#"(?:[ !#-\[\]-~]|\\["\\t]|\\x[189a-f][0-9a-f])+"#;
    let attacker = regex_syntax::escape(ATTACKER);
    format!(
        r#"(?:shop\.example\.org:443 )?{attacker} - (?:-|{user}) \[\] (?:"(?:GET|POST|HEAD|PUT|DELETE|OPTIONS|PROPFIND) /{URL} HTTP/1\.[01]" (?:20[046]|30[1-8]|40[013458]|41[0-7]|42[0-9]|50[0-5])|"{request}" 400) (?:512|\d{{4,6}})(?: "(?:-|{header})" "(?:-|{header})")?"#
    )
}

fn error_attack(messages: &[(&str, &str, &str)]) -> String {
    let header = trimmed(r"(?:[!-\[\]-~]|\\\\|\\x[89a-f][0-9a-f])");
    let attacker = regex_syntax::escape(ATTACKER);
    let lines: Vec<String> = messages
        .iter()
        .map(|(module, note, message)| {
            let message = message
                .replace("{url}", URL)
                // Decoded; what `//` and `/..` become depends on more.
                .replace("{path}", r"(?:[ -.0-\[\]-~]|\\\\|/[!--0-\[\]-~])*")
                .replace("{user}", r"(?:[ -9;-\[\]-~]|\\\\)+")
                .replace("{digest}", r"(?:[ -\[\]-~]|\\\\)+")
                .replace("{request}", r"(?:[!-\[\]-~]|\\\\)(?:[ -\[\]-~]|\\\\)*");
            format!(r"\[{module}\] \[pid 9:tid 9\] {note}\[client {attacker}:49148\] {message}")
        })
        .collect();
    format!(r"\[\] (?:{})(?:, referer: {header})?", lines.join("|"))
}

/// From end to end.
fn whole(pattern: &str) -> Option<Automaton> {
    let syntax: Hir = coarse_syntax(&format!("^(?:{pattern})$"))?;
    Automaton::new(&syntax)
}

/// Every text.
pub(super) fn anything() -> Option<Automaton> {
    whole("(?s-u:.)*")
}
