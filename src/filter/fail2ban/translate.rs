//! Translates a pattern from Python's spelling to Rust's and replaces its `<HOST>`.

use std::borrow::Cow;

use super::spelling::{END, Piece, brace, cut, escape, flags};
use crate::filter::scan::refers_by_number;

/// What replaces `<HOST>`, `<ADDR>`, `<IP4>`, `<IP6>`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Host<'a> {
    /// Any address, captured; IPv6 as short as possible: in the error log a colon and a port
    /// follow.
    Any,
    /// Any address, captured, as long as possible: for lines without a record.
    Longest,
    /// This text, captured; `v4`: an address of IPv4.
    Exact { text: &'a str, v4: bool },
    /// [`MARK`] in place of an address; `v4`: of IPv4.
    Mark { v4: bool },
}

/// A byte that hardly any line holds; not the one of missing fields ([`crate::record::Rendered`]).
pub(crate) const MARK: u8 = 1;
/// The front of the names of groups that hold addresses.
pub(crate) const GROUP: &str = "pipeban_host_";

const IP4: &str = r"(?:::(?:[fF]{4,6}:)?)?(?:[0-9]{1,3}\.){3}[0-9]{1,3}";
const ZONE: &str = r"(?:%[0-9A-Za-z._-]+)?";
/// Matches nothing.
const NEVER: &str = "[a&&b]";

/// The pattern in Rust's spelling, and how many host tags it holds.
pub(crate) fn translate(text: &str, host: Host<'_>) -> (String, usize) {
    let mut out = Out::new(text);
    let mut rest = text;
    let mut in_class = false;
    let mut class_start = false;
    while let Some(c) = rest.chars().next() {
        if !in_class && let Some((tag, after)) = tag(rest) {
            out.tag(&tag, rest, host);
            rest = after;
            continue;
        }
        let plain = |length: usize| (Cow::from(rest.get(..length).unwrap_or_default()), length);
        let (piece, after): Piece<'_> = match c {
            '\\' => match out.reference(rest).filter(|_| !in_class) {
                Some(piece) => piece,
                None => escape(rest, in_class),
            },
            '[' if in_class => (r"\[".into(), cut(rest, 1)),
            ']' if in_class && class_start => (r"\]".into(), cut(rest, 1)),
            '&' | '~' | '#' if in_class => (format!("\\{c}").into(), cut(rest, 1)),
            // With `(?x)` Rust passes over blanks in classes, too.
            ' ' | '\t' | '\n' if in_class => {
                (format!(r"\x{:02x}", u32::from(c)).into(), cut(rest, 1))
            }
            // In Rust `--` in a class takes one class from another.
            '-' if in_class && rest.starts_with("--") => {
                let range = if class_start { r"\--" } else { r"-\-" };
                (range.into(), cut(rest, 2))
            }
            '$' if !in_class => (END.into(), cut(rest, 1)),
            '{' if !in_class => brace(rest),
            '}' if !in_class => (r"\}".into(), cut(rest, 1)),
            '(' if !in_class && rest.starts_with("(?#") => {
                let end = rest.find(')').map_or(rest.len(), |at| at + 1);
                ("".into(), cut(rest, end))
            }
            '(' if !in_class && rest.starts_with("(?(") => out.condition(rest),
            '(' if !in_class => out.group(rest),
            _ => {
                let (piece, length) = plain(c.len_utf8());
                (piece, cut(rest, length))
            }
        };
        let opens = !in_class && c == '[';
        match c {
            ']' if in_class && !class_start => in_class = false,
            '[' if !in_class => in_class = true,
            _ => {}
        }
        // `[^]` and `[]`: the bracket right at the front is one of the characters.
        class_start = opens || (class_start && c == '^' && out.text.ends_with('['));
        out.text.push_str(&piece);
        rest = after;
    }
    (out.global + &out.text, out.hosts)
}

/// The pattern as far as it is translated.
struct Out<'t> {
    text: String,
    /// Flags from the middle of the pattern: in Python they are for all of it.
    global: String,
    hosts: usize,
    /// Names of open `<F-x>`.
    open: Vec<&'t str>,
    /// The groups so far, as fail2ban counts them, by name; only those that have one.
    groups: Vec<Option<String>>,
    /// Some group is referred to by its number, so all need names.
    by_number: bool,
}

impl<'t> Out<'t> {
    fn new(text: &str) -> Out<'t> {
        Out {
            text: String::with_capacity(text.len() * 2),
            global: String::new(),
            hosts: 0,
            open: Vec::new(),
            groups: Vec::new(),
            by_number: refers_by_number(text),
        }
    }

    fn tag(&mut self, tag: &Tag<'t>, rest: &str, host: Host<'_>) {
        match tag {
            Tag::Host(family) => {
                self.text.push_str(&replacement(*family, host, self.hosts));
                self.hosts += 1;
                // fail2ban's <HOST> may be a name, too.
                let groups = match family {
                    Family::Both if rest.starts_with("<HOST>") => 3,
                    Family::Subnet => 3,
                    Family::Both => 2,
                    Family::Ip4 | Family::Ip6 => 1,
                };
                self.groups.extend(std::iter::repeat_n(None, groups));
            }
            Tag::Fixed(pattern) => {
                self.text.push_str(pattern);
                self.groups.push(None);
            }
            Tag::Open(name) => {
                let group = group_name(name);
                self.text.push_str(&format!("(?P<{group}>"));
                self.groups.push(Some(group));
                self.open.push(name);
            }
            Tag::Close(name) if self.open.contains(name) => self.text.push(')'),
            // One that closes nothing is text, as in fail2ban.
            Tag::Close(name) => self.text.push_str(&format!("</F-{name}>")),
        }
    }

    /// What begins with `(`.
    fn group<'r>(&mut self, rest: &'r str) -> Piece<'r> {
        if let Some((flags, ends, after)) = flags(rest) {
            if !ends {
                return (format!("{flags}:").into(), after);
            }
            // Where a group begins they are for the group: fail2ban reads `((?i)x)` as `(?i:x)`.
            let local = ["(", "(?:"].iter().any(|front| self.text.ends_with(front))
                && !self.text.ends_with(r"\(");
            if local {
                return (format!("{flags})").into(), after);
            }
            self.global.push_str(&format!("{flags})"));
            return ("".into(), after);
        }
        if let Some((name, _)) = rest
            .strip_prefix("(?P<")
            .and_then(|named| named.split_once('>'))
        {
            self.groups.push(Some(name.to_owned()));
        } else if !rest.starts_with("(?") {
            let name = format!("pipeban_group_{}", self.groups.len());
            let piece = match self.by_number {
                true => format!("(?P<{name}>").into(),
                false => "(".into(),
            };
            self.groups.push(Some(name));
            return (piece, cut(rest, 1));
        }
        ("(".into(), cut(rest, 1))
    }

    /// `\1`: by name, because ours are other numbers. `None`: it is none, or to a group without one.
    fn reference<'r>(&self, rest: &'r str) -> Option<Piece<'r>> {
        let digits = rest.strip_prefix('\\')?;
        let length = digits
            .bytes()
            .take(2)
            .take_while(u8::is_ascii_digit)
            .count();
        let octal = digits.starts_with('0')
            || (digits.len() > 2 && digits.bytes().take(3).all(|b| (b'0'..=b'7').contains(&b)));
        if length == 0 || octal {
            return None;
        }
        let name = self.numbered(digits.get(..length)?)?;
        Some((format!("(?P={name})").into(), cut(digits, length)))
    }

    fn numbered(&self, digits: &str) -> Option<&str> {
        let at = digits.parse::<usize>().ok()?.checked_sub(1)?;
        self.groups.get(at)?.as_deref()
    }

    /// `(?(name)`: `fancy-regex` has names in `<>` here.
    fn condition<'r>(&self, text: &'r str) -> Piece<'r> {
        let Some((name, after)) = cut(text, 3).split_once(')') else {
            return ("(?(".into(), cut(text, 3));
        };
        match self.numbered(name) {
            Some(name) => (format!("(?(<{name}>)").into(), after),
            None if name.bytes().all(|b| b.is_ascii_digit()) => {
                (format!("(?({name})").into(), after)
            }
            None => (format!("(?(<{name}>)").into(), after),
        }
    }
}

#[derive(Clone, Copy)]
enum Family {
    Both,
    Ip4,
    Ip6,
    /// Both, with or without the length of a prefix behind.
    Subnet,
}

/// What fail2ban replaces in a pattern.
enum Tag<'t> {
    Host(Family),
    /// A pattern that names no client.
    Fixed(&'static str),
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
                (Family::Subnet, _) => format!(r"(?:\[?{text}(?:/[0-9]+)?\]?)"),
                (Family::Ip4, true) => format!("(?:{text})"),
                (Family::Ip6, false) => format!(r"(?:\[?{text}\]?)"),
                (Family::Ip4, false) | (Family::Ip6, true) => NEVER.to_owned(),
            };
        }
        Host::Mark { v4 } => {
            return match (family, v4) {
                (Family::Both, _) | (Family::Ip6, false) => r"(?:\[?\x01\]?)".to_owned(),
                (Family::Subnet, _) => r"(?:\[?\x01(?:/[0-9]+)?\]?)".to_owned(),
                (Family::Ip4, true) => r"\x01".to_owned(),
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
        Family::Subnet => format!(r"(?:\[?(?:{ip4}|{ip6})(?:/[0-9]+)?\]?)"),
        Family::Ip4 => ip4,
        Family::Ip6 => format!(r"(?:\[?{ip6}\]?)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_spellings_become_rusts() {
        for (python, rust) in [
            (r"a{2}b{,3}c{1,}d{x}{", r"a{2}b{0,3}c{1,}d\{x\}\{"),
            (r"[[a]&&[^]b]\Z$", r"[\[a]&&[^\]b](?:\n?\z)(?:$|\n\z)"),
            (r"[]a[&~]", r"[\]a\[\&\~]"),
            (r"[^\]]x", r"[^\]]x"),
            (r"\<a\>\{\[", r"<a>\{\["),
            (r"a(?#note)b(?P<n>c)", r"ab(?P<n>c)"),
            (r"[<HOST>]", r"[<HOST>]"),
            ("\\", "\\"),
            ("{,}", r"\{,\}"),
            (r"[+--][--a]", r"[+-\-][\--a]"),
            (r"(?(a)b|c)(?(1)d)", r"(?(<a>)b|c)(?(1)d)"),
            (r"a(?i)b((?s)c)", r"(?i)ab((?s)c)"),
            (r"(?ia)b(?:(?m)c)(?i:d)", r"(?i-u)b(?:(?m)c)(?i:d)"),
            (r"[ #]\s[^\s\]]", r"[\x20\#][\s\x1c-\x1f][^\s\x1c-\x1f\]]"),
            (
                r"(a)(?P<n>b)(?:c)\1\2(?(1)d)\12\0",
                r"(?P<pipeban_group_0>a)(?P<n>b)(?:c)(?P=pipeban_group_0)(?P=n)(?(<pipeban_group_0>)d)\12\x00",
            ),
            (r"(a)\(b", r"(a)\(b"),
            ("<F-USER>u</F-USER></F-X>", "(?P<user>u)</F-X>"),
            ("<F-ID>u</F-ID><F-ALT_USER_1>", "(?P<fid>u)(?P<alt_user_1>"),
        ] {
            assert_eq!(translate(python, Host::Any).0, rust, "{python}");
        }
    }
}
