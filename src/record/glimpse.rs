//! What a line is about, in a few words; for people only, no decision depends on it.

use super::display;

/// Of any log line, at most `max` bytes: the request of an access line, the message of an error
/// line behind its client, else the line's beginning.
pub fn glimpse(line: &str, max: usize) -> String {
    let text = if line.starts_with('[') {
        message(line).unwrap_or(line)
    } else {
        request(line).unwrap_or(line)
    };
    display(text.as_bytes(), max)
}

/// Behind `[client ADDRESS] `.
fn message(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("[client ")?;
    let (_, message) = rest.split_once("] ")?;
    Some(message)
}

/// The first quoted text that is a request; where none is, the first quoted one.
fn request(line: &str) -> Option<&str> {
    // In a line of JSON the keys are quoted too.
    let mut quoted = line.split('"').skip(1);
    let first = quoted.clone().next()?;
    Some(quoted.find(|text| is_request(text)).unwrap_or(first))
}

fn is_request(text: &str) -> bool {
    let Some((method, rest)) = text.split_once(' ') else {
        return false;
    };
    let is_method = method.bytes().all(|b| b.is_ascii_uppercase()) && !method.is_empty();
    is_method && !rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_messages_are_found_in_any_format() {
        for (line, expected) in [
            (
                r#"192.0.2.7 - - [22/Nov/2026:11:00:32 +0000] "GET /a?b HTTP/1.1" 404 5 "-" "x y""#,
                "GET /a?b HTTP/1.1",
            ),
            (
                r#"{"ip":"192.0.2.7","r":"POST /xmlrpc.php HTTP/1.1","s":200}"#,
                "POST /xmlrpc.php HTTP/1.1",
            ),
            (
                r#"192.0.2.7 - - [22/Nov/2026:11:00:32 +0000] "\x16\x03\x01" 400 5 "-" "-""#,
                r"\x16\x03\x01",
            ),
            (
                "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 1:tid 2] [client 192.0.2.7:4] \
                 AH10244: invalid URI path (/%2e)",
                "AH10244: invalid URI path (/%2e)",
            ),
            ("[notice] no client", "[notice] no client"),
            ("", ""),
        ] {
            assert_eq!(glimpse(line, 60), expected, "{line}");
        }
        assert_eq!(glimpse(&"x".repeat(100), 60).len(), 60);
    }
}
