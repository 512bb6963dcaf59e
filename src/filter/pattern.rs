//! One pattern, and whether a text hits its client by it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use regex_syntax::hir::{Hir, HirKind};

use super::fail2ban::translate::{GROUP, Host, MARK, translate};
use super::literals;
use super::regexes::{Compiled, Limits, Spans};
use crate::record::Client;

/// Memory of one pattern's lazy DFA, for each thread.
const DFA_LIMIT: usize = 4 << 20;
/// The same for a pattern with one client's address.
const EXACT_DFA_LIMIT: usize = 256 << 10;
/// Most such patterns kept for each failregex: every new address of a client may add one.
const MOST_EXACT: usize = 16;
/// Most places of a line in which the client's text is tried one by one.
const MOST_MARKS: usize = 16;
/// Longer texts are matched without groups.
const LONGEST_FOR_GROUPS: usize = 2048;
/// Tags of patterns that need several lines.
const SEVERAL_LINES: [&str; 4] = ["<SKIPLINES>", "<F-MLFID>", "<F-MLFFORGET>", "<F-MLFGAINED>"];

pub(super) enum Decision {
    No,
    /// Matches, but only with an address that is not the client's.
    Another,
    Hit,
}

/// A match in a text without a record.
#[derive(Debug)]
pub(super) struct Found {
    /// The address in place of `<HOST>`.
    pub(super) host: Option<IpAddr>,
    /// `<F-CONTENT>`, unless it is empty.
    pub(super) content: Option<(usize, usize)>,
    /// `<F-NOFAIL>` matched: this is no failure.
    pub(super) nofail: bool,
}

#[derive(Debug)]
pub(super) struct Pattern {
    /// From 1.
    pub(super) number: u32,
    /// As written.
    pub(super) text: String,
    limits: Limits,
    /// With any address for `<HOST>`: matches every line that the others match.
    any: Compiled,
    /// Groups of `any` that hold an address; without a `<HOST>`, those of `<F-ID>`.
    groups: Vec<usize>,
    /// Whether `groups` are `<HOST>`.
    has_host: bool,
    content: Option<usize>,
    nofail: Option<usize>,
    /// Lower-case texts; every match holds at least one.
    pub(super) literals: Option<Vec<Vec<u8>>>,
    /// For lines without a record; compiled for the first one.
    longest: OnceLock<Option<Compiled>>,
    /// With a mark for `<HOST>`, for IPv6 and IPv4; compiled when needed. `None`: a mark does not
    /// decide.
    marked: Option<[OnceLock<Option<Compiled>>; 2]>,
    /// With one client's text for `<HOST>`, by that text.
    exact: Mutex<HashMap<Vec<u8>, Option<Arc<Compiled>>>>,
}

impl Pattern {
    pub(super) fn compile(number: u32, text: &str) -> Result<Pattern, String> {
        if let Some(tag) = SEVERAL_LINES.iter().find(|tag| text.contains(**tag)) {
            return Err(format!(
                "the pattern needs several lines (`{tag}`), and pipeban matches one line at a \
                 time: leave this filter to fail2ban"
            ));
        }
        let limits = Limits::default();
        let (translated, hosts) = translate(text, Host::Any);
        let any = Compiled::new(&translated, DFA_LIMIT, &limits)?;
        let named = |wanted: &str| any.groups(|name| name == wanted).first().copied();
        let groups = match hosts {
            0 => any.groups(|name| name == "fid"),
            _ => any.groups(|name| name.starts_with(GROUP)),
        };
        let hir = any.hir();
        // A look around would see the mark.
        let mark_decides =
            hosts == 1 && !any.backtracks() && hir.as_ref().is_some_and(one_host_without_looks);
        Ok(Pattern {
            number,
            literals: hir.and_then(|hir| literals::required(&hir)),
            marked: mark_decides.then(Default::default),
            text: text.to_owned(),
            limits,
            groups,
            has_host: hosts > 0,
            content: named("content"),
            nofail: named("nofail"),
            any,
            longest: OnceLock::new(),
            exact: Mutex::default(),
        })
    }

    /// Whether it has `<HOST>` or `<F-ID>`.
    pub(super) fn names_a_client(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Whether a text of this client hits it: `own` is the part of `all` that is surely the
    /// client's; `None`: the prefix does not match.
    pub(super) fn decide(
        &self,
        own: Option<&[u8]>,
        all: Option<&[u8]>,
        client: Client<'_>,
    ) -> Decision {
        let matches = own.is_some_and(|own| self.any.is_match(own));
        if matches && own.is_some_and(|own| self.hits(own, client)) {
            return Decision::Hit;
        }
        // Mostly `own` is all of it.
        let another = match all {
            Some(all) if own.is_some_and(|own| own.len() == all.len()) => matches,
            Some(all) => self.any.is_match(all),
            None => false,
        };
        if another {
            Decision::Another
        } else {
            Decision::No
        }
    }

    pub(super) fn matches_with_any(&self, text: &[u8]) -> bool {
        self.any.is_match(text)
    }

    /// Whether `<F-NOFAIL>` of a match says that this is no failure.
    pub(super) fn is_no_failure(&self, text: &[u8]) -> bool {
        self.nofail.is_some_and(|group| {
            // A match without groups hit a limit: no client is hit for that.
            let spans = self.any.spans(text);
            spans.is_none_or(|spans| filled(&spans, group).is_some())
        })
    }

    /// Whether an ignoreregex matches this client's text. A limit counts as a match: no client is
    /// hit for that.
    pub(super) fn ignores(&self, text: &[u8], client: Client<'_>) -> bool {
        self.any.gives_up(text) || matches!(self.decide(Some(text), None, client), Decision::Hit)
    }

    /// The same for a text without a record.
    pub(super) fn ignores_any(&self, text: &[u8]) -> bool {
        self.any.gives_up(text) || self.any.is_match(text)
    }

    /// How often a limit stopped it since the last [`Pattern::take_limits`].
    pub(super) fn limits(&self) -> u64 {
        self.limits.load(Ordering::Relaxed)
    }

    /// As [`Pattern::limits`], and sets the count to 0.
    pub(super) fn take_limits(&self) -> u64 {
        // Mostly 0: then nothing is written.
        match self.limits() {
            0 => 0,
            _ => self.limits.swap(0, Ordering::Relaxed),
        }
    }

    /// `<F-CONTENT>` of a match with any address; without such a group the whole text.
    pub(super) fn content_with_any<'t>(&self, text: &'t [u8]) -> Option<&'t [u8]> {
        if self.any.is_match(text) {
            let spans = self.any.spans(text)?;
            Some(self.content_of(text, &spans))
        } else {
            None
        }
    }

    /// `<F-CONTENT>` of a match with exactly the client's text for `<HOST>`.
    pub(super) fn content_for<'t>(&self, text: &'t [u8], client: Client<'_>) -> Option<&'t [u8]> {
        if !self.any.is_match(text) {
            return None;
        }
        let spans = self.any.spans(text)?;
        if self.groups.is_empty() || self.names_only(text, &spans, client) {
            return Some(self.content_of(text, &spans));
        }
        let exact = self.exact(client)?;
        let spans = exact.spans(text)?;
        // It has fewer groups: the content has the same name, another number.
        let content = exact.groups(|name| name == "content");
        let span = content.first().and_then(|group| filled(&spans, *group));
        Some(content_at(text, span))
    }

    fn content_of<'t>(&self, text: &'t [u8], spans: &Spans) -> &'t [u8] {
        content_at(text, self.content.and_then(|group| filled(spans, group)))
    }

    /// Whether the pattern matches with exactly the client's text for `<HOST>`; `any` matches.
    fn hits(&self, text: &[u8], client: Client<'_>) -> bool {
        if self.groups.is_empty() {
            return true;
        }
        if let Some(decided) = self.hits_marked(text, client) {
            return decided;
        }
        // Groups are slow on long texts, and mostly sufficient on short ones.
        let groups = text.len() <= LONGEST_FOR_GROUPS || !self.has_host;
        let spans = groups.then(|| self.any.spans(text)).flatten();
        spans.is_some_and(|spans| self.names_only(text, &spans, client))
            || self.exact(client).is_some_and(|exact| exact.is_match(text))
    }

    /// The same with one pattern for all clients, so that no client causes a compilation: replaces
    /// the client's text by a mark, in one place after the other. `None`: that does not decide.
    fn hits_marked(&self, text: &[u8], client: Client<'_>) -> Option<bool> {
        let v4 = client.addr.is_ipv4();
        let compile = || {
            let (pattern, _) = translate(&self.text, Host::Mark { v4 });
            Compiled::new(&pattern, DFA_LIMIT, &self.limits).ok()
        };
        let marked = self.marked.as_ref()?.get(usize::from(v4))?;
        let marked = marked.get_or_init(compile).as_ref()?;
        if memchr::memchr(MARK, text).is_some() {
            return None;
        }
        let mut places = memchr::memmem::find_iter(text, client.text);
        for at in places.by_ref().take(MOST_MARKS) {
            let (before, after) = (text.get(..at)?, text.get(at + client.text.len()..)?);
            if marked.is_match(&[before, &[MARK], after].concat()) {
                return Some(true);
            }
        }
        places.next().is_none().then_some(false)
    }

    /// Whether the match of `any` has the client's text in every host that it captured.
    fn names_only(&self, text: &[u8], spans: &Spans, client: Client<'_>) -> bool {
        let mut hosts = self
            .groups
            .iter()
            .filter_map(|group| *spans.get(*group)?)
            .filter_map(|(from, to)| text.get(from..to))
            .peekable();
        hosts.peek().is_some() && hosts.all(|host| host == client.text)
    }

    /// The pattern with this client's text for `<HOST>`, from the cache or compiled now.
    fn exact(&self, client: Client<'_>) -> Option<Arc<Compiled>> {
        if !self.has_host {
            return None;
        }
        let mut cache = self.exact.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(regex) = cache.get(client.text) {
            return regex.clone();
        }
        if cache.len() >= MOST_EXACT {
            cache.clear();
        }
        let host = Host::Exact {
            text: std::str::from_utf8(client.text).ok()?,
            v4: client.addr.is_ipv4(),
        };
        let (pattern, _) = translate(&self.text, host);
        let regex = Compiled::new(&pattern, EXACT_DFA_LIMIT, &self.limits);
        let regex = regex.ok().map(Arc::new);
        cache.insert(client.text.to_vec(), regex.clone());
        regex
    }

    /// False: no text that differs only in what a look around or back sees matches.
    pub(super) fn may_match(&self, text: &[u8]) -> bool {
        self.any.may_match(text)
    }

    pub(super) fn backtracks(&self) -> bool {
        self.any.backtracks()
    }

    /// The text in place of `<HOST>` in a match with any address.
    pub(super) fn named<'t>(&self, text: &'t [u8]) -> Option<&'t [u8]> {
        let spans = self.any.spans(text)?;
        let (from, to) = self.groups.iter().find_map(|at| filled(&spans, *at))?;
        text.get(from..to)
    }

    /// A match in a text without a record, in which the pattern names the host.
    pub(super) fn find(&self, text: &[u8]) -> Option<Found> {
        let compile = || {
            let (pattern, _) = translate(&self.text, Host::Longest);
            Compiled::new(&pattern, DFA_LIMIT, &self.limits).ok()
        };
        let spans = self.longest.get_or_init(compile).as_ref()?.spans(text)?;
        // The groups are in the same order as those of `any`.
        let host = self.groups.iter().find_map(|group| *spans.get(*group)?);
        let addr = host
            .and_then(|(from, to)| std::str::from_utf8(text.get(from..to)?).ok())
            .and_then(|host| host.split('%').next()?.parse::<IpAddr>().ok());
        Some(Found {
            host: addr.map(|addr| addr.to_canonical()),
            content: self.content.and_then(|group| filled(&spans, group)),
            nofail: self.nofail.is_some_and(|at| filled(&spans, at).is_some()),
        })
    }
}

/// A part of a text, with the newline if that follows; the whole text without such a part.
pub(super) fn content_at(text: &[u8], span: Option<(usize, usize)>) -> &[u8] {
    let part = span.and_then(|(from, to)| {
        let newline = text.get(to..) == Some(b"\n");
        text.get(from..to + usize::from(newline))
    });
    part.unwrap_or(text)
}

/// What a group holds, unless it is empty.
fn filled(spans: &Spans, group: usize) -> Option<(usize, usize)> {
    let span = spans.get(group).copied().flatten();
    span.filter(|(from, to)| from < to)
}

/// Whether each match of a pattern with one host tag holds exactly one address, and no part of it
/// looks at what is beside it.
fn one_host_without_looks(hir: &Hir) -> bool {
    fn has_host(hir: &Hir) -> bool {
        match hir.kind() {
            HirKind::Capture(capture) => {
                let named = |name: &str| name.starts_with(GROUP);
                capture.name.as_deref().is_some_and(named) || has_host(&capture.sub)
            }
            HirKind::Repetition(repetition) => {
                (repetition.min, repetition.max) == (1, Some(1)) && has_host(&repetition.sub)
            }
            HirKind::Concat(parts) => parts.iter().any(has_host),
            HirKind::Alternation(parts) => parts.iter().all(has_host),
            HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => false,
        }
    }
    let looks = hir.properties().look_set();
    !looks.contains_word() && !looks.contains_anchor_line() && has_host(hir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATTERNS: [&str; 8] = [
        r"\[client <HOST>:\d+\] bad",
        r"^<HOST> .*bad",
        r".*<HOST>",
        r"bad <HOST>$",
        r"(?i)^[^ ]* ?<ADDR>[^x]*BAD",
        r"<IP4>[: ].*bad",
        r"(?:bad|worse).*from\s+<HOST>\s",
        r"(?:client <HOST>|from <IP6>).*bad",
    ];

    proptest! {
        #[test]
        fn a_mark_decides_as_the_pattern_for_the_client_does(
            pattern in 0..PATTERNS.len(),
            v4 in proptest::bool::ANY,
            parts in proptest::collection::vec(prop_oneof![
                4 => Just("$"), 1 => Just("192.0.2.1"), 1 => Just("192.0.2.11"), 1 => Just("2001:db8::7"),
                1 => Just("2001:db8::7:1"), 1 => Just("[client "), 1 => Just("client "), 1 => Just(":80"), 1 => Just("] "),
                1 => Just(" "), 1 => Just("bad"), 1 => Just("from "), 1 => Just("["), 1 => Just("x"),
            ], 0..12),
        ) {
            let own = if v4 { "192.0.2.1" } else { "2001:db8::7" };
            let client = Client { addr: own.parse().unwrap(), text: own.as_bytes() };
            let text = parts.concat().replace('$', own);
            let pattern = Pattern::compile(1, PATTERNS[pattern]).unwrap();
            let exact = pattern.exact(client).unwrap().is_match(text.as_bytes());
            match pattern.hits_marked(text.as_bytes(), client) {
                Some(marked) => {
                    prop_assert_eq!(marked, exact);
                    prop_assert!(!exact || pattern.any.is_match(text.as_bytes()));
                }
                None => {
                    prop_assert!(pattern.text.matches('<').count() > 1);
                }
            }
        }
    }

    #[test]
    fn a_pattern_has_a_mark_only_if_that_decides() {
        for (pattern, decides) in [
            (r"client <HOST>:\d+ bad", true),
            (r"client (?:<HOST>|x) bad", false),
            (r"client <HOST>? bad", false),
            (r"(?:<HOST> )+bad", false),
            (r"<HOST>.*<HOST>", false),
            (r"\b<HOST>\b", false),
            (r"(?m)^<HOST>$", false),
            (r"^<HOST>$", true),
            (r"^<HOST>(?! good) bad", false),
        ] {
            let pattern = Pattern::compile(1, pattern).unwrap();
            assert_eq!(pattern.marked.is_some(), decides, "{}", pattern.text);
        }
    }
}
