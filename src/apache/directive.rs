//! Reads directives of Apache's configuration: joins lines, splits words, replaces variables.

use std::collections::BTreeMap;

/// One directive of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    /// First line, from 1.
    pub(super) line: usize,
    /// Last line; after `line` if a backslash continues the directive.
    pub(super) last_line: usize,
    /// `ErrorLog`, or `<VirtualHost` and `</VirtualHost` for sections.
    pub(super) name: String,
    /// The rest of the directive, without the `>` of a section.
    pub(super) rest: String,
    /// The blanks between both.
    pub(super) gap: String,
}

impl Directive {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The directive as Apache reads it, where its name is in quotes or a variable; `None`: it is
    /// written as usual.
    pub(super) fn disguised(&self, variables: &BTreeMap<String, String>) -> Option<Directive> {
        if !self.name.contains(['"', '\'', '$']) {
            return None;
        }
        let whole = expand(&[&*self.name, &self.gap, &self.rest].concat(), variables);
        let (_, rest) = after_first(&whole);
        Some(Directive {
            name: words(&whole).into_iter().next().unwrap_or_default(),
            rest: rest.trim().to_owned(),
            ..self.clone()
        })
    }
}

/// All directives of a text, without comments and empty lines.
pub(super) fn directives(text: &str) -> Vec<Directive> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let mut whole = line.to_owned();
        let mut last = index;
        // As in Apache: a backslash at the end joins lines, in comments too.
        while whole.ends_with('\\') {
            whole.pop();
            let Some((index, next)) = lines.next() else {
                break;
            };
            whole.push_str(next);
            last = index;
        }
        let whole = whole.trim();
        if whole.is_empty() || whole.starts_with('#') {
            continue;
        }
        let (name, rest) = whole.split_once([' ', '\t']).unwrap_or((whole, ""));
        let (name, rest) = if name.starts_with('<') {
            (
                name.trim_end_matches('>'),
                rest.trim().trim_end_matches('>'),
            )
        } else {
            (name, rest)
        };
        let gap = whole.get(name.len()..).unwrap_or_default();
        let gap = gap.len() - gap.trim_start().len();
        let gap = whole.get(name.len()..name.len() + gap).unwrap_or_default();
        found.push(Directive {
            gap: gap.to_owned(),
            line: index + 1,
            last_line: last + 1,
            name: name.to_owned(),
            rest: rest.trim().to_owned(),
        });
    }
    found
}

/// Whether the first word is in double quotes, and what follows it, with its blanks.
pub(super) fn after_first(rest: &str) -> (bool, &str) {
    let quotes = rest.starts_with('"');
    if !quotes && !rest.starts_with('\'') {
        return (
            false,
            rest.get(rest.find([' ', '\t']).unwrap_or(rest.len())..)
                .unwrap_or(""),
        );
    }
    let mut escaped = false;
    let quote = if quotes { '"' } else { '\'' };
    let end = rest.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == quote && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    let end = end.map_or(rest.len(), |(at, _)| at + 1);
    (quotes, rest.get(end..).unwrap_or(""))
}

/// A directive's words, as Apache splits them: quotes of either kind enclose a word, and a
/// backslash in them escapes the quote or a backslash.
pub(super) fn words(rest: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut left = rest.trim_start();
    while let Some(first) = left.chars().next() {
        let mut word = String::new();
        if first == '"' || first == '\'' {
            let mut chars = left.char_indices().skip(1);
            let mut end = left.len();
            while let Some((at, c)) = chars.next() {
                if c == first {
                    end = at + 1;
                    break;
                }
                let escaped = left.get(at + 1..).and_then(|next| next.chars().next());
                if c == '\\'
                    && let Some(next) = escaped.filter(|&next| next == first || next == '\\')
                {
                    word.push(next);
                    chars.next();
                } else {
                    word.push(c);
                }
            }
            left = left.get(end..).unwrap_or("");
        } else {
            let end = left.find([' ', '\t']).unwrap_or(left.len());
            word.push_str(left.get(..end).unwrap_or(""));
            left = left.get(end..).unwrap_or("");
        }
        words.push(word);
        left = left.trim_start();
    }
    words
}

/// A word quoted so that [`words`] reads it as one.
pub(super) fn quoted(word: &str) -> String {
    if !word.is_empty() && !word.contains([' ', '\t', '"', '\'', '\\']) {
        return word.to_owned();
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Replaces `${NAME}` if NAME is known, as Apache does.
pub(super) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut left = text;
    while let Some((before, after)) = left.split_once("${") {
        out.push_str(before);
        match after.split_once('}') {
            Some((name, next)) => {
                match variables.get(name) {
                    Some(value) => out.push_str(value),
                    None => {
                        out.push_str("${");
                        out.push_str(name);
                        out.push('}');
                    }
                }
                left = next;
            }
            None => {
                out.push_str("${");
                left = after;
            }
        }
    }
    out.push_str(left);
    out
}

/// The assignments of Debian's `envvars`, which pipeban does not run: `export NAME=value`, with
/// `$NAME` and `${NAME}` replaced; an unknown name is empty, as in the shell.
pub(super) fn envvars(text: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for line in text.lines() {
        let line = line.trim();
        let assignment = line.strip_prefix("export ").unwrap_or(line).trim();
        let Some((name, value)) = assignment.split_once('=') else {
            continue;
        };
        let is_name =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name {
            continue;
        }
        let value = value.trim().trim_matches(['"', '\'']);
        // The only condition in the file: a suffix for further instances of Apache.
        let value = if name == "SUFFIX" {
            String::new()
        } else {
            shell_expand(value, &variables)
        };
        variables.insert(name.to_owned(), value);
    }
    variables
}

fn shell_expand(value: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut left = value;
    while let Some((before, after)) = left.split_once('$') {
        out.push_str(before);
        let (name, next) = match after
            .strip_prefix('{')
            .and_then(|braced| braced.split_once('}'))
        {
            Some(pair) => pair,
            None => {
                let end = after
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(after.len());
                after.split_at(end)
            }
        };
        out.push_str(variables.get(name).map_or("", String::as_str));
        left = next;
    }
    out.push_str(left);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_and_comments_skipped() {
        let found = directives(
            "# x \\\nErrorLog hidden\n\n  ErrorLog \\\n   /a\n<VirtualHost *:80 [::]:80>\n</VirtualHost>\nx\\",
        );
        let short: Vec<_> = found
            .iter()
            .map(|d| (d.line, d.last_line, d.name.as_str(), d.rest.as_str()))
            .collect();
        assert_eq!(
            short,
            [
                (4, 5, "ErrorLog", "/a"),
                (6, 6, "<VirtualHost", "*:80 [::]:80"),
                (7, 7, "</VirtualHost", ""),
                (8, 8, "x", ""),
            ]
        );
    }

    #[test]
    fn words_are_split_as_apache_does() {
        for (rest, expected) in [
            ("a  b", vec!["a", "b"]),
            (
                r#""|/usr/bin/pipeban log access" "%h \"%r\"" x"#,
                vec!["|/usr/bin/pipeban log access", r#"%h "%r""#, "x"],
            ),
            (r"'a b' c", vec!["a b", "c"]),
            (r#""a\\b\c""#, vec![r"a\b\c"]),
            ("\"open", vec!["open"]),
            ("", vec![]),
        ] {
            assert_eq!(words(rest), expected, "{rest}");
        }
    }

    #[test]
    fn debians_envvars_are_read() {
        let text = "unset HOME\nif [ \"${X##/a-}\" != \"${X}\" ] ; then\n\tSUFFIX=\"-${X##/etc/apache2-}\"\nelse\n\tSUFFIX=\nfi\nexport APACHE_LOG_DIR=/var/log/apache2$SUFFIX\n# export LANG=C\nexport A=\"${APACHE_LOG_DIR}/x\"\n";
        let variables = envvars(text);
        assert_eq!(variables["APACHE_LOG_DIR"], "/var/log/apache2");
        assert_eq!(variables["A"], "/var/log/apache2/x");
        assert_eq!(
            expand("${APACHE_LOG_DIR}/e ${NO} ${", &variables),
            "/var/log/apache2/e ${NO} ${"
        );
    }

    proptest::proptest! {
        #[test]
        fn a_quoted_word_is_read_as_one(word in "[ -~]{1,30}") {
            proptest::prop_assert_eq!(words(&quoted(&word)), vec![word]);
        }

        #[test]
        fn nothing_panics(text in ".{0,60}") {
            let _ = words(&text);
            let _ = directives(&text);
            let _ = envvars(&text);
            let _ = expand(&text, &BTreeMap::new());
        }
    }
}
