//! fail2ban's files read and expanded. The input is the text of `f.conf`, then further files; the
//! file `options` has the jail's options, one `name=value` a line.

use std::collections::BTreeMap;
use std::path::Path;

use pipeban::filter::{Definition, Filter, PatternText, read};

use super::files::Files;

/// Longer than what a pattern may grow to, of which there are a thousand at most.
const LONGEST: usize = 2 << 20;

pub(super) fn check(data: &[u8]) {
    let mut files = Files::of("f.conf", data);
    let options = files.texts.remove(Path::new("options")).unwrap_or_default();
    let pairs = options.lines().filter_map(|line| line.split_once('='));
    let options: BTreeMap<String, String> = pairs
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let file = Path::new("f.conf");
    let definition = read("f", file, &options, &files);
    assert!(*files.read.borrow() <= 1000, "includes without end");
    match &definition {
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(!problem.message.is_empty());
                match problem.place {
                    Some((line, column)) => files.assert_place(&problem.file, line, column),
                    None => assert!(files.texts.contains_key(&problem.file)),
                }
            }
        }
        Ok(definition) => {
            assert!(!definition.failregex.is_empty());
            for pattern in patterns(definition) {
                let place = pattern.file.as_deref().unwrap_or(file);
                files.assert_place(place, pattern.line, pattern.column);
                assert!(!pattern.text.trim().is_empty() && pattern.text.len() < LONGEST);
            }
        }
    }
    assert_eq!(definition, read("f", file, &options, &files), "read twice");
    let Ok(mut definition) = definition else {
        return;
    };
    // Compiling is the other target's: a little of it.
    definition.failregex.truncate(2);
    definition.ignoreregex.truncate(2);
    if patterns(&definition).all(|pattern| pattern.text.len() < 100)
        && let Err(problems) = Filter::compile(&definition)
    {
        for problem in problems {
            let (line, column) = problem.place.expect("a pattern has a place");
            files.assert_place(&problem.file, line, column);
        }
    }
}

fn patterns(definition: &Definition) -> impl Iterator<Item = &PatternText> {
    definition.patterns().map(|(_, pattern)| pattern)
}
