//! Explains why one line does not match.

use std::cmp::Reverse;
use std::io::{self, Write};
use std::net::IpAddr;

use super::paint::{self, BAD, DIM, GOOD, HEAD, painted};
use super::rules::TestRule;
use super::verdict::{Cause, Ignored, TestedLine, Tester, Verdict};
use crate::filter::matcher::InputKind;
use crate::filter::rules::RuleNear;
use crate::filter::{Near, PatternAt, Reason};
use crate::record::{Kind, Parser, display};

/// Patterns shown, the nearest first.
const NEAREST: usize = 3;
/// Bytes shown of a part of a pattern or of a line.
const WIDTH: usize = 56;
const NAME: usize = 200;

pub(super) fn print(
    tester: &Tester,
    line: &[u8],
    tested: &TestedLine,
    out: &mut dyn Write,
) -> io::Result<()> {
    let number = tested.line;
    if tested.verdict == Verdict::Match {
        return writeln!(out, "\nLine {number} matches.");
    }
    let (style, word) = (paint::of(tested.verdict), words(tested.verdict));
    writeln!(out, "\nLine {number} {}.", painted(style, word))?;
    if tested.verdict == Verdict::Unparsed {
        return writeln!(out, "{}", unparsed(tester, line));
    }
    let mut nearest: Vec<(&TestRule, Near)> = Vec::new();
    let mut native: Vec<(&TestRule, RuleNear)> = Vec::new();
    for (rule, cause) in tester.causes(line, tested) {
        match cause {
            Cause::Filter(Reason::Near(all)) => {
                nearest.extend(all.into_iter().map(|near| (rule, near)));
            }
            Cause::Filter(Reason::Rules(all)) => {
                native.extend(all.into_iter().map(|near| (rule, near)));
            }
            other => writeln!(
                out,
                "{}: {}",
                rule.name(),
                text_of(rule, tester, line, &other)
            )?,
        }
    }
    nearest.sort_by_key(|(_, near)| Reverse(near.matched.len()));
    for (rule, near) in nearest.iter().take(NEAREST) {
        print_near(rule, near, out)?;
    }
    native.sort_by_key(|(_, near)| near.failed.len());
    for (rule, near) in native.iter().take(NEAREST) {
        print_rule(rule, near, out)?;
    }
    let more = nearest.len().saturating_sub(NEAREST) + native.len().saturating_sub(NEAREST);
    if more > 0 {
        let more = format!("{more} more patterns match no further.");
        writeln!(out, "\n{}", painted(DIM, &more))?;
    }
    Ok(())
}

fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Match => "matches",
        Verdict::Spoof => {
            "is spoofed: a pattern matches, but not with the client that Apache names"
        }
        Verdict::Ignored => "is ignored",
        Verdict::Miss => "is missed",
        Verdict::Unparsed => "is not of the log's format",
    }
}

/// Why a line is not of the format.
fn unparsed(tester: &Tester, line: &[u8]) -> String {
    let InputKind::Apache(kind, parser) = tester.matcher.input() else {
        return String::new();
    };
    let other = match kind {
        Kind::Access => Kind::Error,
        Kind::Error => Kind::Access,
    };
    let is_other = Parser::new(other, "auto").is_ok_and(|parser| parser.parse(line).is_some());
    if is_other {
        return format!("It is a line of the {other} log, but read as one of the {kind} log.");
    }
    if let Some(doubt) = parser.doubt() {
        return format!("The log's format: {doubt}.");
    }
    let format = parser.chosen().unwrap_or("auto");
    let raw = if tester.rules.iter().any(|rule| rule.jail.is_some()) {
        ""
    } else {
        ", or match it as plain text with --kind raw"
    };
    if parser.names_nobody(line) {
        return format!(
            "It is of the {kind} log's format `{format}`, but its client is no address, so it can \
             ban no client: names are never resolved; put %a into the format."
        );
    }
    format!(
        "It does not have the {kind} log's format `{format}`, so its client is unknown. Name its \
         format with --format{raw}."
    )
}

fn text_of(rule: &TestRule, tester: &Tester, line: &[u8], cause: &Cause) -> String {
    let pattern = |number: u32, patterns: &[crate::filter::PatternText]| {
        let at = usize::try_from(number).unwrap_or(0).saturating_sub(1);
        let text = patterns.get(at).map_or("", |pattern| &pattern.text);
        format!("{number} (`{}`)", display(text.as_bytes(), NAME))
    };
    let fail = |number: &u32| format!("failregex {}", pattern(*number, &rule.definition.failregex));
    match cause {
        Cause::Vhost => {
            let record = tester
                .matcher
                .parser()
                .and_then(|parser| parser.parse(line));
            match record.and_then(|record| record.vhost) {
                Some(vhost) => format!(
                    "the jail's `vhost` and `not_vhost` exclude the virtual host `{}`",
                    display(vhost, NAME)
                ),
                None => {
                    "the jail has `vhost`, and the log's format has no virtual host (%v)".to_owned()
                }
            }
        }
        Cause::Torn => "it matches, but perhaps not by Apache's words: the line quotes a script, \
                        holds another line, or comes from an unknown process behind a torn line"
            .to_owned(),
        Cause::Ignored(Ignored::Address(net, host)) => {
            format!("it matches, but {host} is in {net} of the jail's ignoreip")
        }
        Cause::Ignored(Ignored::Regex(number)) => {
            let text = pattern(*number, &rule.definition.ignoreregex);
            format!("it matches, but so does ignoreregex {text}")
        }
        Cause::Ignored(Ignored::Except(number)) => {
            format!("it matches, but so does `[[except]]` {number} of the jail")
        }
        Cause::Filter(Reason::Spoof { pattern, named }) => {
            let named = named
                .as_ref()
                .map_or("another address".to_owned(), |named| {
                    format!("`{}`", display(named, NAME))
                });
            let client = match tester.client(line) {
                Some(client) => format!("Apache names {client} as the client"),
                None => "Apache names no client".to_owned(),
            };
            format!("{} matches only with {named}; {client}", fail(pattern))
        }
        Cause::Filter(Reason::NoFailure(number)) => {
            format!(
                "{} matches, and its <F-NOFAIL> says that this is no failure",
                fail(number)
            )
        }
        Cause::Filter(Reason::NoHost(number)) => {
            format!("{} matches, but with no address for <HOST>", fail(number))
        }
        Cause::Filter(Reason::Limit) => {
            "a pattern with look-around or back references needed more than 2000 steps, or the \
             line has more than 8192 bytes: that is no match"
                .to_owned()
        }
        Cause::Filter(Reason::Near(_) | Reason::Rules(_)) => String::new(),
    }
}

fn print_near(rule: &TestRule, near: &Near, out: &mut dyn Write) -> io::Result<()> {
    let at = near.pattern.map_or(PatternAt::Prefix, PatternAt::Fail);
    let which = near.pattern.map_or("prefregex".to_owned(), |number| {
        format!("failregex {number}")
    });
    title(rule, &which, at, out)?;
    let wanted = display(near.wanted.as_bytes(), WIDTH);
    let Some(rest) = &near.rest else {
        return row("not in the line", BAD, &wanted, out);
    };
    row("matches up to", GOOD, &tail(&near.matched), out)?;
    row("then needs", BAD, &wanted, out)?;
    if rest.is_empty() {
        return row("the line", BAD, "ends here", out);
    }
    row("the line has", BAD, &display(rest, WIDTH), out)?;
    match name(&near.wanted, rest) {
        Some(name) => {
            let text = format!("`{name}` is a name: names are never resolved");
            row("", DIM, &text, out)
        }
        None => Ok(()),
    }
}

fn print_rule(rule: &TestRule, near: &RuleNear, out: &mut dyn Write) -> io::Result<()> {
    let which = format!("match {}", near.rule);
    title(rule, &which, PatternAt::Fail(near.rule), out)?;
    if !near.held.is_empty() {
        row("holds", GOOD, &near.held.join(", "), out)?;
    }
    for unmet in &near.failed {
        let wanted = format!("{} {}", unmet.field, unmet.wanted);
        row(
            "does not hold",
            BAD,
            &display(wanted.as_bytes(), WIDTH),
            out,
        )?;
        let found = unmet.found.as_deref().unwrap_or_default();
        match found.is_empty() {
            true => row("the line has", BAD, "nothing there", out)?,
            false => row("the line has", BAD, &display(found, WIDTH), out)?,
        }
    }
    Ok(())
}

/// The name of a pattern or rule, and its place.
fn title(rule: &TestRule, which: &str, at: PatternAt, out: &mut dyn Write) -> io::Result<()> {
    let definition = &rule.definition;
    let place = definition.pattern(at).map_or(String::new(), |text| {
        let (file, (line, column)) = definition.place(text);
        format!(" ({}:{line}:{column})", file.display())
    });
    let title = painted(HEAD, &format!("{}, {which}", rule.name()));
    writeln!(out, "\n{title}{place}")
}

fn row(name: &str, style: anstyle::Style, text: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "    {name:<16}{}", painted(style, text))
}

/// The end of a text.
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

/// The name of a host in place of an address.
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
