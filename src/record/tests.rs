use proptest::prelude::*;

use super::*;

fn access(format: &str) -> Parser {
    Parser::new(Kind::Access, format).unwrap()
}

fn text(bytes: Option<&[u8]>) -> Option<&str> {
    bytes.map(|b| std::str::from_utf8(b).unwrap())
}

#[test]
fn auto_decides_by_the_first_line_and_stays_with_it() {
    let tail = r#"- - [22/Nov/2026:11:00:32 +0000] "GET / HTTP/1.1" 200 281"#;
    let more = r#""-" "Mozilla/5.0""#;
    for (name, line) in [
        (
            "pipeban",
            format!("a.example:80 192.0.2.1 198.51.100.2 {tail} {more}"),
        ),
        (
            "vhost_combined",
            format!("a.example:80 192.0.2.1 {tail} {more}"),
        ),
        ("combined", format!("192.0.2.1 {tail} {more}")),
        ("vhost_common", format!("a.example:80 192.0.2.1 {tail}")),
        ("common", format!("192.0.2.1 {tail}")),
        ("combined", format!("2001:db8::77:5555 {tail} {more}")),
    ] {
        let parser = access("auto");
        assert_eq!(parser.chosen(), None);
        assert_eq!(parser.parse(b"no log line"), None);
        let record = parser.parse(line.as_bytes()).expect(name);
        assert_eq!(parser.chosen(), Some(name));
        assert!(record.client.is_some(), "{name}");
        assert_eq!(record.status, Some(200));
        assert_eq!(text(record.request), Some("GET / HTTP/1.1"));
        assert_eq!(record.peer.is_some(), name == "pipeban");
        let vhosts = name.starts_with("vhost") || name == "pipeban";
        assert_eq!(text(record.vhost), vhosts.then_some("a.example"), "{name}");
        let other = if name == "common" {
            "x:1 1.2.3.4 - -"
        } else {
            tail
        };
        assert_eq!(parser.parse(other.as_bytes()), None, "{name}");
    }
}

#[test]
fn a_hostile_first_line_does_not_make_auto_choose_another_format() {
    let tail = r#"[22/Nov/2026:11:00:32 +0000] "GET / HTTP/1.1" 401 281 "-" "-""#;
    for user in [
        "us er",
        "192.0.2.7 x",
        "- -",
        "- - -",
        "192.0.2.7 192.0.2.8 - -",
        "x [22/Nov/2026:11:00:32 +0000]",
        r#"x [22/Nov/2026:11:00:32 +0000] \"GET / HTTP/1.1\" 200 5"#,
    ] {
        for (name, head) in [
            ("vhost_combined", "a.example:80 203.0.113.9 - "),
            ("combined", "203.0.113.9 - "),
        ] {
            let parser = access("auto");
            let line = format!("{head}{user} {tail}");
            let record = parser.parse(line.as_bytes()).unwrap();
            assert_eq!(record.client.unwrap().text, b"203.0.113.9", "{line}");
            assert_eq!(parser.chosen(), Some(name), "{line}");
        }
    }
}

#[test]
fn odd_lines_parse() {
    let parser = access("combined");
    for (request, status) in [
        ("-", "408"),
        ("", "400"),
        ("\\x16\\x03\\x01\\x02", "400"),
        ("OPTIONS * HTTP/1.0", "200"),
        ("GET /\\\" 200 1 \\\"-\\\" \\\"-\\\" HTTP/1.1", "404"),
        ("\\\\", "400"),
    ] {
        let line =
            format!(r#"::1 - - [22/Nov/2026:11:00:32 +0000] "{request}" {status} 0 "-" "-""#);
        let record = parser.parse(line.as_bytes()).expect(&line);
        assert_eq!(text(record.request), Some(request));
        assert_eq!(record.status, status.parse().ok());
    }
    let named = br#"host.example - - [22/Nov/2026:11:00:32 +0000] "-" 408 0 "-" "-""#;
    assert_eq!(parser.parse(named).unwrap().client, None);
}

#[test]
fn the_user_ends_where_the_time_stands_and_nowhere_before() {
    let parser = access("combined");
    for user in [
        "us er",
        r#"us er\"\\\n[client 1.2.3.4"#,
        "[",
        "] [22/Nov/2026:11:00:32 +0000]",
        r#"x [22/Nov/2026:11:00:32 +0000] \"GET / HTTP/1.1\" 200 1 \"-\" \"-\""#,
        " ",
        "",
    ] {
        let line = format!(
            r#"192.0.2.1 - {user} [22/Nov/2026:11:00:32 +0000] "GET /p HTTP/1.1" 401 718 "-" "agent""#
        );
        let record = parser.parse(line.as_bytes()).expect(user);
        assert_eq!(text(record.request), Some("GET /p HTTP/1.1"), "{user}");
        assert_eq!(text(record.agent), Some("agent"), "{user}");
        let time = record.time.unwrap();
        assert_eq!(&line[time], "22/Nov/2026:11:00:32 +0000", "{user}");
    }
}

#[test]
fn a_logformat_string_of_ones_own_is_read() {
    let parser = access(r#"%{c}a %a:%{remote}p\t%V\t%m %U%q %H\t%>s \"%{user-agent}i\" %{ms}T"#);
    let line = "198.51.100.1 2001:db8::1:443\t[::1]\tGET /a b?q 2 HTTP/1.1\t301 \"x \\\" y\" 12";
    let record = parser.parse(line.as_bytes()).unwrap();
    assert_eq!(text(record.client.map(|c| c.text)), Some("2001:db8::1"));
    assert_eq!(record.peer, Some("198.51.100.1".parse().unwrap()));
    assert_eq!(text(record.vhost), Some("[::1]"));
    assert_eq!(record.status, Some(301));
    assert_eq!(text(record.agent), Some("x \\\" y"));

    let peer_only = access("%{c}a %l").parse(b"::ffff:192.0.2.1 -").unwrap();
    let client = peer_only.client.unwrap();
    assert_eq!(text(Some(client.text)), Some("::ffff:192.0.2.1"));
    assert_eq!(client.addr, "192.0.2.1".parse::<IpAddr>().unwrap());
}

#[test]
fn a_second_prefix_is_seen_only_where_it_is_whole() {
    let head = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 22912:tid 22919] ";
    let two = format!("{head}[client 192.0.2.1:1] a, referer: {head}b");
    assert_eq!(
        second_prefix(two.as_bytes()),
        Some(two.rfind("[Sun").unwrap())
    );
    assert_eq!(second_prefix(head.as_bytes()), None);
    assert_eq!(second_prefix(b"[x] [pid 1] [pid 2] [ [pid "), None);
}

/// Apache's escaping of what a client sent into an access log.
fn escaped(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|b| match b {
            b'"' => "\\\"".to_owned(),
            b'\\' => "\\\\".to_owned(),
            b'\n' => "\\n".to_owned(),
            b'\t' => "\\t".to_owned(),
            b if b.is_ascii_graphic() || *b == b' ' => (*b as char).to_string(),
            b => format!("\\x{b:02x}"),
        })
        .collect()
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        Just(&b" [22/Nov/2026:11:00:32 +0000] \""[..]),
        Just(&b"\" 200 1 \"-\" \"-\""[..]),
        Just(&b"[client 203.0.113.250:80] "[..]),
        Just(&b"] [pid 1:tid 2] "[..]),
        Just(&b" "[..]),
        Just(&b"\\"[..]),
        Just(&b"\""[..]),
    ];
    prop::collection::vec(
        prop_oneof![
            pieces.prop_map(<[u8]>::to_vec),
            prop::collection::vec(any::<u8>(), 0..6)
        ],
        0..6,
    )
    .prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(line in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
        let whole = br#"a.example:80 192.0.2.1 ::1 - - [22/Nov/2026:11:00:32 +0000] "GET / HTTP/1.1" 200 281 "-" "-""#;
        let mut mixed = whole.get(..cut).unwrap_or(whole).to_vec();
        mixed.extend(&line);
        for (name, _) in NAMED {
            let _ = access(name).parse(&mixed);
            let _ = access(name).parse(&line);
        }
        let _ = access("%U %t %m %s %q").parse(&line);
        let head = b"[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 22912:tid 22919] (1)x: x.c(1): [client ::1:1] ";
        let mut mixed = head.get(..cut).unwrap_or(head).to_vec();
        mixed.extend(&line);
        let _ = error::parse(&mixed);
        let _ = second_prefix(&mixed);
    }

    #[test]
    fn whatever_clients_send_the_fields_are_what_apache_wrote(
        user in hostile(), request in hostile(), referer in hostile(), agent in hostile(),
        addr in any::<IpAddr>(), status in 100u16..600,
    ) {
        // A user that is one escaped time alone has no quote behind it; a header has no leading blank.
        let (user, request, agent) = (escaped(&user), escaped(&request), escaped(&agent));
        let line = format!(
            "a.example:443 {addr} - {user} [22/Nov/2026:11:00:33 +0000] \"{request}\" {status} 5 \"{}\" \"{agent}\"",
            escaped(&referer)
        );
        let record = access("auto").parse(line.as_bytes()).unwrap();
        let client = record.client.unwrap();
        prop_assert_eq!(client.addr, addr.to_canonical());
        prop_assert_eq!(text(Some(client.text)).map(str::to_owned), Some(addr.to_string()));
        prop_assert_eq!(record.status, Some(status));
        prop_assert_eq!(text(record.request), Some(request.as_str()));
        prop_assert_eq!(text(record.agent), Some(agent.as_str()));
        prop_assert_eq!(text(record.vhost), Some("a.example"));
        prop_assert_eq!(&line[record.time.unwrap()], "22/Nov/2026:11:00:33 +0000");
    }

    #[test]
    fn the_client_of_an_error_line_is_apaches_whatever_follows(
        addr in any::<IpAddr>(), port in any::<u16>(), message in hostile(),
    ) {
        let mut line = format!(
            "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 22912:tid 22919] [client {addr}:{port}] "
        ).into_bytes();
        line.extend(&message);
        let record = error::parse(&line).unwrap();
        prop_assert_eq!(text(record.client.map(|c| c.text)).map(str::to_owned), Some(addr.to_string()));
    }
}
