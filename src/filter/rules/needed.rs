//! Texts of which every match of a rule's pattern holds at least one, in lower case.
//!
//! Chosen for fields: one character that ordinary requests lack, as `;` or `<`, is better than a
//! word.

use regex_syntax::hir::{Class, Hir, HirKind, Repetition};

use super::rule::Field;

/// Most texts for one pattern.
const MOST: usize = 800;
/// Most texts of which each is two parts joined.
const MOST_JOINED: usize = 200;
/// Most texts that a part is expanded to.
const MOST_EXACT: usize = 64;
/// Most bytes of a class that is expanded.
const MOST_CLASS: usize = 12;
/// Texts worth less are in too many requests.
const LEAST_WORTH: usize = 2;

type Set = Vec<Vec<u8>>;

/// Texts that a field ordinarily holds, with each part of them.
type Common = &'static [&'static str];

/// The texts of one pattern for a field; `None` if no useful ones are known.
pub(super) fn needed(hir: &Hir, field: Field) -> Option<Set> {
    let common = common(field);
    let mut set = Found::of(hir, common).best(common)?;
    set.sort();
    set.dedup();
    (least_worth(&set, common) >= LEAST_WORTH).then_some(set)
}

/// How rare the least rare of the texts is in ordinary requests.
pub(super) fn worth(set: &Set, field: Field) -> usize {
    least_worth(set, common(field))
}

fn common(field: Field) -> Common {
    match field {
        Field::Referer => &[
            "https://www.",
            "http://www.",
            ".com/index.html",
            "/index.php",
        ],
        Field::UserAgent => &[
            "mozilla/5.0 (windows nt ",
            " applewebkit/537.36 (khtml, like gecko)",
            "android chrome/",
        ],
        _ => &["get /index.html?id=", " http/1.1"],
    }
}

fn least_worth(set: &Set, common: Common) -> usize {
    let worth = set.iter().map(|text| worth_of(text, common));
    worth.min().unwrap_or(0)
}

fn worth_of(text: &[u8], common: Common) -> usize {
    let of_byte = |byte: &u8| match byte {
        b';'
        | b'|'
        | b'`'
        | b'<'
        | b'>'
        | b'\''
        | b'"'
        | b'{'
        | b'}'
        | b'$'
        | b'\\'
        | b'*'
        | b'@'
        | b'#'
        | b'!'
        | b'^'
        | b'['
        | b']'
        | b'~'
        | 0..=0x1f
        | 0x7f.. => 3,
        b'(' | b')' | b'%' => 2,
        _ => 1,
    };
    let part_of = |word: &&str| memchr::memmem::find(word.as_bytes(), text).is_some();
    let is_common = text.len() > 1 && common.iter().any(part_of);
    let all: usize = text.iter().map(of_byte).sum();
    if is_common { 0 } else { all }
}

/// What is known of the matches of a part of a pattern.
struct Found {
    /// All texts that can match, if they are few.
    exact: Option<Set>,
    /// Texts; each match begins with one.
    prefix: Option<Set>,
    /// Texts; each match holds one.
    inner: Option<Set>,
}

impl Found {
    fn exactly(texts: Set) -> Found {
        Found {
            prefix: Some(texts.clone()),
            exact: Some(texts),
            inner: None,
        }
    }

    const UNKNOWN: Found = Found {
        exact: None,
        prefix: None,
        inner: None,
    };

    fn best(self, common: Common) -> Option<Set> {
        let inexact = better(self.prefix, self.inner, common);
        better(self.exact, inexact, common)
    }

    fn of(hir: &Hir, common: Common) -> Found {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => Found::exactly(vec![Vec::new()]),
            HirKind::Literal(literal) => Found::exactly(vec![literal.0.to_ascii_lowercase()]),
            HirKind::Class(class) => few(class).map_or(Found::UNKNOWN, Found::exactly),
            HirKind::Capture(capture) => Found::of(&capture.sub, common),
            HirKind::Repetition(repetition) => repeated(repetition, common),
            HirKind::Concat(parts) => concat(parts, common),
            HirKind::Alternation(branches) => alternation(branches, common),
        }
    }
}

/// The set that is worth more, beyond 8 the smaller one.
fn better(a: Option<Set>, b: Option<Set>, common: Common) -> Option<Set> {
    let rank = |set: &Set| (least_worth(set, common).min(8), usize::MAX - set.len());
    match (a, b) {
        (Some(a), Some(b)) if rank(&b) > rank(&a) => Some(b),
        (Some(a), _) => Some(a),
        (None, b) => b,
    }
}

fn few(class: &Class) -> Option<Set> {
    let Class::Bytes(class) = class else {
        return None;
    };
    let bytes = class.iter().flat_map(|range| range.start()..=range.end());
    let mut texts: Set = bytes.map(|byte| vec![byte.to_ascii_lowercase()]).collect();
    texts.sort();
    texts.dedup();
    (texts.len() <= MOST_CLASS).then_some(texts)
}

fn repeated(repetition: &Repetition, common: Common) -> Found {
    /// More copies tell no more.
    const COPIES: u32 = 8;
    let sub = Found::of(&repetition.sub, common);
    let (min, max) = (repetition.min, repetition.max);
    if (min, max) == (0, Some(1))
        && let Some(mut texts) = sub.exact
    {
        texts.push(Vec::new());
        return Found::exactly(texts);
    }
    if min == 0 {
        return Found::UNKNOWN;
    }
    let mut run = Some(vec![Vec::new()]);
    for _ in 0..min.min(COPIES) {
        run = run.and_then(|run| joined(&run, sub.exact.as_ref()?));
    }
    match run {
        Some(run) if max == Some(min) && min <= COPIES => Found::exactly(run),
        Some(run) => Found {
            exact: None,
            prefix: Some(run),
            inner: None,
        },
        None => Found {
            exact: None,
            prefix: sub.prefix.clone(),
            inner: sub.best(common),
        },
    }
}

fn concat(parts: &[Hir], common: Common) -> Found {
    // Of the whole; `None` while all is exact.
    let mut prefix = None;
    let mut inner = None;
    let mut run = vec![Vec::new()];
    for part in parts {
        let found = Found::of(part, common);
        if let Some(longer) = found.exact.as_ref().and_then(|next| joined(&run, next)) {
            run = longer;
            continue;
        }
        let longer = found.prefix.as_ref().and_then(|next| joined(&run, next));
        let begun = longer.unwrap_or_else(|| run.clone());
        inner = better(inner, Some(begun.clone()), common);
        prefix.get_or_insert(begun);
        match found.exact {
            Some(texts) => run = texts,
            None => {
                inner = better(inner, found.inner, common);
                run = vec![Vec::new()];
            }
        }
    }
    match prefix {
        None => Found::exactly(run),
        Some(prefix) => Found {
            exact: None,
            prefix: Some(prefix),
            inner: better(inner, Some(run), common),
        },
    }
}

fn alternation(branches: &[Hir], common: Common) -> Found {
    let found = branches.iter().map(|branch| Found::of(branch, common));
    let found: Vec<Found> = found.collect();
    let all = |texts: fn(&Found) -> Option<&Set>, most: usize| -> Option<Set> {
        let sets: Option<Vec<&Set>> = found.iter().map(texts).collect();
        let set: Set = sets?.into_iter().flatten().cloned().collect();
        (set.len() <= most).then_some(set)
    };
    if let Some(texts) = all(|found| found.exact.as_ref(), MOST_EXACT) {
        return Found::exactly(texts);
    }
    let prefix = all(|found| found.prefix.as_ref(), MOST);
    let inner: Option<Vec<Set>> = found.into_iter().map(|found| found.best(common)).collect();
    let inner = inner.map(|sets| sets.concat());
    Found {
        exact: None,
        prefix,
        inner: inner.filter(|texts| texts.len() <= MOST),
    }
}

/// Each of `left` followed by each of `right`, if that stays small.
fn joined(left: &Set, right: &Set) -> Option<Set> {
    if left.len() * right.len() > MOST_JOINED {
        return None;
    }
    let pair = |l: &Vec<u8>, r: &Vec<u8>| [l.as_slice(), r.as_slice()].concat();
    let all = left
        .iter()
        .flat_map(|l| right.iter().map(move |r| pair(l, r)));
    Some(all.collect())
}
