//! `%(name)s` and `%%` in values.

use super::file::{Sections, Value};

/// fail2ban's own limit is as deep.
const DEEPEST: usize = 10;
/// Longer than any sensible list of patterns; stops values that double themselves.
const LONGEST: usize = 256 * 1024;

/// Looks names up as `[Definition]` sees them.
pub(super) struct Names<'a>(pub(super) &'a Sections);

impl Names<'_> {
    /// The value of an option, own section first.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        ["Definition", "Init", "DEFAULT"]
            .iter()
            .find_map(|section| self.0.get(*section)?.options.get(&name.to_lowercase()))
    }

    /// `text` with every reference replaced, of whatever depth.
    ///
    /// # Errors
    /// Offset in `text` and what is wrong there.
    pub(super) fn expand(&self, text: &str) -> Result<String, (usize, String)> {
        let mut out = String::new();
        self.expand_into(text, &mut out, 0)?;
        Ok(out)
    }

    fn expand_into(
        &self,
        text: &str,
        out: &mut String,
        depth: usize,
    ) -> Result<(), (usize, String)> {
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            let (before, reference) = rest.split_at(at);
            out.push_str(before);
            let fault = |message: String| (text.len() - reference.len(), message);
            if let Some(after) = reference.strip_prefix("%%") {
                out.push('%');
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
            if name.contains('/') {
                return Err(fault(format!(
                    "`%({name})s`: references to other sections and to `known/` are not supported yet"
                )));
            }
            let value = self
                .get(name)
                .ok_or_else(|| fault(format!("`%({name})s`: there is no option `{name}`")))?;
            if depth == DEEPEST || out.len() > LONGEST {
                return Err(fault(format!(
                    "`%({name})s` leads back to itself or too deep"
                )));
            }
            for (index, line) in value.iter().enumerate() {
                if index > 0 {
                    out.push('\n');
                }
                self.expand_into(&line.text, out, depth + 1)
                    .map_err(|(_, message)| fault(message))?;
            }
            rest = after;
        }
        out.push_str(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::sections;
    use super::*;

    #[test]
    fn references_are_replaced_and_loops_end() {
        let sections = sections(
            "[DEFAULT]\na = A\nloop = %(loop)s%(loop)s\n[Init]\nb = B%(a)s\n[Definition]\nlist = 1\n  2\n",
        )
        .unwrap();
        let names = Names(&sections);
        assert_eq!(names.expand("x%(B)s%%y").unwrap(), "xBA%y");
        assert_eq!(names.expand("<%(list)s>").unwrap(), "<1\n2>");
        for (text, at, word) in [
            ("ab%c", 2, "`%%`"),
            ("a%(no)s", 1, "no option"),
            ("%(loop)s", 0, "itself"),
            ("%(known/x)s", 0, "not supported yet"),
            ("%", 0, "`%%`"),
        ] {
            let (place, message) = names.expand(text).unwrap_err();
            assert!(place == at && message.contains(word), "{text}: {message}");
        }
    }
}
