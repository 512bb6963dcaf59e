//! Long access lines for patterns that look around or back, which take too long on them.
//!
//! A client can make a line as long as it likes: by a header that no filter looks at, or within the
//! field that one does. So a long field is cut to its beginning, its end, and one part at a time.

use crate::record::{Client, Record, Rendered, Rest};

/// Bytes of a field's beginning: what is anchored there still is.
const HEAD: usize = 300;
/// Bytes of its end, which has the protocol of a request.
const TAIL: usize = 100;
/// Bytes of a part. Five fields that are cut are shorter than [`super::regexes::LONGEST`].
const PART: usize = 1_100;
/// Longer fields are cut.
const WHOLE: usize = HEAD + PART + TAIL;
/// From one part to the next: what is shorter than the difference is whole in one of them.
const STEP: usize = 700;
/// Parts of a field at most: Apache takes 8190 bytes of a client, and logs each as up to four.
const MOST_PARTS: usize = 64;

/// How many parts the longest field has; at least 1.
pub(super) fn parts(record: &Record<'_>) -> usize {
    let longest = fields(record).into_iter().flatten().map(<[u8]>::len).max();
    let beyond = longest.unwrap_or(0).saturating_sub(WHOLE);
    (1 + beyond.div_ceil(STEP)).min(MOST_PARTS)
}

/// The record in other formats, with this part of each long field.
pub(super) fn render(
    line: &[u8],
    record: &Record<'_>,
    client: Client<'_>,
    part: usize,
) -> Rendered {
    let short = fields(record).map(|field| field.map(|text| shorten(text, part)));
    let [
        vhost,
        user,
        request,
        referer,
        agent,
        method,
        path,
        query,
        protocol,
    ] = short.each_ref().map(Option::as_deref);
    let record = Record {
        vhost,
        user,
        request,
        referer,
        agent,
        rest: Rest {
            method,
            path,
            query,
            protocol,
            ..record.rest
        },
        ..record.clone()
    };
    Rendered::of(line, &record, client)
}

/// The fields that clients write.
fn fields<'a>(record: &Record<'a>) -> [Option<&'a [u8]>; 9] {
    let rest = &record.rest;
    [
        record.vhost,
        record.user,
        record.request,
        record.referer,
        record.agent,
        rest.method,
        rest.path,
        rest.query,
        rest.protocol,
    ]
}

fn shorten(text: &[u8], part: usize) -> Vec<u8> {
    let cut = || {
        let (head, rest) = text.split_at_checked(HEAD)?;
        let (middle, tail) = rest.split_at_checked(rest.len().checked_sub(TAIL)?)?;
        // A shorter field stays at its last part.
        let start = (part * STEP).min(middle.len().checked_sub(PART)?);
        Some([head, middle.get(start..start + PART)?, tail].concat())
    };
    cut().unwrap_or_else(|| text.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::regexes::LONGEST;
    use crate::record::{Kind, Parser};
    use proptest::prelude::*;

    proptest! {
        /// Whatever is short and in a field is in one of the texts, and each is short enough.
        #[test]
        fn each_part_of_each_field_is_in_a_text(
            lengths in prop::array::uniform3(0usize..33_000),
            field in 0usize..3,
            at in 0f64..1.0,
        ) {
            let mut texts = lengths.map(|length| vec![b'x'; length]);
            let place = (lengths[field] as f64 * at) as usize;
            texts[field].splice(place..place, *b"/../../bin/sh");
            let [path, referer, agent] = texts.map(|text| String::from_utf8(text).unwrap());
            let line = format!(
                r#"192.0.2.1 - - [22/Nov/2026:11:00:32 +0100] "GET /{path} HTTP/1.1" 404 12 "{referer}" "{agent}""#
            );
            let parser = Parser::new(Kind::Access, "combined").unwrap();
            let record = parser.parse(line.as_bytes()).unwrap();
            let client = record.client.unwrap();
            let rendered: Vec<Rendered> = (0..parts(&record))
                .map(|part| render(line.as_bytes(), &record, client, part))
                .collect();
            let found = rendered
                .iter()
                .any(|text| memchr::memmem::find(text.combined().0, b"/../../bin/sh").is_some());
            prop_assert!(found);
            for text in rendered {
                prop_assert!(text.vhost_combined().0.len() < LONGEST);
                prop_assert!(text.combined().0.ends_with(b"\""));
            }
        }
    }
}
