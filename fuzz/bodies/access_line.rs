//! LogFormat strings and lines. The first line of the input is the format, the second a line to
//! read as it is, the others are what a client sends, one to each field that it writes.

use pipeban::record::{Kind, Parser, Record, unescape};

const CLIENT: &str = "203.0.113.9";
const PEER: &str = "198.51.100.4";

pub(super) fn check(data: &[u8]) {
    let mut lines = data.split(|b| *b == b'\n');
    let format = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let Ok(parser) = Parser::new(Kind::Access, &format) else {
        return;
    };
    let line = lines.next().unwrap_or_default();
    if let Some(record) = parser.parse(line) {
        assert_within(&record, line);
        assert!(parser.doubt().is_none());
    }
    let _ = Parser::new(Kind::Access, "auto").unwrap().parse(line);
    let mut sent = lines.cycle();
    let Some(rendered) = render(&format, || sent.next().unwrap_or_default().to_vec()) else {
        return;
    };
    let line = rendered.line.as_bytes();
    let Some(record) = parser.parse(line) else {
        return;
    };
    assert_within(&record, line);
    let client = record.client.unwrap();
    let at = client.text.as_ptr().addr() - line.as_ptr().addr();
    assert!(
        rendered.addresses.contains(&at),
        "{format}\n{}\n{client:?}",
        rendered.line
    );
    // A request between quotes is read as it was sent.
    if let (Some(sent), Some(request)) = (&rendered.quoted, record.request) {
        assert_eq!(unescape(request).as_ref(), sent.as_slice(), "{format}");
    }
}

/// Every field is a piece of the line.
fn assert_within(record: &Record<'_>, line: &[u8]) {
    let all = line.as_ptr_range();
    let texts = [record.vhost, record.request, record.agent];
    let client = record.client.map(|client| client.text);
    for text in texts.into_iter().flatten().chain(client) {
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
    /// What the only `%r` holds, where quotes stand around it.
    quoted: Option<Vec<u8>>,
}

/// What Apache writes; `None`: more than this knows of.
fn render(format: &str, mut sent: impl FnMut() -> Vec<u8>) -> Option<Rendered> {
    let mut rendered = Rendered::default();
    let mut requests = 0;
    let mut rest = format;
    while let Some(c) = rest.chars().next() {
        if c == '\\' {
            let (text, length) = match rest.get(1..2) {
                Some("t") => ("\t", 2),
                Some("r") => ("\r", 2),
                Some("\"") => ("\"", 2),
                Some("\\") => ("\\", 2),
                _ => ("\\", 1),
            };
            rendered.line.push_str(text);
            rest = &rest[length..];
            continue;
        }
        if c != '%' {
            rendered.line.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        rest = &rest[1..];
        let mut argument = "";
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || "!,<>".contains(c));
            let Some(inside) = rest.strip_prefix('{') else {
                break;
            };
            (argument, rest) = inside.split_once('}')?;
        }
        let letter = rest.chars().next()?;
        rest = &rest[letter.len_utf8()..];
        match letter {
            'a' | 'h' if argument == "c" => {
                if letter == 'a' {
                    rendered.addresses.push(rendered.line.len());
                }
                rendered.line.push_str(PEER);
            }
            'a' | 'h' => {
                rendered.addresses.push(rendered.line.len());
                rendered.line.push_str(CLIENT);
            }
            't' if argument.is_empty() => rendered.line.push_str("[22/Nov/2026:11:00:32 +0000]"),
            't' => return None,
            'l' | 'X' | 'L' => rendered.line.push('-'),
            'v' => rendered.line.push_str("a.example"),
            'A' => rendered.line.push_str("192.0.2.80"),
            's' | 'b' | 'B' | 'O' | 'I' | 'S' | 'D' | 'k' => rendered.line.push_str("200"),
            'T' | 'p' | 'P' if argument.is_empty() => rendered.line.push_str("443"),
            'T' | 'p' | 'P' | 'R' | 'c' | 'x' | '^' => return None,
            '%' => rendered.line.push('%'),
            'r' => {
                let bytes = sent();
                requests += 1;
                let before = rendered.line.ends_with('"');
                let behind = rest.starts_with('"') || rest.starts_with("\\\"");
                rendered.line.push_str(&escaped(&bytes));
                rendered.quoted = Some(bytes).filter(|_| before && behind && requests == 1);
            }
            _ => match (letter, sent()) {
                ('u', bytes) if bytes.is_empty() => rendered.line.push_str("\"\""),
                (_, bytes) => rendered.line.push_str(&escaped(&bytes)),
            },
        }
    }
    Some(rendered)
}

/// Apache's escaping.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => text.push(char::from(*byte)),
            byte => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}
