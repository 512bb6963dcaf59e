//! What people read: which pattern hits how often, and what was missed.

use std::io::{self, Write};

use super::Show;
use super::judge::{Ignored, Judge, Rule, Sight, Verdict, Word};
use super::paint::{self, DIM, HEAD, painted};
use crate::filter::PatternText;
use crate::record::display;

/// Lines shown of each sort where they are not asked for.
const SHOWN: usize = 5;
/// Bytes shown of a line or a pattern, and of a line that was asked for.
const WIDTH: usize = 400;
const WHOLE: usize = 16 << 10;

/// Each verdict, what `--show` calls it, and what it means.
const WORDS: [(Word, &str, &str); 5] = [
    (Word::Match, "matched", "matched"),
    (
        Word::Spoof,
        "spoof",
        "spoofed: match only with an address that is not the client's",
    ),
    (Word::Ignored, "ignored", "ignored"),
    (Word::Miss, "missed", "missed"),
    (
        Word::Unparsed,
        "unparsed",
        "unparsed: not of the log's format",
    ),
];

/// Counted and kept while lines go by.
pub(super) struct Summary<'s> {
    pub(super) matched: u64,
    /// Sorts of which each line is printed as it comes.
    show: &'s [Show],
    shown: bool,
    /// Lines of each verdict, in the order of [`WORDS`].
    counts: [u64; WORDS.len()],
    /// The first lines of each verdict, unless all were printed.
    first: [Vec<String>; WORDS.len()],
    hits: Vec<Hits>,
    times: u64,
    first_time: Option<String>,
    last_time: Option<String>,
}

/// Of one rule.
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
    pub(super) fn new<'s>(judge: &Judge, show: &'s [Show]) -> Summary<'s> {
        let hits = |rule: &Rule| Hits {
            fail: vec![0; rule.definition.failregex.len()],
            ignore: vec![0; rule.definition.ignoreregex.len()],
            address: 0,
        };
        Summary {
            matched: 0,
            show,
            shown: false,
            counts: [0; WORDS.len()],
            first: Default::default(),
            hits: judge.rules.iter().map(hits).collect(),
            times: 0,
            first_time: None,
            last_time: None,
        }
    }

    /// Counts a line, and prints it if such lines are asked for.
    pub(super) fn add(
        &mut self,
        judge: &Judge,
        line: &[u8],
        verdict: &Verdict,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        self.matched += u64::from(verdict.verdict == Word::Match);
        self.times += u64::from(verdict.timed);
        if let Some(time) = &verdict.time {
            self.first_time.get_or_insert_with(|| time.clone());
            self.last_time = Some(time.clone());
        }
        for found in &verdict.matches {
            let hits = self.hits.get_mut(found.rule).map(|hits| &mut hits.fail);
            count(hits, found.pattern);
        }
        for (rule, ignored) in &verdict.ignored {
            let hits = self.hits.get_mut(*rule);
            match (ignored, hits) {
                (Ignored::Regex(number), hits) => count(hits.map(|h| &mut h.ignore), *number),
                (Ignored::Address(..), Some(hits)) => hits.address += 1,
                (Ignored::Address(..), None) => {}
            }
        }
        let show = self.show.iter().any(|show| show.is(verdict.verdict));
        let sorts = WORDS.iter().zip(&mut self.counts).zip(&mut self.first);
        for (((word, name, _), count), first) in sorts {
            if *word != verdict.verdict {
                continue;
            }
            *count += 1;
            let number = verdict.line;
            let host = verdict
                .host
                .map_or(String::new(), |host| format!("{host}: "));
            if show {
                self.shown = true;
                let name = painted(paint::of(*word), name);
                let text = paint::line(line, judge.place(line, verdict).as_ref(), WHOLE);
                writeln!(out, "{number}: {name}: {host}{text}")?;
            } else if first.len() < SHOWN {
                let text = paint::line(line, judge.place(line, verdict).as_ref(), WIDTH);
                first.push(format!("{number}: {host}{text}"));
            }
        }
        Ok(())
    }

    pub(super) fn print(&self, judge: &Judge, out: &mut dyn Write) -> io::Result<()> {
        if self.shown {
            writeln!(out)?;
        }
        self.print_head(judge, out)?;
        let rules = || judge.rules.iter().zip(&self.hits);
        let alone = judge.rules.len() == 1;
        for (rule, hits) in rules().filter(|(_, hits)| alone || hits.any()) {
            print_rule(rule, hits, out)?;
        }
        let none = rules().filter(|(_, hits)| !alone && !hits.any());
        let none: Vec<String> = none.map(|(rule, _)| rule.name()).collect();
        if !none.is_empty() {
            writeln!(out, "\n{} {}", painted(HEAD, "No hits:"), none.join("; "))?;
        }
        for (rule, limits) in rules().map(|(rule, _)| (rule, rule.filter.limits_hit())) {
            if limits > 0 {
                writeln!(
                    out,
                    "\n{}: {limits} times a pattern that looks around or back took too many steps: no match",
                    rule.name()
                )?;
            }
        }
        for (((word, show, text), count), first) in WORDS.iter().zip(self.counts).zip(&self.first) {
            if count == 0 {
                continue;
            }
            let text = painted(paint::of(*word), &format!("{count} {text}"));
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

    fn print_head(&self, judge: &Judge, out: &mut dyn Write) -> io::Result<()> {
        let format = match &judge.sight {
            Sight::Raw => "raw: not as Apache's lines, so the pattern's <HOST> decides".to_owned(),
            Sight::Apache(kind, parser) => match parser.chosen() {
                Some(format) => format!("{format} ({kind} log)"),
                None => format!("auto ({kind} log): no line could be read"),
            },
        };
        writeln!(out, "Format: {format}")?;
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

fn print_rule(rule: &Rule, hits: &Hits, out: &mut dyn Write) -> io::Result<()> {
    let name = painted(HEAD, &rule.name());
    writeln!(out, "\n{name} ({})", rule.definition.file.display())?;
    let definition = &rule.definition;
    print_hits("hits", "failregex", &definition.failregex, &hits.fail, out)?;
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
