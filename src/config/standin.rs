//! Stand-in behind the calls of `crate::filter`, until that room is merged.

use std::io;
use std::path::Path;

use super::Problem;
use crate::filter::{Definition, PatternText};

pub(super) fn read(
    name: &str,
    file: &Path,
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Definition, Vec<Problem>> {
    let text = read(file).map_err(|error| {
        vec![Problem {
            file: file.to_owned(),
            place: None,
            message: format!("cannot be read: {error}"),
        }]
    })?;
    let mut definition = Definition {
        name: name.to_owned(),
        file: file.to_owned(),
        failregex: Vec::new(),
        ignoreregex: Vec::new(),
    };
    let mut key = "";
    for (index, line) in text.lines().enumerate() {
        if line.starts_with(['#', ';', '[']) || line.trim().is_empty() {
            continue;
        }
        let mut value = line;
        if !line.starts_with([' ', '\t'])
            && let Some((name, rest)) = line.split_once('=')
        {
            key = name.trim();
            value = rest;
        }
        let text = value.trim();
        if !text.is_empty() {
            let pattern = PatternText {
                text: text.to_owned(),
                line: index + 1,
                column: line.len() - value.trim_start().len() + 1,
            };
            match key {
                "failregex" => definition.failregex.push(pattern),
                "ignoreregex" => definition.ignoreregex.push(pattern),
                _ => {}
            }
        }
    }
    Ok(definition)
}

pub(super) struct Filter;

impl Filter {
    pub(super) fn compile(definition: &Definition) -> Result<Filter, Vec<Problem>> {
        let problems: Vec<_> = definition
            .failregex
            .iter()
            .chain(&definition.ignoreregex)
            .filter_map(|pattern| {
                let text = pattern
                    .text
                    .replace("<HOST>", r"(?:\S+)")
                    .replace("<ADDR>", r"(?:\S+)");
                let error = regex::bytes::Regex::new(&text).err()?;
                Some(Problem {
                    file: definition.file.clone(),
                    place: Some((pattern.line, pattern.column)),
                    message: error
                        .to_string()
                        .lines()
                        .last()
                        .unwrap_or_default()
                        .to_owned(),
                })
            })
            .collect();
        if problems.is_empty() {
            Ok(Filter)
        } else {
            Err(problems)
        }
    }
}
