//! One pattern, and the decision whom a text hits by it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

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

#[derive(Debug)]
pub(super) struct Pattern {
    /// As shown, from 1.
    pub(super) number: u32,
    text: String,
    multi_line: bool,
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
    /// With one client's text for `<HOST>`, by that text.
    exact: Mutex<HashMap<Vec<u8>, Option<Arc<Compiled>>>>,
}

impl Pattern {
    pub(super) fn compile(
        number: u32,
        text: &str,
        multi_line: bool,
        limits: &Limits,
    ) -> Result<Pattern, String> {
        let (translated, hosts) = translate(text, Host::Any);
        let any = Compiled::new(&translated, manner(DFA_LIMIT, multi_line), limits)?;
        let named = |wanted: &str| any.groups(|name| name == wanted).first().copied();
        let groups = match hosts {
            0 => any.groups(|name| name == "fid"),
            _ => any.groups(|name| name.starts_with(GROUP)),
        };
        Ok(Pattern {
            number,
            literals: any.hir().and_then(|hir| literals::required(&hir)),
            text: text.to_owned(),
            multi_line,
            limits: Arc::clone(limits),
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

    /// Whether it takes steps back ([`Compiled::steps_back`]).
    pub(super) fn steps_back(&self) -> bool {
        self.any.steps_back()
    }

    /// Whom a text of this client hits: `own` is what is surely the client's of `all`; `None`:
    /// the prefix has not let it through.
    pub(super) fn decide(
        &self,
        own: Option<&[u8]>,
        all: Option<&[u8]>,
        client: Client<'_>,
    ) -> Decision {
        if let Some(own) = own
            && self.any.is_match(own)
            && self.hits(own, client)
        {
            return Decision::Hit(client.addr);
        }
        if all.is_some_and(|all| self.any.is_match(all)) {
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
            spans.is_some_and(|spans| filled(&spans, group).is_some())
        })
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
        span.map_or(Some(text), |(from, to)| text.get(from..to))
    }

    fn content_of<'t>(&self, text: &'t [u8], spans: &Spans) -> &'t [u8] {
        let span = self.content.and_then(|group| filled(spans, group));
        span.and_then(|(from, to)| text.get(from..to))
            .unwrap_or(text)
    }

    /// Whether the pattern matches with exactly the client's text for `<HOST>`; `any` does.
    fn hits(&self, text: &[u8], client: Client<'_>) -> bool {
        if self.groups.is_empty() {
            return true;
        }
        // Groups are slow on long texts, and mostly enough on short ones.
        let groups = text.len() <= LONGEST_FOR_GROUPS || !self.has_host;
        let spans = groups.then(|| self.any.spans(text)).flatten();
        spans.is_some_and(|spans| self.names_only(text, &spans, client))
            || self.exact(client).is_some_and(|exact| exact.is_match(text))
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

    /// What a match in a text without a record says: there the pattern names the host.
    pub(super) fn find(&self, text: &[u8]) -> Option<Found> {
        let longest = self.longest.get_or_init(|| {
            let (pattern, _) = translate(&self.text, Host::Longest);
            Compiled::new(&pattern, manner(DFA_LIMIT, self.multi_line), &self.limits).ok()
        });
        let longest = longest.as_ref()?;
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

fn manner(dfa_limit: usize, multi_line: bool) -> Manner {
    Manner {
        dfa_limit,
        multi_line,
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
