//! A pattern in Python's spelling into Rust's, with something put in place of its `<HOST>`.

use std::borrow::Cow;

/// What is put in place of `<HOST>`, `<ADDR>`, `<IP4>`, `<IP6>`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Host<'a> {
    /// Any address, captured, the IPv6 part no longer than needed: in the error log a port
    /// follows it behind one more colon.
    Any,
    /// Any address, captured, as long as can be: for lines no record is known for.
    Longest,
    /// This text: an address of IPv4 or not.
    Exact { text: &'a str, v4: bool },
    /// A newline, which stands in no line: it marks where an address of IPv4, or not, is.
    Mark { v4: bool },
}

/// Names of the groups that hold addresses begin so.
pub(super) const GROUP: &str = "pipeban_host_";

const IP4: &str = r"(?:::(?:[fF]{4,6}:)?)?(?:\d{1,3}\.){3}\d{1,3}";
const ZONE: &str = r"(?:%[0-9A-Za-z._-]+)?";
/// Matches nothing.
const NEVER: &str = "[a&&b]";

/// The pattern for `regex::bytes`, and how many host tags it holds.
pub(super) fn translate(text: &str, host: Host<'_>) -> (String, usize) {
    let mut out = String::with_capacity(text.len() * 2);
    let mut hosts = 0;
    let mut rest = text;
    let mut in_class = false;
    let mut class_start = false;
    while let Some(c) = rest.chars().next() {
        if !in_class && let Some((tag, after)) = tag(rest) {
            out.push_str(&replacement(tag, host, hosts));
            hosts += 1;
            rest = after;
            continue;
        }
        let (piece, after): (Cow<'_, str>, &str) = match c {
            '\\' => escape(rest),
            '[' if in_class => (r"\[".into(), cut(rest, 1)),
            ']' if in_class && class_start => (r"\]".into(), cut(rest, 1)),
            '&' | '~' if in_class => (format!("\\{c}").into(), cut(rest, 1)),
            // In Rust `--` in a class takes one class from another.
            '-' if in_class && rest.starts_with("--") => {
                let range = if class_start { r"\--" } else { r"-\-" };
                (range.into(), cut(rest, 2))
            }
            '{' if !in_class => brace(rest),
            '}' if !in_class => (r"\}".into(), cut(rest, 1)),
            '(' if !in_class && rest.starts_with("(?#") => {
                let end = rest.find(')').map_or(rest.len(), |at| at + 1);
                ("".into(), cut(rest, end))
            }
            _ => {
                let length = c.len_utf8();
                (
                    rest.get(..length).unwrap_or_default().into(),
                    cut(rest, length),
                )
            }
        };
        let opens = !in_class && c == '[';
        match c {
            ']' if in_class && !class_start => in_class = false,
            '[' if !in_class => in_class = true,
            _ => {}
        }
        // `[^]` and `[]`: the bracket right at the front is one of the characters.
        class_start = opens || (class_start && c == '^' && out.ends_with('['));
        out.push_str(&piece);
        rest = after;
    }
    (out, hosts)
}

fn cut(text: &str, at: usize) -> &str {
    text.get(at..).unwrap_or_default()
}

#[derive(Clone, Copy)]
enum Tag {
    Both,
    Ip4,
    Ip6,
}

fn tag(text: &str) -> Option<(Tag, &str)> {
    [
        ("<HOST>", Tag::Both),
        ("<ADDR>", Tag::Both),
        ("<IP4>", Tag::Ip4),
        ("<IP6>", Tag::Ip6),
    ]
    .into_iter()
    .find_map(|(name, tag)| Some((tag, text.strip_prefix(name)?)))
}

fn replacement(tag: Tag, host: Host<'_>, number: usize) -> String {
    let lazy = match host {
        Host::Exact { text, v4 } => {
            let text = regex_syntax::escape(text);
            return match (tag, v4) {
                (Tag::Both | Tag::Ip4, true) => format!("(?:{text})"),
                (Tag::Both | Tag::Ip6, false) => format!(r"(?:\[?{text}\]?)"),
                (Tag::Ip4, false) | (Tag::Ip6, true) => NEVER.to_owned(),
            };
        }
        Host::Mark { v4 } => {
            return match (tag, v4) {
                (Tag::Both | Tag::Ip4, true) => r"\n".to_owned(),
                (Tag::Both | Tag::Ip6, false) => r"(?:\[?\n\]?)".to_owned(),
                (Tag::Ip4, false) | (Tag::Ip6, true) => NEVER.to_owned(),
            };
        }
        Host::Any => "?",
        Host::Longest => "",
    };
    let ip4 = format!("(?P<{GROUP}{number}_4>{IP4})");
    let ip6 = format!(
        r"\[?(?P<{GROUP}{number}_6>(?:(?:[0-9a-fA-F]{{1,4}}::?|:){{1,8}}{lazy}[0-9a-fA-F]{{1,4}}|(?:[0-9a-fA-F]{{1,4}}::?|:){{1,8}}{lazy}:){ZONE})\]?"
    );
    match tag {
        Tag::Both => format!("(?:{ip4}|{ip6})"),
        Tag::Ip4 => ip4,
        Tag::Ip6 => format!("(?:{ip6})"),
    }
}

/// What Python's escapes mean and Rust's do not.
fn escape(text: &str) -> (Cow<'_, str>, &str) {
    let mut chars = text.chars();
    chars.next();
    let escaped = chars.next();
    let rest = chars.as_str();
    let piece = match escaped {
        // In Rust these two are ends of words.
        Some(c @ ('<' | '>')) => c.to_string().into(),
        Some('Z') => r"\z".into(),
        Some(c) => text.get(..1 + c.len_utf8()).unwrap_or(text).into(),
        None => text.into(),
    };
    (piece, rest)
}

/// A `{` that begins no count is itself; `{,n}` counts from 0.
fn brace(text: &str) -> (Cow<'_, str>, &str) {
    let literal = || (Cow::from(r"\{"), cut(text, 1));
    let Some((count, after)) = cut(text, 1).split_once('}') else {
        return literal();
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    match count.split_once(',') {
        Some((low, high)) if digits(low) && digits(high) && count != "," => {
            let low = if low.is_empty() { "0" } else { low };
            (format!("{{{low},{high}}}").into(), after)
        }
        None if !count.is_empty() && digits(count) => (format!("{{{count}}}").into(), after),
        _ => literal(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_spellings_become_rusts() {
        for (python, rust) in [
            (r"a{2}b{,3}c{1,}d{x}{", r"a{2}b{0,3}c{1,}d\{x\}\{"),
            (r"[[a]&&[^]b]\Z", r"[\[a]&&[^\]b]\z"),
            (r"[]a[&~]", r"[\]a\[\&\~]"),
            (r"[^\]]x", r"[^\]]x"),
            (r"\<a\>\{\[", r"<a>\{\["),
            (r"a(?#note)b(?P<n>c)", r"ab(?P<n>c)"),
            (r"[<HOST>]", r"[<HOST>]"),
            ("\\", "\\"),
            ("{,}", r"\{,\}"),
            (r"[+--][--a]", r"[+-\-][\--a]"),
        ] {
            assert_eq!(translate(python, Host::Any).0, rust, "{python}");
        }
    }
}
