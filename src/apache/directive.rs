//! Apache's configuration text into directives: lines joined, words split, variables put in.

use std::collections::BTreeMap;

/// One directive as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    /// First line, from 1.
    pub(super) line: usize,
    /// Last line: later than `line` where lines are continued with a backslash.
    pub(super) last_line: usize,
    /// `ErrorLog`, or `<VirtualHost` and `</VirtualHost` for sections.
    pub(super) name: String,
    /// What follows, as it stands (without the `>` of a section).
    pub(super) rest: String,
}

impl Directive {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// All directives of a text. Comments and empty lines are not among them.
pub(super) fn directives(text: &str) -> Vec<Directive> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let mut whole = line.to_owned();
        let mut last = index;
        // As Apache: a backslash at the very end joins, also in comments.
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
        found.push(Directive {
            line: index + 1,
            last_line: last + 1,
            name: name.to_owned(),
            rest: rest.trim().to_owned(),
        });
    }
    found
}

/// A directive's words, as Apache splits them: quotes of either kind hold a word together, and
/// a backslash in them takes the special meaning of a quote or backslash away.
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

/// A word as it must stand in a directive to be read as this one word.
pub(super) fn quoted(word: &str) -> String {
    if !word.is_empty() && !word.contains([' ', '\t', '"', '\'', '\\']) {
        return word.to_owned();
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

/// `${NAME}` replaced where NAME is known; the rest stays as it stands, as in Apache.
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

/// The assignments of Debian's `envvars`, read as text and never run: `export NAME=value`, with
/// `$NAME` and `${NAME}` put in; a name that was not assigned is empty, as in the shell.
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
        // The one conditional there is: a suffix for second instances, empty for the first.
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
    fn lines_are_joined_and_comments_left_out() {
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
    fn debians_envvars_are_understood() {
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
