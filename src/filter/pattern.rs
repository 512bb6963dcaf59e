//! One pattern, and the decision whom a text hits by it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use regex_syntax::hir::{Hir, HirKind};

use super::literals;
use super::regexes::{Compiled, Limits, Manner, Spans};
use super::translate::{GROUP, Host, translate};
use crate::record::Client;

/// Memory of one pattern's lazy DFA, for each thread.
const DFA_LIMIT: usize = 4 << 20;
/// The same for a pattern with one client's address.
const EXACT_DFA_LIMIT: usize = 256 << 10;
/// Such patterns kept, for each failregex. A client can have a new one made with each of its
/// addresses, so they are few.
const MOST_EXACT: usize = 16;
/// In so many places of a line the client's text is looked for one by one.
const MOST_MARKS: usize = 16;
/// Longer texts are matched without groups.
const LONGEST_FOR_GROUPS: usize = 2048;

pub(super) enum Decision {
    No,
    /// Matches, but only with an address that is not the client's.
    Another,
    Hit(IpAddr),
}

/// What a match in a text without a record says.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What stood for `<HOST>`.
    pub(super) host: Option<IpAddr>,
    /// `<F-CONTENT>`, where it is not empty.
    pub(super) content: Option<(usize, usize)>,
    /// `<F-NOFAIL>` matched: this is no failure.
    pub(super) nofail: bool,
    /// The whole match.
    pub(super) span: (usize, usize),
    /// `<F-MLFID>`
    pub(super) session: Option<Vec<u8>>,
    /// `<F-MLFFORGET>` matched: the session is over.
    pub(super) forget: bool,
    /// `<F-MLFGAINED>` matched: the session has got in.
    pub(super) gained: bool,
    /// `<F-USER>`
    pub(super) user: Option<Vec<u8>>,
    /// Lines that `<SKIPLINES>` passed over.
    pub(super) skipped: Vec<(usize, usize)>,
}

/// Where a match stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The whole match.
    pub whole: Range<usize>,
    /// What stands for `<HOST>` in it.
    pub host: Option<Range<usize>>,
}

#[derive(Debug)]
pub(super) struct Pattern {
    /// As shown, from 1.
    pub(super) number: u32,
    /// As it was written.
    pub(super) text: String,
    pub(super) multi_line: bool,
    limits: Limits,
    /// With any address for `<HOST>`: a line that this does not match, nothing does.
    any: Compiled,
    /// Groups of `any` that hold an address; where it has no `<HOST>`, its `<F-ID>`.
    groups: Vec<usize>,
    /// Whether `groups` are `<HOST>`.
    has_host: bool,
    content: Option<usize>,
    nofail: Option<usize>,
    /// Lower-case texts of which a match must hold one.
    pub(super) literals: Option<Vec<Vec<u8>>>,
    /// For lines without a record; compiled when the first comes.
    longest: OnceLock<Option<Compiled>>,
    /// With a mark for `<HOST>`, for IPv4 and IPv6; compiled when needed. `None`: a mark does not
    /// tell all.
    marked: Option<[OnceLock<Option<Compiled>>; 2]>,
    /// With one client's text for `<HOST>`, by that text.
    exact: Mutex<HashMap<Vec<u8>, Option<Arc<Compiled>>>>,
}

impl Pattern {
    pub(super) fn compile(number: u32, text: &str, multi_line: bool) -> Result<Pattern, String> {
        let limits = Limits::default();
        let (translated, hosts) = translate(text, Host::Any);
        let any = Compiled::new(&translated, manner(DFA_LIMIT, multi_line), &limits)?;
        let named = |wanted: &str| any.groups(|name| name == wanted).first().copied();
        let groups = match hosts {
            0 => any.groups(|name| name == "fid"),
            _ => any.groups(|name| name.starts_with(GROUP)),
        };
        let hir = any.hir();
        // A look around would see the mark.
        let one_mark_tells = hosts == 1
            && !multi_line
            && !any.steps_back()
            && hir.as_ref().is_some_and(one_host_without_looks);
        Ok(Pattern {
            number,
            literals: hir.and_then(|hir| literals::required(&hir)),
            marked: one_mark_tells.then(Default::default),
            text: text.to_owned(),
            multi_line,
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

    /// Whether a match names somebody: by `<HOST>` or `<F-ID>`.
    pub(super) fn names_somebody(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Whether it has `<F-MLFID>`.
    pub(super) fn names_a_session(&self) -> bool {
        !self.any.groups(|name| name == "mlfid").is_empty()
    }

    /// Whom a text of this client hits: `own` is what is surely the client's of `all`; `None`:
    /// the prefix has not let it through.
    pub(super) fn decide(
        &self,
        own: Option<&[u8]>,
        all: Option<&[u8]>,
        client: Client<'_>,
    ) -> Decision {
        let matches = own.is_some_and(|own| self.any.is_match(own));
        if matches && own.is_some_and(|own| self.hits(own, client)) {
            return Decision::Hit(client.addr);
        }
        // Mostly the client's text is all of it.
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

    /// Whether what matched is no failure by its `<F-NOFAIL>`.
    pub(super) fn is_no_failure(&self, text: &[u8]) -> bool {
        self.nofail.is_some_and(|group| {
            let spans = self.any.spans(text);
            // It matches; without groups a bound was hit, and nobody is to be hit for that.
            spans.is_none_or(|spans| filled(&spans, group).is_some())
        })
    }

    /// Whether an ignoreregex spares this client's text. Where a bound keeps it from an answer it
    /// does: nobody is to be hit for that.
    pub(super) fn spares(&self, text: &[u8], client: Client<'_>) -> bool {
        self.any.gives_up(text) || matches!(self.decide(Some(text), None, client), Decision::Hit(_))
    }

    /// The same of a text without a record.
    pub(super) fn spares_any(&self, text: &[u8]) -> bool {
        self.any.gives_up(text) || self.any.is_match(text)
    }

    /// How often a bound kept it from an answer, but for what was taken.
    pub(super) fn limits(&self) -> u64 {
        self.limits.load(Ordering::Relaxed)
    }

    /// The same; from now on it is counted anew.
    pub(super) fn take_limits(&self) -> u64 {
        // Mostly there is nothing, and nothing to be written.
        match self.limits() {
            0 => 0,
            _ => self.limits.swap(0, Ordering::Relaxed),
        }
    }

    /// `<F-CONTENT>` of a match with any address; of all the text where there is none.
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
        let spans = self.exact(client)?.spans(text)?;
        // Groups are fewer there: the content keeps its name, not its number.
        let content = self.exact(client)?.groups(|name| name == "content");
        let span = content.first().and_then(|group| filled(&spans, *group));
        Some(content_at(text, span))
    }

    fn content_of<'t>(&self, text: &'t [u8], spans: &Spans) -> &'t [u8] {
        content_at(text, self.content.and_then(|group| filled(spans, group)))
    }

    /// Whether the pattern matches with exactly the client's text for `<HOST>`; `any` does.
    fn hits(&self, text: &[u8], client: Client<'_>) -> bool {
        if self.groups.is_empty() {
            return true;
        }
        if let Some(decided) = self.hits_marked(text, client) {
            return decided;
        }
        // Groups are slow on long texts, and mostly enough on short ones.
        let groups = text.len() <= LONGEST_FOR_GROUPS || !self.has_host;
        let spans = groups.then(|| self.any.spans(text)).flatten();
        spans.is_some_and(|spans| self.names_only(text, &spans, client))
            || self.exact(client).is_some_and(|exact| exact.is_match(text))
    }

    /// The same with one pattern for all clients, so that none makes us compile: with the client's
    /// text replaced by a mark, in one place after the other. `None`: it cannot be told so.
    fn hits_marked(&self, text: &[u8], client: Client<'_>) -> Option<bool> {
        let v4 = client.addr.is_ipv4();
        let compile = || {
            let (pattern, _) = translate(&self.text, Host::Mark { v4 });
            Compiled::new(&pattern, manner(DFA_LIMIT, false), &self.limits).ok()
        };
        let marked = self.marked.as_ref()?.get(usize::from(v4))?;
        let marked = marked.get_or_init(compile).as_ref()?;
        if memchr::memchr(0, text).is_some() {
            return None;
        }
        let mut places = memchr::memmem::find_iter(text, client.text);
        for at in places.by_ref().take(MOST_MARKS) {
            let (before, after) = (text.get(..at)?, text.get(at + client.text.len()..)?);
            if marked.is_match(&[before, b"\0", after].concat()) {
                return Some(true);
            }
        }
        places.next().is_none().then_some(false)
    }

    /// Whether `any`, as it matched, has the client's text in every host it captured.
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
        let manner = manner(EXACT_DFA_LIMIT, self.multi_line);
        let regex = Compiled::new(&pattern, manner, &self.limits);
        let regex = regex.ok().map(Arc::new);
        cache.insert(client.text.to_vec(), regex.clone());
        regex
    }

    /// Whether it takes steps back.
    pub(super) fn steps_back(&self) -> bool {
        self.any.steps_back()
    }

    /// What stands for `<HOST>` in a match with any address.
    pub(super) fn named<'t>(&self, text: &'t [u8]) -> Option<&'t [u8]> {
        let spans = self.any.spans(text)?;
        let (from, to) = self.groups.iter().find_map(|at| filled(&spans, *at))?;
        text.get(from..to)
    }

    /// Where a match with the client's own text stands, and in it that text; without a client,
    /// with any address.
    pub(super) fn place(&self, text: &[u8], client: Option<Client<'_>>) -> Option<Place> {
        let place = |spans: &Spans, groups: &[usize]| {
            let (from, to) = spans.first().copied().flatten()?;
            let host = groups.iter().find_map(|group| filled(spans, *group));
            Some(Place {
                whole: from..to,
                host: host.map(|(from, to)| from..to),
            })
        };
        let Some(client) = client else {
            return place(&self.longest()?.spans(text)?, &self.groups);
        };
        let spans = self.any.spans(text)?;
        if self.groups.is_empty() || self.names_only(text, &spans, client) {
            return place(&spans, &self.groups);
        }
        let exact = self.exact(client)?;
        let groups = exact.groups(|name| name.starts_with(GROUP));
        place(&exact.spans(text)?, &groups)
    }

    fn longest(&self) -> Option<&Compiled> {
        let compile = || {
            let (pattern, _) = translate(&self.text, Host::Longest);
            Compiled::new(&pattern, manner(DFA_LIMIT, self.multi_line), &self.limits).ok()
        };
        self.longest.get_or_init(compile).as_ref()
    }

    /// What a match in a text without a record says: there the pattern names the host.
    pub(super) fn find(&self, text: &[u8]) -> Option<Found> {
        let longest = self.longest()?;
        let spans = longest.spans(text)?;
        let text_of = |name: &str| {
            // `alt_user_1` is another place for the user.
            let groups = longest.groups(|group| {
                group == name
                    || group
                        .strip_prefix("alt_")
                        .is_some_and(|g| g.starts_with(name))
            });
            let (from, to) = groups.iter().find_map(|group| filled(&spans, *group))?;
            text.get(from..to)
        };
        // The groups are in the same order, whatever stands in them.
        let host = self.groups.iter().find_map(|group| *spans.get(*group)?);
        let addr = host
            .and_then(|(from, to)| std::str::from_utf8(text.get(from..to)?).ok())
            .and_then(|host| host.split('%').next()?.parse::<IpAddr>().ok());
        let skipped = longest.groups(|name| name.starts_with("skiplines"));
        Some(Found {
            host: addr.map(|addr| addr.to_canonical()),
            content: self.content.and_then(|group| filled(&spans, group)),
            nofail: self.nofail.is_some_and(|at| filled(&spans, at).is_some()),
            span: spans.first().copied().flatten().unwrap_or_default(),
            session: text_of("mlfid").map(<[u8]>::to_vec),
            forget: text_of("mlfforget").is_some(),
            gained: text_of("mlfgained").is_some(),
            user: text_of("user").map(<[u8]>::to_vec),
            skipped: skipped
                .iter()
                .filter_map(|group| filled(&spans, *group))
                .collect(),
        })
    }
}

/// A part of a text, with the newline where that follows; all of it where there is no such part.
pub(super) fn content_at(text: &[u8], span: Option<(usize, usize)>) -> &[u8] {
    let part = span.and_then(|(from, to)| {
        let newline = text.get(to..) == Some(b"\n");
        text.get(from..to + usize::from(newline))
    });
    part.unwrap_or(text)
}

fn manner(dfa_limit: usize, multi_line: bool) -> Manner {
    Manner {
        dfa_limit,
        multi_line,
        letters: true,
    }
}

/// What a group holds, where that is not nothing.
fn filled(spans: &Spans, group: usize) -> Option<(usize, usize)> {
    spans
        .get(group)
        .copied()
        .flatten()
        .filter(|(from, to)| from < to)
}

/// Whether each match of a pattern with one host tag holds exactly one address, and nothing in it
/// asks what stands beside.
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
        fn a_mark_tells_what_the_pattern_made_for_the_client_tells(
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
            let pattern = Pattern::compile(1, PATTERNS[pattern], false).unwrap();
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
    fn where_a_mark_does_not_tell_all_there_is_none() {
        for (pattern, told) in [
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
            let pattern = Pattern::compile(1, pattern, false).unwrap();
            assert_eq!(pattern.marked.is_some(), told, "{}", pattern.text);
        }
    }
}
