//! Patterns compiled, and the decision whom a line hits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{Hir, HirKind};

use super::subject::Subject;
use super::translate::{GROUP, Host, translate};
use super::{Definition, Outcome, PatternText, literals};
use crate::config::Problem;
use crate::record::Client;

/// Compiled size of one pattern.
const SIZE_LIMIT: usize = 4 << 20;
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

/// A compiled filter. Shared by threads.
#[derive(Debug)]
pub struct Filter {
    fail: Vec<Pattern>,
    ignore: Vec<Pattern>,
}

impl Filter {
    /// Compiles every pattern.
    ///
    /// # Errors
    /// Every pattern that does not compile or names no host, with its place.
    pub fn compile(definition: &Definition) -> Result<Filter, Vec<Problem>> {
        let (filter, problems) = Filter::compile_some(definition);
        if problems.is_empty() {
            Ok(filter)
        } else {
            Err(problems)
        }
    }

    /// Without the patterns that do not compile, the others keeping their numbers. Without any,
    /// where an ignoreregex does not compile: what it would have spared is not known.
    pub(super) fn lenient(definition: &Definition) -> Filter {
        let (mut filter, _) = Filter::compile_some(definition);
        if filter.ignore.len() < definition.ignoreregex.len() {
            filter.fail.clear();
        }
        filter
    }

    fn compile_some(definition: &Definition) -> (Filter, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut compile = |patterns: &[PatternText], host_needed: bool| {
            let mut compiled = Vec::with_capacity(patterns.len());
            for (number, pattern) in (1..).zip(patterns) {
                match Pattern::compile(number, &pattern.text, host_needed) {
                    Ok(pattern) => compiled.push(pattern),
                    Err(message) => problems.push(Problem {
                        file: definition.file.clone(),
                        place: Some((pattern.line, pattern.column)),
                        message,
                    }),
                }
            }
            compiled
        };
        let fail = compile(&definition.failregex, true);
        let ignore = compile(&definition.ignoreregex, false);
        (Filter { fail, ignore }, problems)
    }

    /// What comes of a line: the first failregex that hits its client, unless an ignoreregex
    /// matches too.
    pub fn examine(&self, subject: &Subject<'_>) -> Outcome {
        self.examine_some(subject, |_| true)
    }

    /// As [`Filter::examine`], with only those of the compiled patterns (counted from 0) that may match.
    pub(super) fn examine_some(
        &self,
        subject: &Subject<'_>,
        may_match: impl Fn(usize) -> bool,
    ) -> Outcome {
        let mut spoof = None;
        for (at, pattern) in self.fail.iter().enumerate() {
            if !may_match(at) {
                continue;
            }
            let number = pattern.number;
            match pattern.decide(subject) {
                Decision::No => {}
                Decision::Another => spoof = spoof.or(Some(number)),
                Decision::Hit(host) => {
                    let ignored = |p: &Pattern| matches!(p.decide(subject), Decision::Hit(_));
                    return if self.ignore.iter().any(ignored) {
                        Outcome::Ignored
                    } else {
                        Outcome::Match {
                            pattern: number,
                            host,
                        }
                    };
                }
            }
        }
        spoof.map_or(Outcome::Miss, |pattern| Outcome::Spoof { pattern })
    }

    /// For each failregex the lower-case texts of which a match must hold one.
    pub(super) fn literals(&self) -> impl Iterator<Item = Option<&[Vec<u8>]>> {
        self.fail.iter().map(|pattern| pattern.literals.as_deref())
    }
}

enum Decision {
    No,
    /// Matches, but only with an address that is not the client's.
    Another,
    Hit(IpAddr),
}

#[derive(Debug)]
struct Pattern {
    /// As shown, from 1.
    number: u32,
    text: String,
    /// With any address for `<HOST>`: a line that this does not match, nothing does.
    any: Regex,
    /// Groups of `any` that hold an address.
    groups: Vec<usize>,
    literals: Option<Vec<Vec<u8>>>,
    /// For lines without a record; compiled when the first comes.
    longest: OnceLock<Option<Regex>>,
    /// With a mark for `<HOST>`, for IPv4 and IPv6; compiled when needed. `None`: a mark does not
    /// tell all.
    marked: Option<[OnceLock<Option<Regex>>; 2]>,
    /// With one client's text for `<HOST>`, by that text.
    exact: Mutex<HashMap<Vec<u8>, Option<Arc<Regex>>>>,
}

impl Pattern {
    fn compile(number: u32, text: &str, host_needed: bool) -> Result<Pattern, String> {
        let (translated, hosts) = translate(text, Host::Any);
        if hosts == 0 && host_needed {
            return Err(
                "the pattern has no <HOST>, so nobody could be banned by it: put <HOST> \
                        where the client's address stands"
                    .to_owned(),
            );
        }
        let any = build(&translated, DFA_LIMIT)?;
        let groups = host_groups(&any);
        let hir = hir(&translated);
        let one_mark_tells = hosts == 1 && hir.as_ref().is_some_and(one_host_without_looks);
        Ok(Pattern {
            number,
            literals: hir.and_then(|hir| literals::required(&hir)),
            marked: one_mark_tells.then(Default::default),
            text: text.to_owned(),
            any,
            groups,
            longest: OnceLock::new(),
            exact: Mutex::default(),
        })
    }

    fn decide(&self, subject: &Subject<'_>) -> Decision {
        let Some(client) = subject.client() else {
            return if subject.is_raw() {
                self.decide_raw(subject.text())
            } else if self.any.is_match(subject.text()) {
                Decision::Another
            } else {
                Decision::No
            };
        };
        let (own, all) = (subject.own_text(), subject.text());
        if self.any.is_match(own) && self.hits(own, client) {
            return Decision::Hit(client.addr);
        }
        if self.any.is_match(all) {
            Decision::Another
        } else {
            Decision::No
        }
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
        (text.len() <= LONGEST_FOR_GROUPS && self.captures_only(text, client))
            || self.exact(client).is_some_and(|exact| exact.is_match(text))
    }

    /// The same with one pattern for all clients, so that none makes us compile: with the client's
    /// text replaced by a mark, in one place after the other. `None`: it cannot be told so.
    fn hits_marked(&self, text: &[u8], client: Client<'_>) -> Option<bool> {
        let v4 = client.addr.is_ipv4();
        let compile = || build(&translate(&self.text, Host::Mark { v4 }).0, DFA_LIMIT).ok();
        let marked = self.marked.as_ref()?.get(usize::from(v4))?;
        let marked = marked.get_or_init(compile).as_ref()?;
        if memchr::memchr(b'\n', text).is_some() {
            return None;
        }
        let mut places = memchr::memmem::find_iter(text, client.text);
        for at in places.by_ref().take(MOST_MARKS) {
            let (before, after) = (text.get(..at)?, text.get(at + client.text.len()..)?);
            if marked.is_match(&[before, b"\n", after].concat()) {
                return Some(true);
            }
        }
        places.next().is_none().then_some(false)
    }

    /// Whether `any`, as it matches first, has the client's text in every host it captures.
    fn captures_only(&self, text: &[u8], client: Client<'_>) -> bool {
        let mut locations = self.any.capture_locations();
        if self.any.captures_read(&mut locations, text).is_none() {
            return false;
        }
        let mut hosts = self
            .groups
            .iter()
            .filter_map(|group| locations.get(*group))
            .filter_map(|(from, to)| text.get(from..to))
            .peekable();
        hosts.peek().is_some() && hosts.all(|host| host == client.text)
    }

    /// The pattern with this client's text for `<HOST>`, from the cache or compiled now.
    fn exact(&self, client: Client<'_>) -> Option<Arc<Regex>> {
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
        let regex = build(&pattern, EXACT_DFA_LIMIT).ok().map(Arc::new);
        cache.insert(client.text.to_vec(), regex.clone());
        regex
    }

    fn decide_raw(&self, text: &[u8]) -> Decision {
        let longest = self
            .longest
            .get_or_init(|| build(&translate(&self.text, Host::Longest).0, DFA_LIMIT).ok());
        let Some(captures) = longest.as_ref().and_then(|regex| regex.captures(text)) else {
            return Decision::No;
        };
        // The groups are in the same order, whatever stands in them.
        let host = self.groups.iter().find_map(|group| captures.get(*group));
        let addr = host
            .and_then(|host| std::str::from_utf8(host.as_bytes()).ok())
            .and_then(|host| host.split('%').next()?.parse::<IpAddr>().ok());
        match addr {
            Some(addr) => Decision::Hit(addr.to_canonical()),
            None => Decision::No,
        }
    }
}

/// With Unicode off, for speed; on where a class of the pattern holds letters beyond ASCII.
fn build(pattern: &str, dfa_limit: usize) -> Result<Regex, String> {
    let with = |unicode: bool| {
        RegexBuilder::new(pattern)
            .unicode(unicode)
            .size_limit(SIZE_LIMIT)
            .dfa_size_limit(dfa_limit)
            .build()
    };
    with(false)
        .or_else(|error| {
            if pattern.is_ascii() {
                Err(error)
            } else {
                with(true)
            }
        })
        .map_err(|error| explain(pattern, &error))
}

fn hir(pattern: &str) -> Option<Hir> {
    let with = |unicode: bool| {
        let mut parser = regex_syntax::ParserBuilder::new()
            .utf8(false)
            .unicode(unicode)
            .build();
        parser.parse(pattern).ok()
    };
    with(false).or_else(|| with(true))
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

fn host_groups(regex: &Regex) -> Vec<usize> {
    regex
        .capture_names()
        .enumerate()
        .filter(|(_, name)| name.is_some_and(|name| name.starts_with(GROUP)))
        .map(|(index, _)| index)
        .collect()
}

fn explain(pattern: &str, error: &regex::Error) -> String {
    if let regex::Error::CompiledTooBig(limit) = error {
        return format!(
            "the pattern grows beyond {limit} bytes: make its counts (`{{n,m}}`) smaller"
        );
    }
    if ["(?=", "(?!", "(?<=", "(?<!"]
        .iter()
        .any(|look| pattern.contains(look))
    {
        return "look-ahead and look-behind are not supported yet".to_owned();
    }
    if pattern.contains("(?(") || pattern.contains("(?P=") {
        return "conditionals and back references are not supported yet".to_owned();
    }
    // The last line of the text says what; the lines above draw the place in a pattern that the
    // administrator did not write.
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    format!("no valid pattern: {}", last.trim_start_matches("error: "))
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
            let pattern = Pattern::compile(1, PATTERNS[pattern], true).unwrap();
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
        ] {
            let pattern = Pattern::compile(1, pattern, true).unwrap();
            assert_eq!(pattern.marked.is_some(), told, "{}", pattern.text);
        }
    }
}
