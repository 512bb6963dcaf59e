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
    /// This text, captured: an address of IPv4 or not.
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

/// For each piece of a pattern that was rewritten: where it is now, and where it was.
pub(super) type Places = Vec<(usize, usize)>;

/// The pattern in Rust's spelling, and how many host tags it holds.
pub(super) fn translate(text: &str, host: Host<'_>) -> (String, usize) {
    let (out, hosts, _) = translate_placed(text, host);
    (out, hosts)
}

/// As [`translate`], with the places of the pieces.
pub(super) fn translate_placed(text: &str, host: Host<'_>) -> (String, usize, Places) {
    let mut out = String::with_capacity(text.len() * 2);
    let mut places = Vec::new();
    let mut hosts = 0;
    let mut skips = 0;
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    let mut in_class = false;
    let mut class_start = false;
    while let Some(c) = rest.chars().next() {
        places.push((out.len(), text.len() - rest.len()));
        if !in_class && let Some((tag, after)) = tag(rest) {
            let whole = rest;
            rest = after;
            match tag {
                Tag::Host(family) => {
                    out.push_str(&replacement(family, host, hosts));
                    hosts += 1;
                }
                Tag::Fixed(pattern) => out.push_str(pattern),
                Tag::SkipLines => {
                    out.push_str(&format!(r"\n(?P<skiplines{skips}>(?:.*\n)*?)"));
                    skips += 1;
                }
                Tag::Open(name) => {
                    out.push_str(&format!("(?P<{}>", group_name(name)));
                    open.push(name);
                }
                // One that closes nothing is text, as in fail2ban.
                Tag::Close(name) if open.contains(&name) => out.push(')'),
                Tag::Close(_) => {
                    out.push_str(whole.get(..whole.len() - after.len()).unwrap_or_default());
                }
            }
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
            '(' if !in_class && rest.starts_with("(?(") => condition(rest),
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
    (out, hosts, places)
}

fn cut(text: &str, at: usize) -> &str {
    text.get(at..).unwrap_or_default()
}

#[derive(Clone, Copy)]
enum Family {
    Both,
    Ip4,
    Ip6,
    /// Both, with or without the length of a prefix behind.
    Subnet,
}

/// What fail2ban puts something in place of.
enum Tag<'t> {
    Host(Family),
    /// A pattern that names nobody.
    Fixed(&'static str),
    SkipLines,
    /// `<F-x>`
    Open(&'t str),
    /// `</F-x>`
    Close(&'t str),
}

/// The tag at the front, and what follows it.
fn tag(text: &str) -> Option<(Tag<'_>, &str)> {
    let (name, after) = text.strip_prefix('<')?.split_once('>')?;
    let tag = match name {
        "HOST" | "ADDR" | "F-ADDR/" => Tag::Host(Family::Both),
        "IP4" | "F-IP4/" => Tag::Host(Family::Ip4),
        "IP6" | "F-IP6/" => Tag::Host(Family::Ip6),
        "SUBNET" | "F-SUBNET/" => Tag::Host(Family::Subnet),
        // A name never becomes a ban.
        "DNS" | "F-DNS/" => Tag::Fixed(r"(?:[\w\-.^]*\w)"),
        "CIDR" | "F-CIDR/" => Tag::Fixed(r"(?:\d+)"),
        "F-ID/" => Tag::Fixed(r"(?P<fid>\S+)"),
        "F-PORT/" => Tag::Fixed(r"(?P<fport>\w+)"),
        "SKIPLINES" => Tag::SkipLines,
        _ => {
            let word =
                |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
            let group = |name: &str| !name.is_empty() && name.bytes().all(word);
            match (name.strip_prefix("F-"), name.strip_prefix("/F-")) {
                (Some(name), _) if group(name) => Tag::Open(name),
                (_, Some(name)) if group(name) => Tag::Close(name),
                _ => return None,
            }
        }
    };
    Some((tag, after))
}

fn group_name(tag: &str) -> String {
    match tag {
        "ID" => "fid".to_owned(),
        "PORT" => "fport".to_owned(),
        _ => tag.to_ascii_lowercase().replace('-', "_"),
    }
}

fn replacement(family: Family, host: Host<'_>, number: usize) -> String {
    let lazy = match host {
        Host::Exact { text, v4 } => {
            let text = format!("(?P<{GROUP}{number}>{})", regex_syntax::escape(text));
            return match (family, v4) {
                (Family::Both, _) => format!(r"(?:\[?{text}\]?)"),
                (Family::Subnet, _) => format!(r"(?:\[?{text}(?:/\d+)?\]?)"),
                (Family::Ip4, true) => format!("(?:{text})"),
                (Family::Ip6, false) => format!(r"(?:\[?{text}\]?)"),
                (Family::Ip4, false) | (Family::Ip6, true) => NEVER.to_owned(),
            };
        }
        Host::Mark { v4 } => {
            return match (family, v4) {
                (Family::Both, _) | (Family::Ip6, false) => r"(?:\[?\n\]?)".to_owned(),
                (Family::Subnet, _) => r"(?:\[?\n(?:/\d+)?\]?)".to_owned(),
                (Family::Ip4, true) => r"\n".to_owned(),
                (Family::Ip4, false) | (Family::Ip6, true) => NEVER.to_owned(),
            };
        }
        Host::Any => "?",
        Host::Longest => "",
    };
    let ip4 = format!("(?P<{GROUP}{number}_4>{IP4})");
    let ip6 = format!(
        r"(?P<{GROUP}{number}_6>(?:(?:[0-9a-fA-F]{{1,4}}::?|:){{1,8}}{lazy}[0-9a-fA-F]{{1,4}}|(?:[0-9a-fA-F]{{1,4}}::?|:){{1,8}}{lazy}:){ZONE})"
    );
    match family {
        Family::Both => format!(r"(?:\[?(?:{ip4}|{ip6})\]?)"),
        Family::Subnet => format!(r"(?:\[?(?:{ip4}|{ip6})(?:/\d+)?\]?)"),
        Family::Ip4 => ip4,
        Family::Ip6 => format!(r"(?:\[?{ip6}\]?)"),
    }
}

/// `(?(name)`: `fancy-regex` has names in `<>` here, and numbers as they are.
fn condition(text: &str) -> (Cow<'_, str>, &str) {
    let Some((name, after)) = cut(text, 3).split_once(')') else {
        return ("(?(".into(), cut(text, 3));
    };
    if name.bytes().all(|b| b.is_ascii_digit()) {
        (format!("(?({name})").into(), after)
    } else {
        (format!("(?(<{name}>)").into(), after)
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
            (r"(?(a)b|c)(?(1)d)", r"(?(<a>)b|c)(?(1)d)"),
            ("<F-USER>u</F-USER></F-X>", "(?P<user>u)</F-X>"),
            ("<F-ID>u</F-ID><F-ALT_USER_1>", "(?P<fid>u)(?P<alt_user_1>"),
            ("a<SKIPLINES>b", r"a\n(?P<skiplines0>(?:.*\n)*?)b"),
        ] {
            assert_eq!(translate(python, Host::Any).0, rust, "{python}");
        }
    }
}
