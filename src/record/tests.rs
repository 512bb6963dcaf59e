use proptest::prelude::*;

use std::net::IpAddr;

use super::*;

mod roundtrip;

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
    assert_eq!(parser.parse(named), None);
    assert!(parser.complaint(named).starts_with("the client field has"));
    assert!(parser.complaint(b"x").starts_with("it is not of"));
}

#[test]
fn the_user_ends_at_the_time_and_not_before() {
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
fn a_long_error_line_keeps_its_client_and_tells_where_another_begins() {
    for format in [
        "default",
        r"[%{u}t] [%-m:%l] [pid %P:tid %T] [client\ %a] %M",
    ] {
        let parser = Parser::new(Kind::Error, format).unwrap();
        let line = |client: &str, text: &str| {
            format!(
                "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 1:tid 7] [client {client}:5] {text}"
            )
        };
        let imitation = line("192.0.2.2", "x");
        for (filling, tells) in [(5000, true), (10, false)] {
            let mut text = line("192.0.2.1", &"a".repeat(filling));
            let at = text.len();
            text.push_str(&imitation);
            let record = parser.parse(text.as_bytes()).unwrap();
            assert_eq!(record.client.unwrap().text, b"192.0.2.1", "{format}");
            assert_eq!(record.second, tells.then_some(at), "{format}");
        }
    }
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

#[test]
fn the_client_is_the_first_of_a_h_and_c_a_and_nobody_where_that_is_no_address() {
    for (format, line, client) in [
        ("%h %l", "192.0.2.1 -", Some("192.0.2.1")),
        ("%a %l", "2001:db8::1 -", Some("2001:db8::1")),
        ("%a %l", "::ffff:192.0.2.1 -", Some("::ffff:192.0.2.1")),
        ("%a %l", "fe80::1%eth0 -", Some("fe80::1%eth0")),
        ("%a:%{remote}p %l", "2001:db8::1:0 -", Some("2001:db8::1")),
        (
            "[%a]:%{remote}p %l",
            "[2001:db8::1]:443 -",
            Some("2001:db8::1"),
        ),
        ("%h:%{remote}p %l", "192.0.2.1:443 -", Some("192.0.2.1")),
        // A name is never resolved; %a is the address.
        ("%h %l", "host.example -", None),
        ("%h %a", "host.example 192.0.2.1", Some("192.0.2.1")),
        ("%h %{c}a", "host.example 192.0.2.1", None),
        ("%{c}a %h", "192.0.2.1 192.0.2.2", Some("192.0.2.2")),
        ("%{c}a %l", "192.0.2.1 -", Some("192.0.2.1")),
        ("%{c}h %l", "192.0.2.1 -", None),
        ("%a %l", "- -", None),
        ("%!200a %>s", "- 200", None),
        ("%A %l", "192.0.2.1 -", None),
    ] {
        let record = access(format).parse(line.as_bytes());
        let found =
            record.and_then(|record| text(record.client.map(|c| c.text)).map(str::to_owned));
        assert_eq!(found.as_deref(), client, "{format}: {line}");
    }
}

#[test]
fn a_format_whose_client_could_be_forged_names_nobody_and_says_so() {
    for (format, word) in [
        (
            "%{X-Forwarded-For}i %l %u %t \"%r\" %>s %b",
            "what a client says",
        ),
        ("%{X-Forwarded-For}i %h %t", "`%{X-Forwarded-For}i`"),
        ("%U %a", "`%U`"),
        ("%v %m %U%q %h", "`%m`"),
        ("%u %t %h", "`%u`"),
        ("%u %t \"%r\" %a", "`%u`"),
        ("%V %h %t", "`%V`"),
        // mod_ident's answer comes from the client's machine.
        ("%l|%a", "`%l`"),
        ("%l%a", "a separate field"),
        ("%>s \"%r\"", "%a"),
        ("%{REMOTE_ADDR}e %t", "%a"),
    ] {
        let parser = access(format);
        let doubt = parser.doubt().expect(format);
        assert!(doubt.contains(word), "{format}: {doubt}");
        let address = b"192.0.2.1 192.0.2.1 192.0.2.1";
        assert_eq!(parser.parse(address), None, "{format}");
    }
    for format in [
        "\\\"%{X-Forwarded-For}i\\\" %h",
        "%m\\t%a",
        "%a %{X-Forwarded-For}i",
        "%v:%p %l %A %a",
        r#"{"req":"%r","ip":"%a"}"#,
    ] {
        assert_eq!(access(format).doubt(), None, "{format}");
    }
    let (format, line) = ("%U %a", "/x 192.0.2.1");
    assert!(
        access(format)
            .complaint(line.as_bytes())
            .contains("no address")
    );
}

#[test]
fn every_directive_is_known_and_what_is_not_is_said_in_words() {
    for format in [
        "%a %{c}a %A %B %b %{x}C %D %{x}e %f %h %{c}h %H %{x}i %k %l %L %{c}L %m %{x}n %{x}o %p",
        "%a %{canonical}p %{local}p %{remote}p %P %{pid}P %{tid}P %{hextid}P %q %r %R %s %>s %<s",
        "%a %t %{begin}t %{end:%T}t %{sec}t %{msec}t %{usec}t %{msec_frac}t %{usec_frac}t %X",
        "%a %T %{ms}T %{us}T %{s}T %u %U %v %V %I %O %S %{x}^ti %{x}^to %^FB %%",
        "%a %400,501{User-agent}i %!200,304,302{Referer}i %{Referer}!200,304i",
        "%a %{SSL_PROTOCOL}x %{SSL_CIPHER}x %{version}c",
    ] {
        assert_eq!(access(format).doubt(), None, "{format}");
    }
    for (format, word) in [
        ("nonsense", "known name"),
        ("%h %Y", "`%Y`"),
        ("%h %^zz", "`%^zz`"),
        ("%h %{%Q}t", "`%Q`"),
        ("%h %{X", "not closed"),
        ("%h %200", "before its letter"),
        ("%h %U\\n%r", "several lines"),
        ("%h %{SSL_TLS_SNI}x", "2.4.64"),
        ("%h %U %{\"%H\"}t", "follows text"),
    ] {
        let error = Parser::new(Kind::Access, format).unwrap_err();
        assert!(error.contains(word), "{format}: {error}");
    }
}

#[test]
fn odd_formats_are_read() {
    for (format, line, status, agent) in [
        ("%a %U %s %b", "192.0.2.1 /x 200 404 7", Some(404), None),
        ("%a %s %>s", "192.0.2.1 301 200", Some(200), None),
        ("%a %>s %s", "192.0.2.1 200 301", Some(200), None),
        ("%a %200,301s", "192.0.2.1 -", None, None),
        ("%a %!200t %s", "192.0.2.1 - 200", Some(200), None),
        // An empty name is two quotes that are not escaped.
        (
            "%a %u %t \"%r\" %s",
            "192.0.2.1 \"\" [22/Nov/2026:11:00:32 +0000] \"\" 401",
            Some(401),
            None,
        ),
        ("%a \"%u\" %s", "192.0.2.1 \"\"\"\" 401", Some(401), None),
        (
            "%a %m %u %t \"%r\" %s",
            "192.0.2.1 GET \"\" [22/Nov/2026:11:00:32 +0000] \"x\" 401",
            Some(401),
            None,
        ),
        // The client chooses what is between two unclosed words.
        (
            "%a %U %s %{Referer}i",
            "192.0.2.1 /x 200 y 404 z",
            None,
            None,
        ),
        (
            "%a %v%U%q %s",
            "192.0.2.1 a.example/x?y z 200",
            Some(200),
            None,
        ),
        (
            "%a %{User-Agent}i|%D",
            "192.0.2.1 a|1 b|22",
            None,
            Some("a|1 b"),
        ),
        ("100%% %a %s", "100% 192.0.2.1 200", Some(200), None),
        (r"%a\s %s", r"192.0.2.1\s 200", Some(200), None),
        (
            r#"{"ip":"%a","t":"%{%FT%T%z}t","s":%>s,"ua":"%{User-Agent}i"}"#,
            r#"{"ip":"::1","t":"2026-11-22T11:00:32+0000","s":404,"ua":"a\",\"s\":200"}"#,
            Some(404),
            Some(r#"a\",\"s\":200"#),
        ),
    ] {
        let record = access(format).parse(line.as_bytes()).expect(line);
        assert_eq!(record.status, status, "{format}: {line}");
        assert_eq!(text(record.agent), agent, "{format}: {line}");
    }
}

#[test]
fn times_of_any_format_are_read_and_the_first_is_cut_out() {
    for (format, line, time) in [
        (
            "%a %t",
            "::1 [22/Nov/2026:11:00:32 +0100]",
            "22/Nov/2026:11:00:32 +0100",
        ),
        (
            "%t %{sec}t %a",
            "[22/Nov/2026:11:00:32 +0100] 1795341632 ::1",
            "22/Nov/2026:11:00:32 +0100",
        ),
        (
            "%{%F}t %{%T}t.%{msec_frac}t %a",
            "2026-11-22 11:00:32.123 ::1",
            "2026-11-22 11:00:32.123",
        ),
    ] {
        let record = access(format).parse(line.as_bytes()).expect(line);
        assert_eq!(&line[record.time.unwrap()], time);
        let stamp = record.stamp.unwrap();
        assert_eq!(
            (stamp.year, stamp.day, stamp.hour),
            (2026, 22, 11),
            "{line}"
        );
    }
    let record = access("%a %{sec}t").parse(b"::1 1795341632").unwrap();
    assert_eq!(record.stamp.unwrap().offset, Some(0));
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
