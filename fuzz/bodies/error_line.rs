//! ErrorLogFormat strings and lines. The first line of the input is the format, the second a line
//! to read as it is; the third says by its bytes which values there are, the others are what a
//! client sends.

use pipeban::record::{Kind, Parser, Record, second_prefix};

const HEAD: &str = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 9:tid 9] ";
const CLIENT: &str = "[client 203.0.113.9:49108] ";

pub(super) fn check(data: &[u8]) {
    let mut lines = data.split(|b| *b == b'\n');
    let format = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let line = lines.next().unwrap_or_default();
    let there = lines.next().unwrap_or_default();
    let sent = escaped(&lines.collect::<Vec<_>>().join(&b'\n'));
    let default = Parser::new(Kind::Error, "default").unwrap();
    if let Some(record) = default.parse(line) {
        assert_within(&record, line);
    }
    let _ = second_prefix(line);
    // Apache's default, whatever the message holds.
    let own = format!("{HEAD}{CLIENT}{sent}");
    let record = default.parse(own.as_bytes()).unwrap();
    let client = record.client.unwrap();
    assert_eq!(
        client.text.as_ptr().addr() - own.as_ptr().addr(),
        HEAD.len() + "[client ".len()
    );
    let Ok(parser) = Parser::new(Kind::Error, &format) else {
        return;
    };
    if let Some(record) = parser.parse(line) {
        assert_within(&record, line);
    }
    let _ = parser.second_prefix(line);
    let Some(rendered) = render(&format, there, &sent) else {
        return;
    };
    let record = parser.parse(rendered.line.as_bytes());
    if let Some(client) = record.and_then(|record| record.client) {
        let at = client.text.as_ptr().addr() - rendered.line.as_ptr().addr();
        assert!(
            rendered.addresses.contains(&at),
            "{format}\n{}\n{client:?}",
            rendered.line
        );
    }
}

/// Every field is a piece of the line.
fn assert_within(record: &Record<'_>, line: &[u8]) {
    let all = line.as_ptr_range();
    let client = record.client.map(|client| client.text);
    for text in record.vhost.into_iter().chain(client) {
        let part = text.as_ptr_range();
        assert!(all.start <= part.start && part.end <= all.end);
    }
    if let Some(time) = &record.time {
        assert!(time.start <= time.end && time.end <= line.len());
    }
}

#[derive(Default)]
struct Rendered {
    line: String,
    /// Where the client or the peer is.
    addresses: Vec<usize>,
}

/// What Apache writes: field by field, one with an empty value left out. There is a connection.
/// `None`: more than this knows of.
fn render(format: &str, there: &[u8], sent: &str) -> Option<Rendered> {
    let mut rendered = Rendered::default();
    let mut there = there.iter().map(|byte| byte % 2 == 0);
    let (mut field, mut skips) = (0, false);
    let mut rest = format;
    while let Some(c) = rest.chars().next() {
        let separates = c == ' ' || rest.starts_with("% ");
        if separates {
            if !skips {
                field = rendered.line.len();
            }
            skips = false;
        }
        if let Some(after) = rest.strip_prefix("% ") {
            rest = after;
            // What follows begins the field, also where it is a blank.
            continue;
        }
        if c != '%' || rest.starts_with("%%") {
            let (text, length) = match (c, rest.get(1..).and_then(|rest| rest.chars().next())) {
                ('%', _) => ("%".to_owned(), 2),
                ('\\', Some('t')) => ("\t".to_owned(), 2),
                ('\\', Some('n' | 'r')) | ('\\', None) => return None,
                ('\\', Some(c)) => (c.to_string(), 1 + c.len_utf8()),
                (c, _) => (c.to_string(), c.len_utf8()),
            };
            if !skips {
                rendered.line.push_str(&text);
            }
            rest = &rest[length..];
            continue;
        }
        rest = &rest[1..];
        let (mut argument, mut hyphen, mut required, mut level) = ("", false, false, false);
        let letter = loop {
            let c = rest.chars().next()?;
            rest = &rest[c.len_utf8()..];
            match c {
                '{' => (argument, rest) = rest.split_once('}')?,
                '-' => hyphen = true,
                '+' => required = true,
                '0'..='9' => level = true,
                letter => break letter,
            }
        };
        let start = rendered.line.len();
        let (value, address) = match letter {
            'M' => {
                rendered.line.push_str(sent);
                continue;
            }
            _ if skips => continue,
            'a' if argument.starts_with('c') => ("198.51.100.4:80".to_owned(), true),
            'a' => ("203.0.113.9:49108".to_owned(), true),
            'A' => ("192.0.2.80:80".to_owned(), false),
            't' => ("Sun Nov 22 11:00:33.366318 2026".to_owned(), false),
            'l' => ("error".to_owned(), false),
            'P' => ("9".to_owned(), false),
            'm' | 'T' | 'k' | 'L' | 'E' | 'F' | 'v' | 'i' | 'e' | 'n' | 'V' => {
                let value = match letter {
                    _ if !there.next().unwrap_or(true) => String::new(),
                    'm' => "core".to_owned(),
                    'T' | 'k' => "7".to_owned(),
                    'L' => "aZ+/09".to_owned(),
                    'E' => "(36)File name too long".to_owned(),
                    'F' => "core.c(7)".to_owned(),
                    'v' => "a.example".to_owned(),
                    _ => sent.to_owned(),
                };
                (value, false)
            }
            _ => return None,
        };
        if value.is_empty() || level && !there.next().unwrap_or(true) {
            if required {
                return None;
            } else if hyphen {
                rendered.line.push('-');
            } else {
                rendered.line.truncate(field);
                rendered.addresses.retain(|at| *at < field);
                skips = true;
            }
            continue;
        }
        if address {
            rendered.addresses.push(start);
        }
        rendered.line.push_str(&value);
    }
    Some(rendered)
}

/// Apache's escaping in the error log: quotes stay.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(*byte)),
            byte => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}
