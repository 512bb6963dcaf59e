//! References in values: `%(name)s` and `%%`, then the late tags `<name>`.

use std::collections::BTreeMap;

use super::file::{Fault, Section, Sections, Value, ValueLine};

/// fail2ban's own limit is as deep.
const DEEPEST: usize = 10;
/// Longer than any sensible list of patterns; stops values that double themselves.
const LONGEST: usize = 256 * 1024;
/// Tags replaced in one line: stops tags that lead back to themselves.
const MOST_TAGS: usize = 500;

/// Every file of a filter in one.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// `KNOWN/name` holds what later files replaced in `name`: `%(known/option)s`.
    pub(super) sections: Sections,
    /// Options of the jail, `filter = name[option="value"]`: they come before all else.
    pub(super) given: BTreeMap<String, Value>,
}

impl Merged {
    /// Lays the sections of one more file over those already there.
    pub(super) fn add(&mut self, sections: Sections) {
        for (name, section) in sections {
            // `[Init?family=inet6]` holds options for one kind of address. A filter's patterns are
            // for both: its tags stand for what `[Init]` says.
            let (name, condition) = match name.find('?') {
                Some(at) => name.split_at(at),
                None => (name.as_str(), ""),
            };
            let mut replaced = Section::default();
            let is_first = !self.sections.contains_key(name);
            let merged = self
                .sections
                .entry(name.to_owned())
                .or_insert_with(|| Section {
                    at: section.at,
                    ..Section::default()
                });
            for (option, value) in section.options {
                let option = option + condition;
                if let Some(before) = merged.options.insert(option.clone(), value) {
                    replaced.options.insert(option, before);
                }
            }
            if !is_first && name != "DEFAULT" {
                let known = self.sections.entry(format!("KNOWN/{name}")).or_default();
                known.options.extend(replaced.options);
            }
        }
    }

    /// As for fail2ban's jails on files: `<logtype>` is `file` where neither the jail nor
    /// `[Definition]` says otherwise.
    pub(super) fn say_logtype(&mut self) {
        if own(&self.sections, "Definition", "logtype").is_none() {
            let file = ValueLine {
                text: "file".to_owned(),
                ..ValueLine::default()
            };
            let given = self.given.entry("logtype".to_owned());
            given.or_insert_with(|| vec![file]);
        }
    }

    /// The value of an option with every reference and tag replaced: the jail's, in which `%` is
    /// itself, else that of `[Init]`, else that of `[Definition]`.
    ///
    /// # Errors
    /// The place of the line and what is wrong in it.
    pub(super) fn resolved(&self, option: &str) -> Result<Option<Value>, Fault> {
        let name = option.to_lowercase();
        let section = match own(&self.sections, "Init", &name) {
            Some(_) => "Init",
            None => "Definition",
        };
        let lines = match self.given.get(&name) {
            Some(given) => Some(given.clone()),
            None => self.option(section, option, 0)?,
        };
        let Some(lines) = lines else {
            return Ok(None);
        };
        let mut resolved = Vec::new();
        for line in lines {
            resolved.extend(self.tags_replaced(line)?);
        }
        Ok(Some(resolved))
    }

    /// An option as the files have it, references replaced.
    fn option(&self, section: &str, name: &str, depth: usize) -> Result<Option<Value>, Fault> {
        let Some(value) = self.in_files(section, name) else {
            return Ok(None);
        };
        let mut lines = Vec::with_capacity(value.len());
        for line in value {
            lines.extend(self.interpolated(section, line, depth)?);
        }
        Ok(Some(lines))
    }

    fn in_files(&self, section: &str, name: &str) -> Option<&Value> {
        let name = name.to_lowercase();
        own(&self.sections, section, &name).or_else(|| own(&self.sections, "DEFAULT", &name))
    }

    /// What `%(name)s` in a section stands for, not yet interpolated.
    fn reference(&self, section: &str, name: &str) -> Option<&Value> {
        let Some((of, option)) = name.split_once('/') else {
            let given = (section == "Definition").then(|| self.given.get(&name.to_lowercase()));
            let value = given.flatten().or_else(|| self.in_files(section, name));
            return value.or_else(|| {
                // fail2ban knows these only as tags.
                own(&self.sections, "Init", &name.to_lowercase())
            });
        };
        let option = option.to_lowercase();
        let value = match of.to_lowercase().as_str() {
            "known" => own(&self.sections, &format!("KNOWN/{section}"), &option),
            "default" => None,
            _ => own(&self.sections, of, &option),
        };
        value.or_else(|| own(&self.sections, "DEFAULT", &option))
    }

    /// One line with every reference replaced: several lines where a value has several.
    fn interpolated(&self, section: &str, line: &ValueLine, depth: usize) -> Result<Value, Fault> {
        let mut out = Lines::at(line);
        let mut rest = line.text.as_str();
        while let Some(at) = rest.find('%') {
            let (before, reference) = rest.split_at(at);
            out.push(before);
            let fault = |message: String| {
                let mut place = line.at;
                place.column += line.text.len() - reference.len();
                (place, message)
            };
            if let Some(after) = reference.strip_prefix("%%") {
                out.push("%");
                rest = after;
                continue;
            }
            let (name, after) = reference
                .strip_prefix("%(")
                .and_then(|inside| inside.split_once(")s"))
                .ok_or_else(|| {
                    fault(
                        "a `%` by itself: write `%%` for a per cent sign, `%(name)s` for a value"
                            .to_owned(),
                    )
                })?;
            if name == "__name__" {
                out.push(section);
                rest = after;
                continue;
            }
            let value = self
                .reference(section, name)
                .ok_or_else(|| fault(format!("`%({name})s`: there is no option `{name}`")))?;
            if depth == DEEPEST || out.length > LONGEST {
                return Err(fault(format!(
                    "`%({name})s` leads back to itself or too deep"
                )));
            }
            let mut lines = Vec::new();
            for line in value {
                let more = self.interpolated(section, line, depth + 1);
                // Named where the administrator's own text begins.
                lines.extend(more.map_err(|(_, message)| fault(message))?);
            }
            out.append(lines);
            rest = after;
        }
        out.push(rest);
        Ok(out.lines)
    }

    /// One line with every tag replaced that is an option's name, those inside tags first.
    fn tags_replaced(&self, line: ValueLine) -> Result<Value, Fault> {
        let mut done = Vec::new();
        let mut waiting = vec![line];
        let mut replaced = 0;
        let mut length = 0;
        while let Some(line) = waiting.pop() {
            let mut from = 0;
            let mut found = None;
            while let Some((start, end)) = next_tag(&line.text, from) {
                let name = line.text.get(start + 1..end - 1).unwrap_or_default();
                if let Some(value) = self.tag(name)? {
                    found = Some((start, end, value));
                    break;
                }
                from = start + 1;
            }
            let Some((start, end, value)) = found else {
                length += line.text.len();
                done.push(line);
                continue;
            };
            replaced += 1;
            if replaced > MOST_TAGS || length + line.text.len() > LONGEST {
                let tag = line.text.get(start..end).unwrap_or_default();
                return Err((line.at, format!("`{tag}` leads back to itself or too deep")));
            }
            let mut out = Lines::at(&line);
            out.push(line.text.get(..start).unwrap_or_default());
            out.append(value);
            out.push(line.text.get(end..).unwrap_or_default());
            waiting.extend(out.lines.into_iter().rev());
        }
        Ok(done)
    }

    /// What a tag stands for; `None`: it stays, fail2ban's own among them.
    fn tag(&self, name: &str) -> Result<Option<Value>, Fault> {
        let own_tags = [
            "HOST",
            "ADDR",
            "DNS",
            "IP4",
            "IP6",
            "CIDR",
            "SUBNET",
            "SKIPLINES",
        ];
        if own_tags.contains(&name) || name.starts_with("F-") || name.starts_with("/F-") {
            return Ok(None);
        }
        if let Some(value) = self.given.get(&name.to_lowercase()) {
            return Ok(Some(value.clone()));
        }
        let in_init = |option: &str| -> Result<Option<Value>, Fault> {
            match own(&self.sections, "Init", &option.to_lowercase()) {
                Some(_) => self.option("Init", option, 0),
                None => Ok(None),
            }
        };
        if let Some(value) = in_init(name)? {
            return Ok(Some(value));
        }
        let Some((section, option)) = name.split_once('/') else {
            return self.option("Definition", name, 0);
        };
        if section.eq_ignore_ascii_case("known") {
            if let Some(value) = in_init(option)? {
                return Ok(Some(value));
            }
            let known = match self.sections.contains_key("KNOWN/Definition") {
                true => self.option("KNOWN/Definition", option, 0)?,
                false => None,
            };
            return match known {
                Some(value) => Ok(Some(value)),
                None => self.option("Definition", option, 0),
            };
        }
        if !section.eq_ignore_ascii_case("default") && !self.sections.contains_key(section) {
            return Ok(None);
        }
        self.option(section, option, 0)
    }
}

fn own<'s>(sections: &'s Sections, section: &str, option: &str) -> Option<&'s Value> {
    sections.get(section)?.options.get(option)
}

/// The next `<name>` with no tag inside, from `from` on: its start and end. Names of groups,
/// `(?P<name>`, are none.
fn next_tag(text: &str, mut from: usize) -> Option<(usize, usize)> {
    loop {
        let start = from + text.get(from..)?.find('<')?;
        let inside = text.get(start + 1..)?;
        let end = inside.find([' ', '<', '>'])?;
        from = start + 1;
        if end > 0 && inside.get(end..)?.starts_with('>') {
            let group = text.get(..start)?;
            if !group.ends_with("(?P") && !group.ends_with("(?") {
                return Some((start, start + end + 2));
            }
        }
    }
}

/// Lines being put together, each with the place its text began at.
struct Lines {
    lines: Value,
    length: usize,
}

impl Lines {
    fn at(line: &ValueLine) -> Lines {
        Lines {
            lines: vec![ValueLine {
                text: String::new(),
                at: line.at,
            }],
            length: 0,
        }
    }

    fn push(&mut self, text: &str) {
        self.length += text.len();
        if let Some(last) = self.lines.last_mut() {
            last.text.push_str(text);
        }
    }

    /// The first of `more` goes on with the last line; an empty line takes its place, too.
    fn append(&mut self, more: Value) {
        for (index, line) in more.into_iter().enumerate() {
            self.length += line.text.len();
            match self.lines.last_mut() {
                Some(last) if index == 0 => {
                    if last.text.is_empty() {
                        last.at = line.at;
                    }
                    last.text.push_str(&line.text);
                }
                _ => self.lines.push(line),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::sections;
    use super::*;

    fn merged(files: &[&str], given: &[(&str, &str)]) -> Merged {
        let mut merged = Merged::default();
        for (number, text) in files.iter().enumerate() {
            merged.add(sections(number, text).unwrap());
        }
        for (name, value) in given {
            let line = ValueLine {
                text: (*value).to_owned(),
                ..ValueLine::default()
            };
            merged.given.insert((*name).to_owned(), vec![line]);
        }
        merged
    }

    fn text(merged: &Merged, option: &str) -> Result<Vec<String>, String> {
        let value = merged.resolved(option).map_err(|(_, message)| message)?;
        Ok(value.unwrap().into_iter().map(|line| line.text).collect())
    }

    #[test]
    fn references_are_replaced_and_loops_end() {
        let merged = merged(
            &[
                "[DEFAULT]\na = A\nloop = %(loop)s%(loop)s\n[Init]\nb = B%(a)s\n[other]\no = O%(a)s\n[Definition]\nlist = 1\n  2\n\
               x = x%(B)s%%y\ny = <%(list)s>\nz = %(other/o)s %(default/a)s\ne1 = ab%c\ne2 = a%(no)s\ne3 = %(loop)s\ne4 = %\n",
            ],
            &[],
        );
        assert_eq!(text(&merged, "x").unwrap(), ["xBA%y"]);
        assert_eq!(text(&merged, "Y").unwrap(), ["<1", "2>"]);
        assert_eq!(text(&merged, "z").unwrap(), ["OA A"]);
        for (option, column, word) in [
            ("e1", 8, "`%%`"),
            ("e2", 7, "no option"),
            ("e3", 6, "itself"),
            ("e4", 6, "`%%`"),
        ] {
            let (place, message) = merged.resolved(option).unwrap_err();
            assert!(
                place.column == column && message.contains(word),
                "{option}: {place:?} {message}"
            );
        }
    }

    #[test]
    fn a_later_file_may_go_on_with_what_it_replaces() {
        let merged = merged(
            &[
                "[Definition]\nfailregex = one\n",
                "[Definition]\nfailregex = %(known/failregex)s\n  two\n",
            ],
            &[],
        );
        assert_eq!(text(&merged, "failregex").unwrap(), ["one", "two"]);
        let places: Vec<_> = merged
            .resolved("failregex")
            .unwrap()
            .unwrap()
            .iter()
            .map(|line| (line.at.file, line.at.line))
            .collect();
        assert_eq!(places, [(0, 2), (1, 3)]);
    }

    #[test]
    fn tags_are_replaced_from_the_inside_out_and_the_jails_options_first() {
        let file = "[DEFAULT]\nkind = file\npre = <in_<kind>/pre>\n[in_file]\npre = F<who>\n[in_journal]\npre = %(in_file/pre)sJ\n\
                    [Init]\nmode = init\nself = a<self>\n[Init?family=inet6]\nmode = six\n\
                    [Definition]\nwho = W\nmode = definition\nre-init = I\nre-given = G\n\
                    failregex = <pre> <re-<mode>> <HOST> (?P<who>x) <F-USER>u</F-USER> <none>\nx = <self>\ny = <known/mode>\n";
        assert_eq!(
            text(&merged(&[file], &[]), "failregex").unwrap(),
            ["FW I <HOST> (?P<who>x) <F-USER>u</F-USER> <none>"]
        );
        let given = merged(&[file], &[("mode", "given"), ("kind", "journal")]);
        assert_eq!(
            text(&given, "failregex").unwrap(),
            ["FWJ G <HOST> (?P<who>x) <F-USER>u</F-USER> <none>"]
        );
        assert_eq!(text(&given, "y").unwrap(), ["init"]);
        assert!(text(&given, "x").unwrap_err().contains("itself"));
    }
}
