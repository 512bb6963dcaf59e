//! The summary for people: hits of each pattern, and lines of each verdict.

use std::io::{self, Write};

use super::guess;
use super::options::Show;
use super::paint::{self, DIM, HEAD, painted};
use super::rules::TestRule;
use super::verdict::{Ignored, TestedLine, Tester, Verdict};
use crate::filter::PatternText;
use crate::filter::matcher::InputKind;
use crate::record::display;

/// Lines shown of each verdict without `--show`.
const SHOWN: usize = 5;
/// Bytes shown of a line or a pattern, and of a line with `--show`.
const WIDTH: usize = 400;
const WHOLE: usize = 16 << 10;

/// Each verdict, its name for `--show`, and what it means.
const VERDICTS: [(Verdict, &str, &str); 5] = [
    (Verdict::Match, "matched", "matched"),
    (
        Verdict::Spoof,
        "spoof",
        "spoofed: match, but not with the client that Apache names",
    ),
    (Verdict::Ignored, "ignored", "ignored"),
    (Verdict::Miss, "missed", "missed"),
    (
        Verdict::Unparsed,
        "unparsed",
        "unparsed: not of the log's format",
    ),
];

/// Counts of the lines so far.
pub(super) struct Summary<'s> {
    pub(super) matched: u64,
    /// Lines of these verdicts are printed at once.
    show: &'s [Show],
    shown: bool,
    /// The kind of log was not given.
    detected: bool,
    /// A format that reads the first line.
    guessed: Option<String>,
    /// Lines of each verdict, in the order of [`VERDICTS`].
    counts: [u64; VERDICTS.len()],
    /// The first lines of each verdict that is not printed at once.
    first: [Vec<String>; VERDICTS.len()],
    hits: Vec<Hits>,
    times: u64,
    first_time: Option<String>,
    last_time: Option<String>,
}

/// Hits of one rule.
struct Hits {
    /// For each failregex.
    fail: Vec<u64>,
    /// For each ignoreregex.
    ignore: Vec<u64>,
    /// By the jail's ignoreip.
    address: u64,
}

impl Hits {
    fn any(&self) -> bool {
        let counts = self.fail.iter().chain(&self.ignore);
        counts.chain([&self.address]).any(|hits| *hits > 0)
    }
}

impl Summary<'_> {
    pub(super) fn new<'s>(tester: &Tester, show: &'s [Show], detected: bool) -> Summary<'s> {
        let hits = |rule: &TestRule| Hits {
            fail: vec![0; rule.definition.failregex.len()],
            ignore: vec![0; rule.definition.ignoreregex.len()],
            address: 0,
        };
        Summary {
            matched: 0,
            show,
            shown: false,
            detected,
            guessed: None,
            counts: [0; VERDICTS.len()],
            first: Default::default(),
            hits: tester.rules.iter().map(hits).collect(),
            times: 0,
            first_time: None,
            last_time: None,
        }
    }

    /// Counts a line, and prints it if `--show` names its verdict.
    pub(super) fn add(
        &mut self,
        line: &[u8],
        tested: &TestedLine,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        self.matched += u64::from(tested.verdict == Verdict::Match);
        self.times += u64::from(tested.has_time);
        if tested.line == 1 && self.detected {
            self.guessed = guess::format(line);
        }
        if let Some(time) = &tested.time {
            self.first_time.get_or_insert_with(|| time.clone());
            self.last_time = Some(time.clone());
        }
        for found in &tested.matches {
            let hits = self.hits.get_mut(found.rule).map(|hits| &mut hits.fail);
            count(hits, found.pattern);
        }
        for (rule, ignored) in &tested.ignored {
            let hits = self.hits.get_mut(*rule);
            match (ignored, hits) {
                (Ignored::Regex(number), hits) => count(hits.map(|h| &mut h.ignore), *number),
                (Ignored::Address(..), Some(hits)) => hits.address += 1,
                (Ignored::Address(..), None) | (Ignored::Except(_), _) => {}
            }
        }
        let show = self.show.iter().any(|show| shows(*show, tested.verdict));
        let verdicts = VERDICTS.iter().zip(&mut self.counts).zip(&mut self.first);
        for (((verdict, name, _), count), first) in verdicts {
            if *verdict != tested.verdict {
                continue;
            }
            *count += 1;
            let number = tested.line;
            let host = tested
                .host
                .map_or(String::new(), |host| format!("{host}: "));
            if show {
                self.shown = true;
                let name = painted(paint::of(*verdict), name);
                let text = paint::line(line, tested.client.as_ref(), WHOLE);
                writeln!(out, "{number}: {name}: {host}{text}")?;
            } else if first.len() < SHOWN {
                let text = paint::line(line, tested.client.as_ref(), WIDTH);
                first.push(format!("{number}: {host}{text}"));
            }
        }
        Ok(())
    }

    pub(super) fn print(&self, tester: &Tester, out: &mut dyn Write) -> io::Result<()> {
        if self.shown {
            writeln!(out)?;
        }
        self.print_head(tester, out)?;
        let rules = || tester.rules.iter().zip(&self.hits);
        let alone = tester.rules.len() == 1;
        for (rule, hits) in rules().filter(|(_, hits)| alone || hits.any()) {
            print_rule(rule, hits, out)?;
        }
        let none = rules().filter(|(_, hits)| !alone && !hits.any());
        let none: Vec<String> = none.map(|(rule, _)| rule.name()).collect();
        if !none.is_empty() {
            writeln!(out, "\n{} {}", painted(HEAD, "No hits:"), none.join("; "))?;
        }
        for (filter, pattern, times) in tester.matcher.take_limits() {
            writeln!(
                out,
                "\nfilter {filter}: {pattern} hit its limit on steps or length {times} times: no match"
            )?;
        }
        for (((verdict, show, text), count), first) in
            VERDICTS.iter().zip(self.counts).zip(&self.first)
        {
            if count == 0 {
                continue;
            }
            let text = painted(paint::of(*verdict), &format!("{count} {text}"));
            writeln!(out, "\n{text}")?;
            for line in first {
                writeln!(out, "    {line}")?;
            }
            let more = count - first.len() as u64;
            if more > 0 && !first.is_empty() {
                let more = painted(DIM, &format!("... and {more} more: --show {show}"));
                writeln!(out, "    {more}")?;
            }
        }
        let lines = self.counts.iter().sum::<u64>();
        writeln!(out, "\n{} of {lines} lines matched", self.matched)
    }

    fn print_head(&self, tester: &Tester, out: &mut dyn Write) -> io::Result<()> {
        let format = match tester.matcher.input() {
            InputKind::Raw => "raw: not Apache's lines, so the pattern's <HOST> decides".to_owned(),
            InputKind::Apache(kind, parser) => match parser.chosen() {
                Some(format) => format!("{format} ({kind} log)"),
                None => format!("auto ({kind} log): no line has a known format"),
            },
        };
        writeln!(out, "Format: {format}")?;
        match tester.matcher.input() {
            InputKind::Raw if self.detected => {
                let format = match &self.guessed {
                    Some(format) => format!("--format '{format}'"),
                    None => "`--format` with the LogFormat in Apache's configuration".to_owned(),
                };
                writeln!(
                    out,
                    "Live:   Apache's pipe would read none of these lines: for `test` and the \
                     pipe use {format}"
                )?;
            }
            InputKind::Apache(_, parser) => {
                if let Some(doubt) = parser.doubt() {
                    writeln!(out, "Client: none: {doubt}")?;
                }
            }
            InputKind::Raw => {}
        }
        let lines = self.counts.iter().sum::<u64>();
        let times = match (&self.first_time, &self.last_time) {
            (Some(first), Some(last)) if first != last => format!(", {first} to {last}"),
            (Some(time), _) => format!(", {time}"),
            (None, _) if self.times > 0 => ", without a year".to_owned(),
            (None, _) => String::new(),
        };
        writeln!(out, "Times:  {} of {lines} lines{times}", self.times)
    }
}

fn count(hits: Option<&mut Vec<u64>>, number: u32) {
    let at = number
        .checked_sub(1)
        .and_then(|at| usize::try_from(at).ok());
    if let Some(hits) = hits.zip(at).and_then(|(hits, at)| hits.get_mut(at)) {
        *hits += 1;
    }
}

fn print_rule(rule: &TestRule, hits: &Hits, out: &mut dyn Write) -> io::Result<()> {
    let name = painted(HEAD, &rule.name());
    writeln!(out, "\n{name} ({})", rule.definition.file.display())?;
    let definition = &rule.definition;
    print_hits("hits", "pattern", &definition.failregex, &hits.fail, out)?;
    if !definition.ignoreregex.is_empty() {
        let patterns = &definition.ignoreregex;
        print_hits("ignored", "ignoreregex", patterns, &hits.ignore, out)?;
    }
    if hits.address > 0 {
        writeln!(out, "{:>8}  ignored by ignoreip", hits.address)?;
    }
    Ok(())
}

fn print_hits(
    head: &str,
    what: &str,
    patterns: &[PatternText],
    hits: &[u64],
    out: &mut dyn Write,
) -> io::Result<()> {
    let hit = hits.iter().filter(|hits| **hits > 0).count();
    let head = format!("{head:>8}  {what}, {hit} of {}", patterns.len());
    writeln!(out, "{}", painted(DIM, &head))?;
    let numbered = (1..).zip(patterns).zip(hits);
    for ((number, pattern), hits) in numbered.filter(|(_, hits)| **hits > 0) {
        let text = display(pattern.text.as_bytes(), WIDTH);
        writeln!(out, "{hits:>8}  {number}: {text}")?;
    }
    Ok(())
}

/// Whether a value of `--show` names this verdict.
fn shows(show: Show, verdict: Verdict) -> bool {
    match show {
        Show::Matched => verdict == Verdict::Match,
        Show::Missed => verdict == Verdict::Miss,
        Show::Ignored => verdict == Verdict::Ignored,
        Show::Spoof => verdict == Verdict::Spoof,
        Show::Unparsed => verdict == Verdict::Unparsed,
        Show::All => true,
    }
}
