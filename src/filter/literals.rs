//! Texts of a pattern: every match holds at least one of them.
//!
//! All are searched in one pass over a whole block, so that only lines that may match cost a
//! regex. Everything is lower case here: the search ignores case.

use regex_syntax::hir::{Class, Hir, HirKind};

use super::rarity::rarest;

/// Most texts that are put together from the parts of a pattern.
const MOST: usize = 24;
/// Most texts of a pattern that lists them, like the names of bots.
const MOST_LISTED: usize = 256;
/// Shorter texts are in too many lines to be worth a search.
const SHORTEST: usize = 3;
/// A text that tells fewer bits is in most lines.
const LEAST_BITS: u32 = 9;

/// The texts; `None` if no useful ones are known.
pub(super) fn required(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    let mut set = best(&analyse(hir))?;
    set.sort();
    set.dedup();
    (weight(&set) >= LEAST_BITS).then_some(set)
}

struct Info {
    /// All texts that can match, if they are few.
    exact: Option<Vec<Vec<u8>>>,
    /// Texts; each match holds at least one.
    inner: Option<Vec<Vec<u8>>>,
}

impl Info {
    fn exactly(texts: Vec<Vec<u8>>) -> Info {
        Info {
            exact: Some(texts),
            inner: None,
        }
    }

    const UNKNOWN: Info = Info {
        exact: None,
        inner: None,
    };
}

fn analyse(hir: &Hir) -> Info {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Info::exactly(vec![Vec::new()]),
        HirKind::Literal(literal) => Info::exactly(vec![literal.0.to_ascii_lowercase()]),
        HirKind::Class(class) => few(class).map_or(Info::UNKNOWN, Info::exactly),
        HirKind::Capture(capture) => analyse(&capture.sub),
        HirKind::Repetition(repetition) => {
            let sub = analyse(&repetition.sub);
            match (repetition.min, repetition.max) {
                (1, Some(1)) => sub,
                (0, Some(1)) => Info {
                    exact: sub.exact.map(|mut texts| {
                        texts.push(Vec::new());
                        texts
                    }),
                    inner: None,
                },
                (0, _) => Info::UNKNOWN,
                _ => Info {
                    exact: None,
                    inner: best(&sub),
                },
            }
        }
        HirKind::Concat(parts) => concat(parts),
        HirKind::Alternation(branches) => alternation(branches),
    }
}

fn concat(parts: &[Hir]) -> Info {
    let mut whole = true;
    let mut found: Option<Vec<Vec<u8>>> = None;
    let mut run = vec![Vec::new()];
    for part in parts {
        let info = analyse(part);
        if let Some(joined) = info.exact.as_ref().and_then(|next| joined(&run, next)) {
            run = joined;
            continue;
        }
        whole = false;
        found = better(found, Some(std::mem::replace(&mut run, vec![Vec::new()])));
        match info.exact {
            Some(texts) => run = texts,
            None => found = better(found, info.inner),
        }
    }
    if whole {
        return Info::exactly(run);
    }
    Info {
        exact: None,
        inner: better(found, Some(run)),
    }
}

fn alternation(branches: &[Hir]) -> Info {
    let infos: Vec<Info> = branches.iter().map(analyse).collect();
    let exact: Option<Vec<_>> = infos.iter().map(|info| info.exact.clone()).collect();
    if let Some(texts) = exact.map(|texts| texts.concat())
        && texts.len() <= MOST
    {
        return Info::exactly(texts);
    }
    let inner: Option<Vec<_>> = infos.iter().map(best).collect();
    Info {
        exact: None,
        inner: inner
            .map(|texts| texts.concat())
            .filter(|texts| texts.len() <= MOST_LISTED),
    }
}

/// Each of `left` followed by each of `right`, if that stays small.
fn joined(left: &[Vec<u8>], right: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    if left.len() * right.len() > MOST {
        return None;
    }
    Some(
        left.iter()
            .flat_map(|l| right.iter().map(|r| [l.as_slice(), r.as_slice()].concat()))
            .collect(),
    )
}

/// The texts of a class of few characters; both cases of a letter are one.
fn few(class: &Class) -> Option<Vec<Vec<u8>>> {
    let mut texts: Vec<Vec<u8>> = match class {
        Class::Bytes(class) => class
            .iter()
            .flat_map(|range| range.start()..=range.end())
            .take(MOST)
            .map(|byte| vec![byte.to_ascii_lowercase()])
            .collect(),
        Class::Unicode(class) => class
            .iter()
            .flat_map(|range| range.start()..=range.end())
            .take(MOST)
            .map(|c| c.to_ascii_lowercase().to_string().into_bytes())
            .collect(),
    };
    if texts.len() == MOST {
        return None;
    }
    texts.sort();
    texts.dedup();
    (texts.len() <= 4).then_some(texts)
}

fn best(info: &Info) -> Option<Vec<Vec<u8>>> {
    better(info.exact.clone(), info.inner.clone())
}

/// The set whose rarest text is rarer.
fn better(a: Option<Vec<Vec<u8>>>, b: Option<Vec<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
    let usable = |set: Option<Vec<Vec<u8>>>| {
        let set: Vec<Vec<u8>> = set?
            .iter()
            .map(|text| longest_part(text).to_vec())
            .collect();
        (weight(&set) > 0).then_some(set)
    };
    match (usable(a), usable(b)) {
        (Some(a), Some(b)) if weight(&b) > weight(&a) => Some(b),
        (Some(a), _) => Some(a),
        (None, b) => b,
    }
}

/// The longest part on one side of a `[]`, which is `[time]` in the line, without newlines and
/// letters beyond ASCII, whose case the search does not know.
fn longest_part(text: &[u8]) -> &[u8] {
    let mut longest: &[u8] = &[];
    let mut start = 0;
    let cuts = memchr::memmem::find_iter(text, b"[]").map(|at| at + 1);
    let others = text.iter().enumerate();
    let others = others.filter(|(_, byte)| **byte == b'\n' || !byte.is_ascii());
    let others = others.flat_map(|(at, _)| [at, at + 1]);
    let mut cuts: Vec<usize> = cuts.chain(others).chain([text.len()]).collect();
    cuts.sort_unstable();
    for end in cuts {
        let part = text.get(start..end).unwrap_or_default();
        if worth(part) > worth(longest) {
            longest = part;
        }
        start = end;
    }
    longest
}

fn weight(set: &[Vec<u8>]) -> u32 {
    set.iter().map(|text| worth(text)).min().unwrap_or(0)
}

/// The worth of a text: its rarity.
fn worth(text: &[u8]) -> u32 {
    match text.contains(&b'\n') || text.len() < SHORTEST {
        true => 0,
        false => rarest(text).1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pattern: &str) -> Option<Vec<String>> {
        let hir = regex_syntax::ParserBuilder::new()
            .utf8(false)
            .unicode(false)
            .build()
            .parse(pattern)
            .unwrap();
        let set = required(&hir)?;
        Some(
            set.into_iter()
                .map(|text| String::from_utf8(text).unwrap())
                .collect(),
        )
    }

    #[test]
    fn the_rarest_texts_are_found() {
        for (pattern, expected) in [
            (
                r"\[client \S+\] AH10244: invalid URI path \(.*cgi-bin.*bin/sh.*",
                Some(vec!["cgi-bin"]),
            ),
            (
                r#"^\S+ .*"(?:GET|POST) /(?:wp-login|xmlrpc)\.php"#,
                Some(vec![
                    "\"get /wp-login.php",
                    "\"get /xmlrpc.php",
                    "\"post /wp-login.php",
                    "\"post /xmlrpc.php",
                ]),
            ),
            (r"(?i)NikTo.*x", Some(vec!["nikto"])),
            (r"^\[\] \[evasive\d+:error\]", Some(vec!["] [evasive"])),
            (r"\d+ HTTP/1\.[01]", None),
            (r"(?:abcdef|\d+)x", None),
            (r"(?:abcdef)*x", None),
            (r"(?:abcdef\d)+x", Some(vec!["abcdef"])),
            (r"(?:abcd\d|efgh\d)", Some(vec!["abcd", "efgh"])),
            (r"abc?de", Some(vec!["abcde", "abde"])),
            (r"abcd(?:$|\n\z)", Some(vec!["abcd"])),
            ("abcdéfgh.*é", Some(vec!["abcd"])),
        ] {
            let expected = expected.map(|set| set.into_iter().map(str::to_owned).collect());
            let mut found = texts(pattern);
            if let Some(found) = &mut found {
                found.sort();
            }
            assert_eq!(found, expected, "{pattern}");
        }
    }
}
