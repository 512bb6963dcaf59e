//! What people read: which pattern hits how often, and what was missed.

use std::io::{self, Write};

use super::judge::{Judge, Sight, Verdict, Word};
use crate::record::display;

/// Lines shown of each sort.
const SHOWN: usize = 5;
/// Characters shown of a line or a pattern.
const WIDTH: usize = 400;

/// Counted and kept while lines go by.
pub(super) struct Summary {
    pub(super) matched: u64,
    /// Lines of each verdict, in the order of [`WORDS`].
    counts: [u64; WORDS.len()],
    /// The first lines of each verdict.
    first: [Vec<String>; WORDS.len()],
    /// For each rule the hits of each of its patterns.
    hits: Vec<Vec<u64>>,
}

const WORDS: [(Word, &str); 5] = [
    (Word::Match, "matched"),
    (
        Word::Spoof,
        "spoofed: match only with an address that is not the client's",
    ),
    (Word::Ignored, "ignored"),
    (Word::Miss, "missed"),
    (Word::Unparsed, "unparsed: not of the log's format"),
];

impl Summary {
    pub(super) fn new(judge: &Judge) -> Summary {
        let patterns = |rule: &super::Rule| vec![0; rule.definition.failregex.len()];
        Summary {
            matched: 0,
            counts: [0; WORDS.len()],
            first: Default::default(),
            hits: judge.rules.iter().map(patterns).collect(),
        }
    }

    pub(super) fn add(&mut self, line: &[u8], verdict: &Verdict) {
        self.matched += u64::from(verdict.verdict == Word::Match);
        let sorts = WORDS.iter().zip(&mut self.counts).zip(&mut self.first);
        for (((word, _), count), first) in sorts {
            if *word != verdict.verdict {
                continue;
            }
            *count += 1;
            if first.len() < SHOWN {
                let host = verdict
                    .host
                    .map_or(String::new(), |host| format!("{host}: "));
                first.push(format!("{}: {host}{}", verdict.line, display(line, WIDTH)));
            }
        }
        for found in &verdict.matches {
            let hits = self.hits.get_mut(found.rule);
            if let Some(hits) = hits.and_then(|h| h.get_mut(found.pattern as usize - 1)) {
                *hits += 1;
            }
        }
    }

    pub(super) fn print(&self, judge: &Judge, out: &mut dyn Write) -> io::Result<()> {
        let format = match &judge.sight {
            Sight::Raw => "raw",
            Sight::Apache(parser) => parser.chosen().unwrap_or("auto: no line could be read"),
        };
        writeln!(out, "Format: {format}")?;
        for (rule, hits) in judge.rules.iter().zip(&self.hits) {
            let jail = rule.jail.as_ref().map(|jail| format!("jail {jail}, "));
            writeln!(
                out,
                "\n{}filter {} ({})\n{:>8}  pattern",
                jail.unwrap_or_default(),
                rule.definition.name,
                rule.definition.file.display(),
                "hits",
            )?;
            for ((number, pattern), hits) in (1..).zip(&rule.definition.failregex).zip(hits) {
                let text = display(pattern.text.as_bytes(), WIDTH);
                writeln!(out, "{hits:>8}  {number}: {text}")?;
            }
            let limits = rule.filter.limits_hit();
            if limits > 0 {
                writeln!(
                    out,
                    "{limits:>8}  times a pattern that looks around or back took too many steps: no match"
                )?;
            }
        }
        for (((_, word), count), first) in WORDS.iter().zip(self.counts).zip(&self.first) {
            if count == 0 {
                continue;
            }
            writeln!(out, "\n{count} {word}")?;
            for line in first {
                writeln!(out, "    {line}")?;
            }
            if count > first.len() as u64 {
                writeln!(out, "    ... and {} more", count - first.len() as u64)?;
            }
        }
        writeln!(
            out,
            "\n{} of {} lines matched",
            self.matched,
            self.counts.iter().sum::<u64>()
        )
    }
}
