//! One line that does not match, explained.

use std::cmp::Reverse;
use std::io::{self, Write};
use std::net::IpAddr;

use super::judge::{Cause, Ignored, Judge, Rule, Sight, Verdict, Word};
use super::paint::{self, BAD, DIM, GOOD, HEAD, painted};
use crate::filter::{Near, Reason};
use crate::record::{Kind, Parser, display};

/// Patterns shown, the nearest first.
const NEAREST: usize = 3;
/// Bytes shown of a pattern's front, of what it wants, and of what the line has.
const WIDTH: usize = 56;
const NAME: usize = 200;

pub(super) fn print(
    judge: &Judge,
    line: &[u8],
    verdict: &Verdict,
    out: &mut dyn Write,
) -> io::Result<()> {
    let number = verdict.line;
    if verdict.verdict == Word::Match {
        return writeln!(out, "\nLine {number} matches.");
    }
    let (style, word) = (paint::of(verdict.verdict), word(verdict.verdict));
    writeln!(out, "\nLine {number} {}.", painted(style, word))?;
    if verdict.verdict == Word::Unparsed {
        return writeln!(out, "{}", unparsed(judge, line));
    }
    let mut nearest: Vec<(&Rule, Near)> = Vec::new();
    for (rule, cause) in judge.causes(line, verdict) {
        match cause {
            Cause::Filter(Reason::Near(all)) => {
                nearest.extend(all.into_iter().map(|near| (rule, near)));
            }
            other => writeln!(out, "{}: {}", rule.name(), said(rule, judge, line, &other))?,
        }
    }
    nearest.sort_by_key(|(_, near)| Reverse(near.matched.len()));
    for (rule, near) in nearest.iter().take(NEAREST) {
        print_near(rule, near, line, out)?;
    }
    let more = nearest.len().saturating_sub(NEAREST);
    if more > 0 {
        let more = format!("{more} more patterns are no nearer.");
        writeln!(out, "\n{}", painted(DIM, &more))?;
    }
    Ok(())
}

fn word(word: Word) -> &'static str {
    match word {
        Word::Match => "matches",
        Word::Spoof => "hits nobody: a pattern matches only with a false address",
        Word::Ignored => "is ignored",
        Word::Miss => "is missed",
        Word::Unparsed => "cannot be read",
    }
}

/// Why a line cannot be read.
fn unparsed(judge: &Judge, line: &[u8]) -> String {
    let Sight::Apache(kind, parser) = &judge.sight else {
        return String::new();
    };
    let other = match kind {
        Kind::Access => Kind::Error,
        Kind::Error => Kind::Access,
    };
    let is_other = Parser::new(other, "auto").is_ok_and(|parser| parser.parse(line).is_some());
    if is_other {
        return format!("It is a line of the {other} log, and read as one of the {kind} log.");
    }
    if let Some(doubt) = parser.doubt() {
        return format!("The log's format: {doubt}.");
    }
    let format = parser.chosen().unwrap_or("auto");
    let raw = if judge.rules.iter().any(|rule| rule.jail.is_some()) {
        ""
    } else {
        ", or take it as it is with --kind raw"
    };
    if parser.names_nobody(line) {
        return format!(
            "It is of the {kind} log's format `{format}`, but no address stands where the client \
             should, so it can ban nobody: a name is never resolved; put %a into the format."
        );
    }
    format!(
        "It is not wholly of the {kind} log's format `{format}`, so nobody is known to be its \
         client. Name its format with --format{raw}."
    )
}

fn said(rule: &Rule, judge: &Judge, line: &[u8], cause: &Cause) -> String {
    let pattern = |number: u32, patterns: &[crate::filter::PatternText]| {
        let at = usize::try_from(number).unwrap_or(0).saturating_sub(1);
        let text = patterns.get(at).map_or("", |pattern| &pattern.text);
        format!("{number} (`{}`)", display(text.as_bytes(), NAME))
    };
    let fail = |number: &u32| format!("failregex {}", pattern(*number, &rule.definition.failregex));
    match cause {
        Cause::Vhost => "the jail looks at other virtual hosts (vhost, not_vhost)".to_owned(),
        Cause::Before => {
            "alone the line would match; the lines before it make the difference".to_owned()
        }
        Cause::Ignored(Ignored::Address(net, host)) => {
            format!("it would match, but {host} is in {net} of the jail's ignoreip")
        }
        Cause::Ignored(Ignored::Regex(number)) | Cause::Filter(Reason::Ignored(number)) => {
            let text = pattern(*number, &rule.definition.ignoreregex);
            format!("it would match, but so does ignoreregex {text}")
        }
        Cause::Filter(Reason::Spoof {
            pattern,
            named,
            torn,
        }) => {
            let named = named
                .as_ref()
                .map_or("another address".to_owned(), |named| {
                    format!("`{}`", display(named, NAME))
                });
            let client = match judge.client(line) {
                Some(client) => format!("Apache names {client} as the client"),
                None => "Apache names no client here".to_owned(),
            };
            let torn = if *torn {
                "; the line is so long that it may be two, torn and mixed"
            } else {
                ""
            };
            format!(
                "{} matches only with {named}; {client}{torn}",
                fail(pattern)
            )
        }
        Cause::Filter(Reason::NoFailure(number)) => {
            format!(
                "{} matches, and calls it no failure (<F-NOFAIL>)",
                fail(number)
            )
        }
        Cause::Filter(Reason::NoHost(number)) => format!(
            "{} matches, but names no address in this line",
            fail(number)
        ),
        Cause::Filter(Reason::Limit) => {
            "a pattern that looks around or back took too many steps, or the line is too long \
             for it: that is no match"
                .to_owned()
        }
        Cause::Filter(Reason::Near(_)) => String::new(),
    }
}

fn print_near(rule: &Rule, near: &Near, line: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let definition = &rule.definition;
    let (which, text) = match near.pattern {
        Some(number) => {
            let at = usize::try_from(number).unwrap_or(0).saturating_sub(1);
            (format!("failregex {number}"), definition.failregex.get(at))
        }
        None => ("prefregex".to_owned(), definition.prefregex.as_ref()),
    };
    let place = text.map_or(String::new(), |text| {
        let file = text.file.as_ref().unwrap_or(&definition.file);
        format!(" ({}:{}:{})", file.display(), text.line, text.column)
    });
    let title = painted(HEAD, &format!("{}, {which}", rule.name()));
    writeln!(out, "\n{title}{place}")?;
    let mut row =
        |name: &str, style, text: String| writeln!(out, "    {name:<16}{}", painted(style, &text));
    let wanted = display(near.wanted.as_bytes(), WIDTH);
    if near.matched.is_empty() {
        return row("stands nowhere", BAD, wanted);
    }
    row("matches up to", GOOD, tail(&near.matched))?;
    if near.loosely {
        row("leaving aside", DIM, "what looks around or back".to_owned())?;
    }
    let Some(at) = near.at else {
        return Ok(());
    };
    row("then wants", BAD, wanted)?;
    let there = line.get(at..).unwrap_or_default();
    if there.is_empty() {
        return row("the line", BAD, "ends here".to_owned());
    }
    let has = display(there, WIDTH);
    row(&format!("byte {} has", at + 1), BAD, has)?;
    match name(&near.wanted, there) {
        Some(name) => {
            let text =
                format!("`{name}` is a name: only addresses are banned, no name is looked up");
            row("", DIM, text)
        }
        None => Ok(()),
    }
}

/// The end of a pattern's front.
fn tail(text: &str) -> String {
    let start = text.len().saturating_sub(WIDTH);
    let start = text.ceil_char_boundary(start);
    let shown = display(text.get(start..).unwrap_or_default().as_bytes(), 4 * WIDTH);
    if start > 0 {
        format!("...{shown}")
    } else {
        shown
    }
}

/// The name of a host that stands where an address is wanted.
fn name(wanted: &str, there: &[u8]) -> Option<String> {
    let tags = ["<HOST>", "<ADDR>", "<IP4>", "<IP6>"];
    tags.iter().find(|tag| wanted.starts_with(**tag))?;
    let of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b".-".contains(byte);
    let end = there.iter().position(|byte| !of_name(byte));
    let word = std::str::from_utf8(there.get(..end.unwrap_or(there.len()))?).ok()?;
    let named = word.contains('.')
        && word.bytes().any(|byte| byte.is_ascii_alphabetic())
        && word.parse::<IpAddr>().is_err();
    named.then(|| display(word.as_bytes(), NAME))
}
