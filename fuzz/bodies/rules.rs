//! A native filter. The input is its text; a line `@@ line` begins the access lines that it reads.

use std::path::Path;

use pipeban::filter::rules::{self, RuleSet, Scratch};
use pipeban::record::{Kind, Parser};

use super::files::Files;

pub(super) fn check(data: &[u8]) {
    let mut files = Files::of("f.toml", data);
    let lines = files.texts.remove(Path::new("line")).unwrap_or_default();
    let (file, text) = files.texts.first_key_value().expect("the first");
    let read = rules::read(file, text).and_then(|rules| rules.compile().map(|()| rules));
    let rules = match read {
        Ok(rules) => rules,
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(!problem.message.is_empty());
                if let Some((line, column)) = problem.place {
                    files.assert_place(file, line, column);
                }
            }
            return;
        }
    };
    let count = rules.rules.len();
    let set = RuleSet::compile(&[vec![rules]]);
    let mut used = Scratch::default();
    for kind in [Kind::Access, Kind::Error] {
        let parser = Parser::new(kind, "auto").expect("a known format");
        for line in lines.lines() {
            let Some(record) = parser.parse(line.as_bytes()) else {
                continue;
            };
            let hits = set.evaluate(&record, &mut used);
            let again = set.evaluate(&record, &mut Scratch::default());
            assert_eq!(format!("{hits:?}"), format!("{again:?}"), "{line}");
            assert!(hits.len() <= count);
        }
    }
}
