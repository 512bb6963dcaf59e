//! A LogFormat that reads a line, guessed from its words.

use std::net::IpAddr;

use crate::record::{Kind, Parser};

/// A format that reads this line of an access log and finds its client; `None`: it is not known.
pub(super) fn format(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?.trim_end();
    let mut format = String::new();
    // What comes next behind the request, and before it.
    let mut numbers = ["%>s", "%O"].into_iter();
    let mut texts = ["\\\"%{Referer}i\\\"", "\\\"%{User-Agent}i\\\""].into_iter();
    let mut before = ["%l", "%u"].into_iter();
    let (mut client, mut request) = (false, false);
    for (number, word) in words(line).into_iter().enumerate() {
        let unknown = format!("%{{field{number}}}n");
        let field = match word {
            _ if word.starts_with('[') => "%t".to_owned(),
            _ if !request && word.starts_with('"') && word.contains(" HTTP/") => {
                request = true;
                "\\\"%r\\\"".to_owned()
            }
            _ if word.starts_with('"') => match texts.next().filter(|_| request) {
                Some(text) => text.to_owned(),
                None => format!("\\\"{unknown}\\\""),
            },
            // The first may be what a client says of itself.
            _ if client && !request && word.parse::<IpAddr>().is_ok() => return None,
            _ if !client && word.parse::<IpAddr>().is_ok() => {
                client = true;
                "%h".to_owned()
            }
            _ if word
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok()) =>
            {
                "%v:%p".to_owned()
            }
            _ if !client && !request && is_host_name(word) => "%v".to_owned(),
            _ if request && (word == "-" || word.bytes().all(|b| b.is_ascii_digit())) => {
                numbers.next().map_or(unknown, str::to_owned)
            }
            _ if client && !request => before.next().map_or(unknown, str::to_owned),
            _ => unknown,
        };
        if !format.is_empty() {
            format.push(' ');
        }
        format.push_str(&field);
    }
    let parser = Parser::new(Kind::Access, &format).ok()?;
    parser.parse(line.as_bytes())?.client.map(|_| format)
}

fn is_host_name(word: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    word.contains('.') && word.split('.').all(part)
}

/// Words, texts in quotes, and times in brackets.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let close = match first {
            '"' => Some('"'),
            '[' => Some(']'),
            _ => None,
        };
        let end = close.and_then(|close| {
            let inside = rest.get(1..)?;
            let mut escaped = false;
            let end = inside.find(|c| {
                let ends = c == close && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            })?;
            Some(end + 2)
        });
        let end = end.or_else(|| rest.find(' ')).unwrap_or(rest.len());
        let (word, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        words.push(word);
        rest = after.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guessed_format_reads_its_line() {
        for line in [
            r#"203.0.113.4 - - [20/Jan/2024:11:02:19 +0100] "POST /x HTTP/1.1" 302 580 "-" "M" - a.example:80"#,
            r#"203.0.113.4 - bob [20/Jan/2024:11:02:19 +0100] "GET /x HTTP/2.0" 200 - "-" "a \"b\"" 4711 "x""#,
            r#"shop.example.org 203.0.113.4 - - [20/Jan/2024:11:02:19 +0100] "GET /x HTTP/1.1" 404 9 "-" "M""#,
            r#"a.example:443 2001:db8::7 - - [20/Jan/2024:11:02:19 +0100] "GET / HTTP/1.1" 200 5 0.123 TLSv1.3"#,
        ] {
            assert!(format(line.as_bytes()).is_some(), "{line}");
        }
        let two =
            r#"198.51.100.7 203.0.113.4 - - [20/Jan/2024:11:02:19 +0100] "GET / HTTP/1.1" 200 5"#;
        for line in [
            "",
            "login failed: 192.0.2.1",
            "-",
            "\"",
            "[",
            "\"\u{e9}",
            two,
        ] {
            assert_eq!(format(line.as_bytes()), None, "{line}");
        }
    }
}
