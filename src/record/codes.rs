//! Apache's error codes that attacks cause.

/// Codes, and what they say about the request; by Apache 2.4's messages.
pub const ATTACK_CODES: &[(&[&str], &str)] = &[
    (&["AH00026"], "an encoded slash in the path"),
    (&["AH00035", "AH00036"], "a path that Apache cannot open"),
    (&["AH00037"], "a symbolic link that may not be followed"),
    (
        &["AH00126", "AH10244"],
        "a path that leads out of the site, or is wrongly encoded",
    ),
    (&["AH00127"], "a path that cannot be a file's name"),
    (&["AH00128", "AH00130"], "a file that does not exist"),
    (&["AH00132"], "a file that Apache may not read"),
    (
        &["AH00135", "AH02423", "AH03445"],
        "a method that is not one of HTTP",
    ),
    (
        &["AH00550", "AH02415", "AH02416"],
        "a malformed Host header",
    ),
    (
        &["AH00560", "AH00561", "AH00562", "AH00563"],
        "headers that are too long or too many",
    ),
    (&["AH00564", "AH02426", "AH02427"], "a malformed header"),
    (&["AH00565"], "a request line that is too long"),
    (
        &["AH00566", "AH02418", "AH03446", "AH03447", "AH03448"],
        "a malformed request line, or not HTTP",
    ),
    (&["AH00569"], "a request without a Host header"),
    (
        &["AH00687"],
        "a name for which Apache found only similar files",
    ),
    (&["AH01144"], "a request to use this host as a proxy"),
    (&["AH01264", "AH02811"], "a CGI script that does not exist"),
    (&["AH01276"], "a directory without an index"),
    (&["AH01382"], "a request that was sent too slowly"),
    (&["AH01614", "AH01781"], "the wrong kind of authentication"),
    (&["AH01617", "AH01792", "AH01794"], "a wrong password"),
    (&["AH01618", "AH01790"], "a user who does not exist"),
    (
        &["AH01630", "AH01797"],
        "something that the configuration denies to this client",
    ),
    (&["AH01996"], "plain HTTP on the port for HTTPS"),
    (
        &["AH02032"],
        "another site than the TLS connection was opened for",
    ),
    (
        &["AH10410", "AH10411", "AH10508"],
        "a rewritten URL with encoded control characters or question marks",
    ),
];

/// What the code of a line of the error log says, as `CODE: MEANING`; `None`: it has none of
/// [`ATTACK_CODES`].
pub fn meaning(line: &str) -> Option<String> {
    // The first one is Apache's; others can be a client's words.
    let at = line.starts_with('[').then(|| line.find(" AH"))??;
    let code = line
        .get(at + 1..at + 8)
        .filter(|_| line.get(at + 8..at + 10) == Some(": "))?;
    let known = ATTACK_CODES.iter().find(|(codes, _)| codes.contains(&code));
    known.map(|(_, meaning)| format!("{code}: {meaning}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_apaches_own() {
        let head = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 1:tid 2] ";
        for (line, code) in [
            (
                "[client 192.0.2.9:4] AH10244: invalid URI path (/../x)",
                Some("AH10244"),
            ),
            (
                "(36)File name too long: [client 192.0.2.9:4] AH00127: Cannot map",
                Some("AH00127"),
            ),
            ("[client 192.0.2.9:4] AH00094: x, referer: AH10244: y", None),
            ("[client 192.0.2.9:4] PHP Warning: AH10244", None),
            ("[client 192.0.2.9:4] AH10244", None),
        ] {
            let line = format!("{head}{line}");
            let found = meaning(&line);
            assert_eq!(
                found.as_deref().and_then(|text| text.get(..7)),
                code,
                "{line}"
            );
        }
        let access = "192.0.2.9 - - [22/Nov/2026:11:00:32 +0000] \"GET / HTTP/1.1\" 200 1 \"-\" \" AH10244: \"";
        assert_eq!(meaning(access), None);
    }

    #[test]
    fn every_code_is_in_the_table_once() {
        let codes: Vec<&str> = ATTACK_CODES
            .iter()
            .flat_map(|(codes, _)| *codes)
            .copied()
            .collect();
        let mut sorted = codes.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), codes.len());
        assert!(
            codes
                .iter()
                .all(|code| code.len() == 7 && code.starts_with("AH"))
        );
    }
}
