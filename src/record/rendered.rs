//! A record of the access log in the formats that filters are written for.

use std::io::Write as _;
use std::ops::Range;

use super::fields::{Client, Record};
use super::time::{MONTHS, Stamp};

/// In place of a field that the log's format lacks: no pattern for an empty field matches it.
const MISSING: &[u8] = b"\0";

/// A record as Apache's `vhost_combined` format writes it; without the virtual host and its port
/// it is the `combined` format.
///
/// The client is the one that Apache names, whichever of its fields that is. `%l` is `-` where the
/// format lacks it: without mod_ident Apache writes nothing else. Where `%r` is missing it is made
/// of `%m`, `%U`, `%q` and `%H`. Every other field that the format lacks is one byte 0. The time is
/// in Apache's spelling if the line's times name the day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    text: Vec<u8>,
    /// Where the text in the `combined` format begins.
    combined: usize,
    /// Where the time is in `text`, without brackets.
    time: Range<usize>,
}

impl Rendered {
    /// Renders a record for this client. `line` is the record's line.
    pub fn of(line: &[u8], record: &Record<'_>, client: Client<'_>) -> Rendered {
        let rest = &record.rest;
        let mut text = Vec::with_capacity(line.len() + 64);
        put(&mut text, record.vhost);
        text.push(b':');
        put(&mut text, rest.port);
        text.push(b' ');
        let combined = text.len();
        text.extend_from_slice(client.text);
        text.push(b' ');
        text.extend_from_slice(rest.ident.unwrap_or(b"-"));
        text.push(b' ');
        put(&mut text, record.user);
        text.extend_from_slice(b" [");
        let time = text.len();
        match (&record.stamp, &record.time) {
            (Some(stamp), _) => put_time(&mut text, stamp),
            (None, time) => put(&mut text, time.clone().and_then(|time| line.get(time))),
        }
        let time = time..text.len();
        text.extend_from_slice(b"] \"");
        put_request(&mut text, record);
        text.extend_from_slice(b"\" ");
        put(&mut text, rest.status);
        text.push(b' ');
        put(&mut text, rest.bytes);
        text.extend_from_slice(b" \"");
        put(&mut text, record.referer);
        text.extend_from_slice(b"\" \"");
        put(&mut text, record.agent);
        text.push(b'"');
        Rendered {
            text,
            combined,
            time,
        }
    }

    /// In the `vhost_combined` format, and where the time is in it, without brackets.
    pub fn vhost_combined(&self) -> (&[u8], Range<usize>) {
        (&self.text, self.time.clone())
    }

    /// In the `combined` format, and where the time is in it, without brackets.
    pub fn combined(&self) -> (&[u8], Range<usize>) {
        let text = self.text.get(self.combined..).unwrap_or_default();
        let (from, to) = (self.time.start, self.time.end);
        (text, from - self.combined..to - self.combined)
    }
}

fn put(text: &mut Vec<u8>, field: Option<&[u8]>) {
    text.extend_from_slice(field.unwrap_or(MISSING));
}

fn put_request(text: &mut Vec<u8>, record: &Record<'_>) {
    let rest = &record.rest;
    let (None, Some(path)) = (record.request, rest.path) else {
        return put(text, record.request);
    };
    put(text, rest.method);
    text.push(b' ');
    text.extend_from_slice(path);
    text.extend_from_slice(rest.query.unwrap_or_default());
    text.push(b' ');
    put(text, rest.protocol);
}

/// `22/Nov/2026:11:00:32 +0000`
fn put_time(text: &mut Vec<u8>, stamp: &Stamp) {
    let month = usize::try_from(stamp.month - 1).ok();
    let month = month
        .and_then(|at| MONTHS.get(at))
        .map_or("", |month| std::str::from_utf8(*month).unwrap_or_default());
    let offset = stamp.offset.unwrap_or(0);
    let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.abs() / 60);
    // Writing to a Vec cannot fail.
    let _ = write!(
        text,
        "{:02}/{month}/{:04}:{:02}:{:02}:{:02} {sign}{:02}{:02}",
        stamp.day,
        stamp.year,
        stamp.hour,
        stamp.minute,
        stamp.second,
        minutes / 60,
        minutes % 60,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Kind, Parser};

    const COMBINED: &str = r#"192.0.2.1 - alice [22/Nov/2026:11:00:32 +0100] "GET /a HTTP/1.1" 404 12 "http://x/" "M""#;

    #[test]
    fn a_record_is_rendered_from_whatever_its_format_has() {
        let time = "[22/Nov/2026:11:00:32 +0100]";
        for (format, line, vhost, combined) in [
            ("combined", COMBINED, "\0:\0", COMBINED),
            (
                "vhost_combined",
                &format!("www.example.org:443 {COMBINED}"),
                "www.example.org:443",
                COMBINED,
            ),
            (
                "pipeban",
                &format!(
                    "www.example.org:443 192.0.2.1 198.51.100.9{}",
                    &COMBINED[9..]
                ),
                "www.example.org:443",
                COMBINED,
            ),
            (
                r#"{"c":"%a","u":"%u","t":"%{%Y-%m-%dT%H:%M:%S%z}t","m":"%m","p":"%U%q","s":%>s,"b":"%b","x":"%{X}i","ua":"%{User-Agent}i"}"#,
                r#"{"c":"192.0.2.1","u":"-","t":"2026-11-22T11:00:32+0100","m":"POST","p":"/a?b","s":200,"b":"-","x":"y","ua":"M"}"#,
                "\0:\0",
                &format!("192.0.2.1 - - {time} \"POST /a?b \0\" 200 - \"\0\" \"M\""),
            ),
            (
                r#"%a %{%H:%M}t "%U" "%q" "%H""#,
                r#"192.0.2.1 11:00 "/a" "?b" "HTTP/1.0""#,
                "\0:\0",
                "192.0.2.1 - \0 [11:00] \"\0 /a?b HTTP/1.0\" \0 \0 \"\0\" \"\0\"",
            ),
        ] {
            let parser = Parser::new(Kind::Access, format).unwrap();
            let record = parser.parse(line.as_bytes()).unwrap();
            let rendered = Rendered::of(line.as_bytes(), &record, record.client.unwrap());
            let (text, at) = rendered.combined();
            assert_eq!(String::from_utf8_lossy(text), combined, "{format}");
            let time = String::from_utf8_lossy(&text[at]);
            assert!(time.contains("11:00"), "{time}");
            let (text, at) = rendered.vhost_combined();
            let expected = format!("{vhost} {combined}");
            assert_eq!(String::from_utf8_lossy(text), expected, "{format}");
            assert_eq!(String::from_utf8_lossy(&text[at]), time);
        }
    }
}
