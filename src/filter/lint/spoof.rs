//! Patterns whose `<HOST>` a client can choose, with a line that proves it.
//!
//! A text that the pattern matches is put where Apache writes a client's text. The line counts if
//! Apache names the attacker as its client and the matcher takes another address for `<HOST>`. So
//! every warning shows a real attack, and a pattern without a warning may still be spoofable.

use regex_syntax::hir::{Class, Hir, HirKind, Repetition};

use crate::filter::compile::{Filter, Outcome};
use crate::filter::definition::{Definition, PatternText};
use crate::filter::fail2ban::translate::{Host, translate};
use crate::filter::regexes::coarse_syntax;
use crate::filter::subject::Subject;
use crate::record::{Kind, Parser};

/// The client that Apache names in the attack lines.
pub(super) const ATTACKER: &str = "203.0.113.66";
/// Addresses that the attacker wants banned. A `.*` in front of `<HOST>` takes the first digits of
/// the first one, but not of the second.
const VICTIMS: [(&str, bool); 3] = [
    ("198.51.100.7", true),
    ("8.8.8.8", true),
    ("2001:db8::7", false),
];
/// Texts made of one pattern: with and without its optional parts, with several of its branches.
const VARIANTS: usize = 6;
/// Longer texts are given up.
const LONGEST: usize = 2000;

const ACCESS_TIME: &str = "22/Nov/2026:11:00:32 +0000";
const ERROR_TIME: &str = "Sun Nov 22 11:00:32.366318 2026";

/// Places of a client's text.
#[derive(Clone, Copy)]
enum Field {
    /// The value of a header.
    Header,
    /// The path of a request, as sent.
    Url,
    /// The path of a request, decoded.
    Path,
    /// The user name of basic authentication.
    User,
    /// The first line of a request.
    Request,
}

/// Messages of Apache's error log that repeat a client's text, `{}`. The first is for any module.
const MESSAGES: [(&str, Field, &str); 9] = [
    ("", Field::Header, "AH01276: failed, referer: {}"),
    (
        "authz_core:error",
        Field::Header,
        "AH01630: client denied by server configuration: /srv/x, referer: {}",
    ),
    (
        "authz_core:error",
        Field::Path,
        "AH01630: client denied by server configuration: /srv/{}",
    ),
    ("core:error", Field::Url, "AH10244: invalid URI path (/{})"),
    (
        "core:error",
        Field::Request,
        "AH00126: Invalid URI in request {}",
    ),
    (
        "auth_basic:error",
        Field::User,
        "AH01618: user {} not found: /",
    ),
    (
        "auth_basic:error",
        Field::User,
        "AH01617: user {}: authentication failure for \"/\": Password Mismatch",
    ),
    (
        "cgid:error",
        Field::Path,
        "AH01264: script not found or unable to stat: /usr/lib/cgi-bin/{}",
    ),
    (
        "php:error",
        Field::Path,
        "script '/srv/{}' not found or unable to stat",
    ),
];

/// Lines of the access log that repeat a client's text, `{}`, behind its address.
const REQUESTS: [(Field, &str); 8] = [
    (
        Field::User,
        "- {} [TIME] \"GET / HTTP/1.1\" 401 512 \"-\" \"-\"",
    ),
    (Field::Request, "- - [TIME] \"{}\" 400 512 \"-\" \"-\""),
    (
        Field::Url,
        "- - [TIME] \"GET /{} HTTP/1.1\" 404 512 \"-\" \"-\"",
    ),
    (
        Field::Url,
        "- - [TIME] \"POST /{} HTTP/1.1\" 403 512 \"-\" \"-\"",
    ),
    (
        Field::Header,
        "- - [TIME] \"GET / HTTP/1.1\" 200 512 \"{}\" \"-\"",
    ),
    (
        Field::Header,
        "- - [TIME] \"GET / HTTP/1.1\" 404 512 \"-\" \"{}\"",
    ),
    (
        Field::Header,
        "- - [TIME] \"POST / HTTP/1.1\" 403 512 \"-\" \"{}\"",
    ),
    (
        Field::Header,
        "- - [TIME] \"GET / HTTP/1.1\" 500 512 \"-\" \"{}\"",
    ),
];

/// Ends of a line whose request and headers are the pattern's text.
const ENDS: [&str; 5] = [
    "",
    " \"-\" \"-\"",
    " 512 \"-\" \"-\"",
    " 404 512 \"-\" \"-\"",
    "\" 404 512 \"-\" \"-\"",
];

/// A line of the attacker, and the address that it gets banned.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attack {
    pub(super) line: String,
    pub(super) victim: &'static str,
}

/// A line of one of these logs in which the attacker chooses the address in place of `<HOST>`.
pub(super) fn attack(
    definition: &Definition,
    pattern: &PatternText,
    logs: &[Kind],
) -> Option<Attack> {
    let alone = Definition {
        failregex: vec![pattern.clone()],
        ..definition.clone()
    };
    let filter = Filter::compile(&alone).ok()?;
    let parsers: Vec<(Kind, Parser)> = logs
        .iter()
        .filter_map(|kind| Some((*kind, Parser::new(*kind, "auto").ok()?)))
        .collect();
    for (victim, v4) in VICTIMS {
        let host = Host::Exact { text: victim, v4 };
        for variant in 0..VARIANTS {
            let Some(text) = Sample::of(&alone, pattern, host, variant) else {
                continue;
            };
            for (kind, parser) in &parsers {
                let mut lines = match kind {
                    Kind::Access => text.access_lines(victim),
                    Kind::Error => text.error_lines(victim),
                }
                .into_iter();
                if let Some(line) = lines.find(|line| proves(&filter, parser, line, victim)) {
                    return Some(Attack { line, victim });
                }
            }
        }
    }
    None
}

/// Whether Apache names the attacker as the client of the line, and the filter the victim.
fn proves(filter: &Filter, parser: &Parser, line: &str, victim: &str) -> bool {
    let Some(record) = parser.parse(line.as_bytes()) else {
        return false;
    };
    let text = Subject::raw(line.as_bytes(), record.time.clone());
    let by_attacker = record.client.is_some_and(|c| c.text == ATTACKER.as_bytes());
    by_attacker
        && matches!(filter.examine(&text), Outcome::Match { host, .. } if host.to_string() == victim)
}

/// A text that a pattern matches, cut at its wildcards.
struct Sample {
    pieces: Vec<Piece>,
}

enum Piece {
    Text(Vec<u8>),
    /// Any text; this is the shortest.
    Wildcard(Vec<u8>),
}

impl Sample {
    /// `None`: the pattern matches no text with this host.
    fn of(
        definition: &Definition,
        pattern: &PatternText,
        host: Host<'_>,
        variant: usize,
    ) -> Option<Sample> {
        let syntax = |text: &str| coarse_syntax(&translate(text, host).0);
        let mut builder = Builder {
            variant,
            pieces: Vec::new(),
            length: 0,
            content: None,
        };
        let own = syntax(&pattern.text)?;
        match &definition.prefregex {
            Some(prefix) => {
                builder.content = Some(&own);
                builder.add(&syntax(&prefix.text)?)?;
            }
            None => builder.add(&own)?,
        }
        let pieces = builder.pieces;
        Some(Sample { pieces })
    }

    /// The whole text, and the rest behind each wildcard, if they hold the victim.
    fn tails(&self, victim: &str) -> Vec<String> {
        let wildcards = self.pieces.iter().enumerate();
        let behind = wildcards.filter(|(_, piece)| matches!(piece, Piece::Wildcard(_)));
        let starts = std::iter::once(0).chain(behind.map(|(at, _)| at + 1));
        let text = |from: usize| {
            let pieces = self.pieces.iter().skip(from);
            let bytes = pieces.flat_map(|(Piece::Text(text) | Piece::Wildcard(text))| text);
            String::from_utf8(bytes.copied().collect()).ok()
        };
        starts
            .filter_map(text)
            .filter(|text| {
                text.contains(victim) && text.bytes().all(|b| (b' '..=b'~').contains(&b))
            })
            .collect()
    }

    fn error_lines(&self, victim: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for tail in self.tails(victim) {
            // The error log escapes no quotes.
            let tail = tail.replace('\\', "\\\\");
            for (module, field, message) in MESSAGES {
                let wanted = || tail_module(&self.pieces);
                let module = match module {
                    "" => wanted().unwrap_or_else(|| "core:error".to_owned()),
                    module => module.to_owned(),
                };
                if let Some(text) = field.writes(&tail) {
                    let message = message.replace("{}", text);
                    lines.push(format!(
                        "[{ERROR_TIME}] [{module}] [pid 9:tid 9] [client {ATTACKER}:49148] {message}"
                    ));
                }
            }
        }
        lines
    }

    fn access_lines(&self, victim: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for tail in self.tails(victim) {
            if let Some((_, rest)) = tail.split_once("[] \"") {
                lines.extend(
                    ENDS.map(|end| format!("{ATTACKER} - - [{ACCESS_TIME}] \"{rest}{end}")),
                );
            }
            let quoted = tail.split('"').find(|part| part.contains(victim));
            let before_time = tail.split_once(" []").map(|(before, _)| before);
            for part in [Some(tail.as_str()), quoted, before_time]
                .into_iter()
                .flatten()
            {
                let part = part.replace('\\', "\\\\").replace('"', "\\\"");
                for (field, form) in REQUESTS {
                    if let Some(text) = field.writes(&part) {
                        let form = form.replace("TIME", ACCESS_TIME).replace("{}", text);
                        lines.push(format!("{ATTACKER} {form}"));
                    }
                }
            }
        }
        lines
    }
}

/// The module that the pattern spells out behind the time: `core:error`.
fn tail_module(pieces: &[Piece]) -> Option<String> {
    let Piece::Text(text) = pieces.first()? else {
        return None;
    };
    let text = std::str::from_utf8(text).ok()?.strip_prefix("[] [")?;
    Some(text.split_once(']')?.0.to_owned())
}

impl Field {
    /// The text as Apache writes it in this field; `None`: it refuses or changes the text.
    fn writes(self, text: &str) -> Option<&str> {
        let allowed = match self {
            Field::Header | Field::Request => true,
            Field::Url => text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-~:/?[]@!$&'()*+,;=".contains(&b)),
            Field::Path => !text.contains("//") && !text.contains("/."),
            // A colon ends the name.
            Field::User => !text.contains(':'),
        };
        let text = match self {
            Field::Header | Field::Request => text.trim(),
            Field::Url | Field::Path | Field::User => text,
        };
        (allowed && !text.is_empty()).then_some(text)
    }
}

/// Builds a text that a pattern matches.
struct Builder<'h> {
    variant: usize,
    pieces: Vec<Piece>,
    length: usize,
    /// Goes in place of the prefix's `<F-CONTENT>`.
    content: Option<&'h Hir>,
}

impl Builder<'_> {
    fn text(&mut self, text: &[u8]) -> Option<()> {
        self.length += text.len();
        match self.pieces.last_mut() {
            Some(Piece::Text(last)) => last.extend_from_slice(text),
            _ => self.pieces.push(Piece::Text(text.to_vec())),
        }
        (self.length <= LONGEST).then_some(())
    }

    fn add(&mut self, hir: &Hir) -> Option<()> {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => Some(()),
            HirKind::Literal(literal) => self.text(&literal.0),
            HirKind::Class(class) => self.text(&[member(class)?]),
            HirKind::Capture(capture) => match self.content {
                Some(content) if capture.name.as_deref() == Some("content") => {
                    self.content = None;
                    self.add(content)
                }
                _ => self.add(&capture.sub),
            },
            HirKind::Repetition(repetition) => self.repetition(repetition),
            HirKind::Concat(parts) => parts.iter().try_for_each(|part| self.add(part)),
            HirKind::Alternation(branches) => {
                self.add(branches.get(self.variant / 2 % branches.len().max(1))?)
            }
        }
    }

    fn repetition(&mut self, repetition: &Repetition) -> Option<()> {
        let least = usize::try_from(repetition.min).ok()?;
        if let (HirKind::Class(class), None) = (repetition.sub.kind(), repetition.max) {
            let shortest = vec![member(class)?; least.min(LONGEST)];
            self.pieces.push(Piece::Wildcard(shortest));
            return Some(());
        }
        // Optional parts are in every other variant.
        let optional = least == 0 && self.variant % 2 == 1 && repetition.max != Some(0);
        for _ in 0..least.max(usize::from(optional)) {
            self.add(&repetition.sub)?;
        }
        Some(())
    }
}

/// A byte of the class that reads well.
fn member(class: &Class) -> Option<u8> {
    let contains = |byte: &u8| match class {
        Class::Bytes(class) => class.iter().any(|r| (r.start()..=r.end()).contains(byte)),
        Class::Unicode(class) => {
            let c = char::from(*byte);
            class.iter().any(|r| (r.start()..=r.end()).contains(&c))
        }
    };
    let mut good = b"x1X/-_ ".iter().copied().chain(b'!'..=b'~');
    good.find(contains)
}
