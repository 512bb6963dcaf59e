//! The client in the message of a module about a connection that has no request yet. Apache writes
//! no `[client ...]` for it.

use std::borrow::Cow;

use super::address;
use super::fields::{Client, Record};

/// Bytes of such a message at most: a longer one may be cut before the address.
const LONGEST: usize = 1024;

/// Where a module writes the client's address. No client may write any part of such a message
/// before the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleClient {
    /// The module's name as in the log, without `mod_`.
    pub module: Cow<'static, str>,
    /// What the message begins with.
    pub begins: Cow<'static, str>,
    /// What is directly before the address; it must be in the message exactly once.
    pub before: Cow<'static, str>,
}

/// Those that pipeban knows: module, `begins`, `before`.
const KNOWN: [ModuleClient; 4] = [
    known("qos", "mod_qos(", ", c="),
    known("evasive20", "Blacklisting address ", "address "),
    known("evasive", "Blacklisting address ", "address "),
    known("antiloris", "Rejected, too many connections in ", " from "),
];

const fn known(module: &'static str, begins: &'static str, before: &'static str) -> ModuleClient {
    ModuleClient {
        module: Cow::Borrowed(module),
        begins: Cow::Borrowed(begins),
        before: Cow::Borrowed(before),
    }
}

/// Modules of Apache's and others that write `[client ...]` themselves, or log the text of scripts,
/// of other servers or of clients.
const REFUSED: [&str; 35] = [
    "actions",
    "alias",
    "asis",
    "autoindex",
    "cache",
    "cache_disk",
    "cgi",
    "cgid",
    "core",
    "deflate",
    "dir",
    "dumpio",
    "env",
    "ext_filter",
    "fastcgi",
    "fcgid",
    "filter",
    "http",
    "http2",
    "include",
    "info",
    "jk",
    "md",
    "mime",
    "negotiation",
    "passenger",
    "reqtimeout",
    "rewrite",
    "speling",
    "ssl",
    "status",
    "substitute",
    "userdir",
    "vhost_alias",
    "wsgi",
];
const REFUSED_FAMILIES: [&str; 14] = [
    "access", "auth", "dav", "log_", "lua", "mpm_", "perl", "php", "proxy", "python", "request",
    "security", "session", "slotmem",
];

/// Why this module can name no client in its message; `None`: it can.
pub fn refused_module(module: &str) -> Option<String> {
    let named = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if module.is_empty() || !module.chars().all(named) {
        let example = "[mymod:error]";
        return Some(format!(
            "`module` is a name as in the log: `mymod` of `{example}`"
        ));
    }
    if let Some(name) = module.strip_prefix("mod_") {
        return Some(format!("the log has the name without `mod_`: `{name}`"));
    }
    let is_family = |family: &&str| module.starts_with(*family);
    let refused = REFUSED.contains(&module) || REFUSED_FAMILIES.iter().any(is_family);
    refused.then(|| {
        format!(
            "the messages of `{module}` can hold text of clients or scripts: for a client it writes \
             `[client ...]`, which pipeban reads"
        )
    })
}

impl ModuleClient {
    /// The address in a message, if `before` is there exactly once.
    fn find<'a>(&self, message: &'a [u8]) -> Option<Client<'a>> {
        if message.len() > LONGEST {
            return None;
        }
        let before = self.before.as_bytes();
        let mut places = memchr::memmem::find_iter(message, before);
        let at = places.next()? + before.len();
        // Also places that overlap the first one.
        if memchr::memmem::rfind(message, before)? + before.len() != at {
            return None;
        }
        address_at(message.get(at..)?)
    }
}

/// The address at the front, with nothing behind it that could be part of a name.
fn address_at(text: &[u8]) -> Option<Client<'_>> {
    let is_part = |b: &u8| b.is_ascii_hexdigit() || b".:".contains(b);
    let length = text.iter().take_while(|b| is_part(b)).count();
    let next = text.get(length);
    if next.is_some_and(|b| b.is_ascii_alphanumeric() || b"-_%/".contains(b)) {
        return None;
    }
    let found = text.get(..length)?;
    // The stop or the colon of a sentence.
    let shorter = found.split_last().filter(|(last, _)| b".:".contains(last));
    address::client(found).or_else(|| address::client(shorter?.1))
}

/// Sets the client of an error line that has none in its prefix, if a module names it: one that
/// pipeban knows, or one of `more`. Where these differ, none does.
pub(super) fn add(record: &mut Record<'_>, more: &[ModuleClient]) {
    let (None, Some(module), Some(message)) = (record.client, record.module, record.message) else {
        return;
    };
    let mut found: Option<Client<'_>> = None;
    for known in KNOWN.iter().chain(more) {
        if known.module.as_bytes() != module {
            continue;
        }
        if !message.starts_with(known.begins.as_bytes()) {
            continue;
        }
        match (known.find(message), found) {
            (Some(client), Some(other)) if client.addr != other.addr => return,
            (Some(client), _) => found = Some(client),
            (None, _) => {}
        }
    }
    record.client = found;
}

#[cfg(test)]
mod tests {
    use crate::record::{Kind, Parser};

    use super::*;

    const FORMAT: &str = r"[%{u}t] [%-m:%l] [pid %P:tid %T] %7F: %E: [client\ %a] %M";

    fn mine() -> Vec<ModuleClient> {
        let mine = |begins, before| known("mymod", begins, before);
        vec![
            mine("My module: ", " from "),
            mine("Turned away ", "Turned away "),
            mine("My module: two ", " for "),
        ]
    }

    /// The same by the default format and by one of an administrator.
    fn client_of(module: &str, text: &str) -> Option<String> {
        let line =
            format!("[Sun Nov 22 11:00:33.366318 2026] [{module}:error] [pid 1:tid 2] {text}");
        let found = ["auto", FORMAT].map(|format| {
            let parser = Parser::new(Kind::Error, format).unwrap();
            let parser = parser.with_module_clients(mine());
            let record = parser.parse(line.as_bytes()).expect(&line);
            record.client.map(|client| client.addr.to_string())
        });
        assert_eq!(found[0], found[1], "{line}");
        found[0].clone()
    }

    #[test]
    fn a_module_that_knows_only_the_connection_names_its_client() {
        let qos = "mod_qos(031): access denied, QS_SrvMaxConnPerIP rule: max=2, concurrent connections=3, c=203.0.113.31";
        assert_eq!(client_of("qos", qos).as_deref(), Some("203.0.113.31"));
        let six = qos.replace("203.0.113.31", "2001:db8::7");
        assert_eq!(client_of("qos", &six).as_deref(), Some("2001:db8::7"));
        let more = format!("{qos}, id=x");
        assert!(client_of("qos", &more).is_some());
        for address in ["192.0.2.1", "2001:db8::7"] {
            let evasive = format!("Blacklisting address {address}: possible DoS attack.");
            assert_eq!(client_of("evasive20", &evasive).as_deref(), Some(address));
            assert_eq!(client_of("core", &evasive), None);
        }
        // Another module, a place that is not certain, and Apache's own field before it.
        assert_eq!(client_of("core", qos), None);
        assert_eq!(client_of("qos", &format!("x {qos}")), None);
        assert_eq!(client_of("qos", &format!("{qos}, c=192.0.2.1")), None);
        let named = format!("[client 192.0.2.1:5] {qos}");
        assert_eq!(client_of("qos", &named).as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn a_filter_can_name_the_place_for_another_module() {
        let long = format!("My module: {} from 192.0.2.1", "x".repeat(LONGEST));
        for (text, client) in [
            ("My module: flood from 192.0.2.1", Some("192.0.2.1")),
            ("My module: flood from 192.0.2.1.", Some("192.0.2.1")),
            ("My module: flood from 192.0.2.1: stop", Some("192.0.2.1")),
            (
                "My module: flood from 2001:db8::7, stop",
                Some("2001:db8::7"),
            ),
            ("My module: flood from 2001:db8::: stop", Some("2001:db8::")),
            ("My module: flood from ::ffff:192.0.2.1", Some("192.0.2.1")),
            (
                "(104)Connection reset by peer: My module: x from 192.0.2.1",
                Some("192.0.2.1"),
            ),
            ("Turned away 192.0.2.1", Some("192.0.2.1")),
            // Both tables apply; where they name two clients, neither is believed.
            ("My module: two from 192.0.2.1", Some("192.0.2.1")),
            ("My module: two for 192.0.2.1", Some("192.0.2.1")),
            ("My module: two from 192.0.2.1 for 192.0.2.2", None),
            (
                "[client 192.0.2.9:5] My module: flood from 192.0.2.1",
                Some("192.0.2.9"),
            ),
            ("[remote 192.0.2.9:5] My module: flood from 192.0.2.1", None),
            ("My module: a from 192.0.2.2 from 192.0.2.1", None),
            ("My module: a from  from 192.0.2.1", None),
            ("My module: a from 192.0.2.1.example.org", None),
            ("My module: a from 192.0.2.1-2", None),
            ("My module: a from 192.0.2.0/24", None),
            ("My module: a from 192.0.2.1:443", None),
            ("My module: a from ", None),
            ("My module from 192.0.2.1", None),
            ("x My module: flood from 192.0.2.1", None),
            (&long, None),
        ] {
            assert_eq!(client_of("mymod", text).as_deref(), client, "{text}");
        }
        assert_eq!(client_of("other", "My module: flood from 192.0.2.1"), None);
    }

    #[test]
    fn a_format_that_a_script_could_imitate_names_no_client() {
        let parser = Parser::new(Kind::Error, "[%t] [%m:%l] %M").unwrap();
        let line = b"[Sun Nov 22 11:00:33 2026] [mymod:error] My module: x from 192.0.2.1";
        let parser = parser.with_module_clients(mine());
        assert_eq!(parser.parse(line).unwrap().client, None);
    }

    #[test]
    fn a_module_that_logs_the_text_of_clients_is_refused() {
        for module in [
            "",
            "my mod",
            "mod_mymod",
            "core",
            "cgi",
            "cgid",
            "proxy",
            "proxy_fcgi",
            "php",
            "php7",
            "authz_core",
            "wsgi",
            "perl",
            "security2",
            "ssl",
            "rewrite",
        ] {
            assert!(refused_module(module).is_some(), "{module}");
        }
        for module in [
            "mymod",
            "qos",
            "evasive20",
            "antiloris",
            "limitipconn",
            "bw",
        ] {
            assert_eq!(refused_module(module), None, "{module}");
        }
    }
}
