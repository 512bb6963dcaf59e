//! References in values: `%(name)s` and `%%`, then the late tags `<name>`.

use std::collections::BTreeMap;

use super::layout::{Fault, Place, Section, Sections, Value, ValueLine};
use crate::nearest::nearest;

/// As in fail2ban.
const DEEPEST: usize = 10;
/// Bytes of one value; stops values that double themselves.
const LONGEST: usize = 256 * 1024;
/// Tags replaced in one line; stops tags that refer to themselves.
const MOST_TAGS: usize = 500;

/// All files of a filter, merged.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// `KNOWN/name` holds the values that later files replaced in `name`: `%(known/option)s`.
    pub(super) sections: Sections,
    /// Options of the jail, `filter = name[option="value"]`: they have precedence.
    pub(super) given: BTreeMap<String, Value>,
}

impl Merged {
    /// Adds a file, whose options replace earlier ones.
    pub(super) fn add(&mut self, sections: Sections) {
        for (name, section) in sections {
            // `[Init?family=inet6]` is for one kind of address, a filter's patterns are for both:
            // its tags refer to `[Init]`.
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

    /// As for fail2ban's jails on files: `<logtype>` is `file` unless the jail or `[Definition]`
    /// sets it.
    pub(super) fn set_logtype(&mut self) {
        if option_in(&self.sections, "Definition", "logtype").is_none() {
            let file = ValueLine {
                text: "file".to_owned(),
                ..ValueLine::default()
            };
            let given = self.given.entry("logtype".to_owned());
            given.or_insert_with(|| vec![file]);
        }
    }

    /// The value of an option with every reference and tag replaced: the jail's, in which `%` is
    /// literal, else that of `[Init]`, else that of `[Definition]`.
    ///
    /// # Errors
    /// The place of the line, and what is wrong.
    pub(super) fn resolved(&self, option: &str) -> Result<Option<Value>, Fault> {
        let name = option.to_lowercase();
        let section = match option_in(&self.sections, "Init", &name) {
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
        match resolved.iter().find_map(|line| self.unfilled(line)) {
            Some(fault) => Err(fault),
            None => Ok(Some(resolved)),
        }
    }

    /// A tag that no option fills. It would stay in the pattern, which then matches no line.
    fn unfilled(&self, line: &ValueLine) -> Option<Fault> {
        let mut from = 0;
        while let Some((start, end)) = next_tag(&line.text, from) {
            from = start + 1;
            let name = line.text.get(start + 1..end - 1)?;
            if is_built_in(name) || !is_name(name) || is_markup(name) {
                continue;
            }
            let selects = self.set().find_map(|(option, value)| {
                let (before, after) = name.split_once(value)?;
                let others: Vec<&str> = self
                    .names()
                    .filter_map(|other| other.strip_prefix(before)?.strip_suffix(after))
                    .collect();
                let right = nearest(value, others.iter().copied()).or(others.first().copied())?;
                Some(format!(
                    "`{option}=\"{value}\"` selects nothing: write `{right}`"
                ))
            });
            let right = nearest(name, self.names().chain(BUILT_IN));
            // Text of a log, such as haproxy's `<NOSRV>`.
            if selects.is_none() && right.is_none() && !name.contains(char::is_lowercase) {
                continue;
            }
            let message = selects.unwrap_or_else(|| {
                let right = right.map_or_else(
                    || format!("write `[<]{name}>` if the text is meant"),
                    |right| format!("write `<{right}>`"),
                );
                format!("no option fills the tag `<{name}>`: {right}")
            });
            return Some((line.at, message));
        }
        None
    }

    /// An option of the jail that the files of the filter neither have nor use.
    pub(super) fn unknown_option(&self, filter: &str) -> Option<Fault> {
        let known =
            |name: &str| FILTER_OPTIONS.contains(&name) || self.files_have(name) || self.uses(name);
        let name = self.given.keys().find(|name| !known(name))?;
        let right = nearest(name, self.files_names())
            .map_or(String::new(), |right| format!(": write `{right}`"));
        let message = format!("filter `{filter}` has no option `{name}`{right}");
        Some((Place::default(), message))
    }

    /// An option of the files that nothing reads and that is spelt nearly like one that is read.
    pub(super) fn misspelt(&self) -> Option<Fault> {
        let read = [
            ("Definition", &["failregex", "ignoreregex", "prefregex"][..]),
            ("INCLUDES", &["before", "after"]),
        ];
        read.into_iter().find_map(|(section, right)| {
            let section = self.sections.get(section)?;
            section.options.iter().find_map(|(name, value)| {
                if right.contains(&name.as_str()) || self.uses(name) {
                    return None;
                }
                let right = nearest(name, right.iter().copied())?;
                let at = value.first().map_or(section.at, |line| line.at);
                Some((at, format!("nothing reads `{name}`: write `{right}`")))
            })
        })
    }

    /// Whether a value refers to an option.
    fn uses(&self, name: &str) -> bool {
        let (tag, reference) = (format!("<{name}>"), format!("%({name})s"));
        let sections = self.sections.values();
        let mut lines = sections.flat_map(|section| section.options.values().flatten());
        lines.any(|line| {
            let text = line.text.to_lowercase();
            text.contains(&tag) || text.contains(&reference)
        })
    }

    fn files_have(&self, name: &str) -> bool {
        self.files_names().any(|known| known == name)
    }

    /// The options of the files that tags refer to.
    fn files_names(&self) -> impl Iterator<Item = &str> {
        let sections = ["Init", "Definition", "DEFAULT"].into_iter();
        let sections = sections.filter_map(|name| self.sections.get(name));
        sections.flat_map(|section| section.options.keys().map(String::as_str))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.given
            .keys()
            .map(String::as_str)
            .chain(self.files_names())
    }

    /// The options with values of one line, the jail's first.
    fn set(&self) -> impl Iterator<Item = (&str, &str)> {
        let sections = ["Init", "Definition", "DEFAULT"].into_iter();
        let sections = sections.filter_map(|name| self.sections.get(name));
        let given = self.given.iter();
        let all = given.chain(sections.flat_map(|section| &section.options));
        all.filter_map(|(name, value)| match value.as_slice() {
            [line] if !line.text.is_empty() => Some((name.as_str(), line.text.as_str())),
            _ => None,
        })
    }

    /// An option of the files, references replaced.
    pub(super) fn option(
        &self,
        section: &str,
        name: &str,
        depth: usize,
    ) -> Result<Option<Value>, Fault> {
        let Some(value) = self.in_files(section, name) else {
            return Ok(None);
        };
        let mut lines = Vec::with_capacity(value.len());
        for line in value {
            lines.extend(self.interpolated(section, line, depth)?);
        }
        Ok(Some(lines))
    }

    pub(super) fn in_files(&self, section: &str, name: &str) -> Option<&Value> {
        let name = name.to_lowercase();
        option_in(&self.sections, section, &name)
            .or_else(|| option_in(&self.sections, "DEFAULT", &name))
    }

    /// The value that `%(name)s` in a section refers to, not yet interpolated.
    fn reference(&self, section: &str, name: &str) -> Option<&Value> {
        let Some((of, option)) = name.split_once('/') else {
            let given = (section == "Definition").then(|| self.given.get(&name.to_lowercase()));
            let value = given.flatten().or_else(|| self.in_files(section, name));
            return value.or_else(|| {
                // fail2ban knows `[Init]` only in tags.
                option_in(&self.sections, "Init", &name.to_lowercase())
            });
        };
        let option = option.to_lowercase();
        let value = match of.to_lowercase().as_str() {
            "known" => option_in(&self.sections, &format!("KNOWN/{section}"), &option),
            "default" => None,
            _ => option_in(&self.sections, of, &option),
        };
        value.or_else(|| option_in(&self.sections, "DEFAULT", &option))
    }

    fn unknown_reference(&self, section: &str, name: &str) -> String {
        let sections = [section, "Init", "DEFAULT"].into_iter();
        let known = sections.filter_map(|section| self.sections.get(section));
        let known = known.flat_map(|section| section.options.keys());
        let message = format!("`%({name})s`: no option `{name}` exists");
        match nearest(name, known.map(String::as_str)) {
            Some(near) => format!("{message}: write `%({near})s`"),
            None => message,
        }
    }

    /// One line with every reference replaced; several lines if a value has several.
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
                        "a single `%`: write `%%` for a per cent sign, `%(name)s` for a value"
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
                .ok_or_else(|| fault(self.unknown_reference(section, name)))?;
            if depth == DEEPEST || out.length > LONGEST {
                return Err(fault(format!(
                    "`%({name})s` refers to itself or nests too deep"
                )));
            }
            let mut lines = Vec::new();
            for line in value {
                let more = self.interpolated(section, line, depth + 1);
                // The place is in the text that the administrator wrote.
                lines.extend(more.map_err(|(_, message)| fault(message))?);
            }
            out.append(lines);
            rest = after;
        }
        out.push(rest);
        Ok(out.lines)
    }

    /// One line with every tag replaced that names an option, the innermost first.
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
                return Err((
                    line.at,
                    format!("`{tag}` refers to itself or nests too deep"),
                ));
            }
            let mut out = Lines::at(&line);
            out.push(line.text.get(..start).unwrap_or_default());
            out.append(value);
            out.push(line.text.get(end..).unwrap_or_default());
            waiting.extend(out.lines.into_iter().rev());
        }
        Ok(done)
    }

    /// The value of a tag; `None`: the tag stays, as fail2ban's built-in ones do.
    fn tag(&self, name: &str) -> Result<Option<Value>, Fault> {
        if is_built_in(name) {
            return Ok(None);
        }
        if let Some(value) = self.given.get(&name.to_lowercase()) {
            return Ok(Some(value.clone()));
        }
        let in_init = |option: &str| -> Result<Option<Value>, Fault> {
            match option_in(&self.sections, "Init", &option.to_lowercase()) {
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

/// Tags for an address, and one for several lines.
const BUILT_IN: [&str; 8] = [
    "HOST",
    "ADDR",
    "DNS",
    "IP4",
    "IP6",
    "CIDR",
    "SUBNET",
    "SKIPLINES",
];

/// What a jail may give every filter. fail2ban's `jail.conf` gives `mode` to filters that have none.
const FILTER_OPTIONS: [&str; 10] = [
    "datepattern",
    "failregex",
    "ignoreregex",
    "journalmatch",
    "logencoding",
    "logtype",
    "maxlines",
    "mode",
    "prefregex",
    "usedns",
];

/// Whether a tag is an address or a group, not for an option.
pub(super) fn is_built_in(name: &str) -> bool {
    BUILT_IN.contains(&name) || name.starts_with("F-") || name.starts_with("/F-")
}

/// Whether text in angle brackets looks like a tag, not like a piece of a pattern.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-/".contains(&b))
}

/// Elements of HTML, which patterns against scripts in requests spell out.
fn is_markup(name: &str) -> bool {
    let elements = [
        "script", "iframe", "img", "svg", "body", "html", "style", "object", "embed",
    ];
    elements
        .iter()
        .any(|element| element.eq_ignore_ascii_case(name))
}

fn option_in<'s>(sections: &'s Sections, section: &str, option: &str) -> Option<&'s Value> {
    sections.get(section)?.options.get(option)
}

/// The start and end of the next `<name>` without a tag inside, from `from` on. Names of groups,
/// `(?P<name>`, are no tags.
pub(super) fn next_tag(text: &str, mut from: usize) -> Option<(usize, usize)> {
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

/// Lines being joined, each with the place where its text began.
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

    /// The first of `more` continues the last line; an empty last line takes its place, too.
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
    use super::super::layout::sections;
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
    fn a_later_file_may_use_the_value_it_replaces() {
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
                    failregex = <pre> <re-<mode>> <HOST> (?P<who>x) <F-USER>u</F-USER> <script>\nx = <self>\ny = <known/mode>\n";
        assert_eq!(
            text(&merged(&[file], &[]), "failregex").unwrap(),
            ["FW I <HOST> (?P<who>x) <F-USER>u</F-USER> <script>"]
        );
        let given = merged(&[file], &[("mode", "given"), ("kind", "journal")]);
        assert_eq!(
            text(&given, "failregex").unwrap(),
            ["FWJ G <HOST> (?P<who>x) <F-USER>u</F-USER> <script>"]
        );
        assert_eq!(text(&given, "y").unwrap(), ["init"]);
        assert!(text(&given, "x").unwrap_err().contains("itself"));
    }
}
