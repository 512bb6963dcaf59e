//! Why a client is banned, in words.

use super::text::{length, wrap};
use crate::config::JailName;
use crate::control::BanStatus;

/// Why this client is banned. Unless `whole`, without the rule's file, a name that is the jail's, and
/// the protocol.
pub(in crate::cli) fn cause(jail: &JailName, ban: &BanStatus, whole: bool) -> Option<Cause> {
    let rule = ban.rule.as_deref();
    let rule = rule.map(|rule| match rule.split_once(" (") {
        Some((name, _)) if !whole => name,
        _ => rule,
    });
    let rule = rule.filter(|rule| *rule != jail.as_str());
    let reason = ban.reason.as_deref();
    let says_so = reason.is_some_and(|reason| reason.starts_with("by hand"));
    let by_hand = (ban.cause == "manual" && !says_so).then_some("by hand");
    let parts = [by_hand, reason, rule];
    let parts: Vec<&str> = parts.into_iter().flatten().collect();
    let request = ban.request.as_deref();
    let request = request.map(|request| match request.rsplit_once(" HTTP/") {
        Some((request, _)) if !whole => request.to_owned(),
        _ => request.to_owned(),
    });
    let why = parts.join(": ");
    (!why.is_empty() || request.is_some()).then_some(Cause { why, request })
}

/// Why a client is banned.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) struct Cause {
    why: String,
    request: Option<String>,
}

impl Cause {
    /// In one line.
    pub(in crate::cli) fn line(&self) -> String {
        match &self.request {
            Some(request) if self.why.is_empty() => request.clone(),
            Some(request) => format!("{}: {request}", self.why),
            None => self.why.clone(),
        }
    }

    /// In one line where it fits, else the request in lines of its own.
    pub(super) fn lines(&self, width: usize) -> String {
        let line = self.line();
        match &self.request {
            Some(request) if !self.why.is_empty() && length(&line).saturating_add(4) > width => {
                let why = wrap(&format!("{}:", self.why), "    ", 6, width);
                format!("{why}\n{}", wrap(request, "      ", 6, width))
            }
            _ => wrap(&line, "    ", 6, width),
        }
    }
}
