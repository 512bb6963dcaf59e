//! Whatever format Apache writes: pipeban reads its lines, and finds the client that Apache names.

use pipeban::record::{Kind, Parser, unescape};

use crate::support::apache::ERROR_LOG;
use crate::support::http::{self, Connection};
use crate::support::world::SERVER4;
use crate::support::{Apache, Mpm, World, eventually};

const CLIENT: &str = "198.51.100.10";
const PROXY: &str = "198.51.100.99";
const BEHIND: &str = "2001:db8::7";

/// Each with whether its lines name a client.
const ACCESS: [(&str, bool); 14] = [
    (
        r#"%h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i""#,
        true,
    ),
    (
        r#"{"ip":"%a","u":"%u","t":"%{%Y-%m-%dT%H:%M:%S%z}t","r":"%r","s":%>s,"ua":"%{User-Agent}i"}"#,
        true,
    ),
    (r#"%a %{c}a %l %u %t "%r" %>s %O"#, true),
    (r#"%{sec}t.%{msec_frac}t %a "%r" %>s %{ms}T %{us}T"#, true),
    (r#"%a %!200,304{Referer}i|%>s|"%{User-Agent}i""#, true),
    (r#"%v:%p %h %l %u %t "%r" %>s %b"#, true),
    (r"%a\t%m\t%U%q\t%H\t%>s\t%{User-Agent}i", true),
    (r#""%{X-Forwarded-For}i" %a %>s"#, true),
    (
        r#"%{end:%d/%b/%Y %T}t [%a]:%{remote}p %k %X %P %{tid}P %{hextid}P %L %{c}L "%r" %>s"#,
        true,
    ),
    ("%a %400,401{User-Agent}i %>s", true),
    (r#"%a %A %p %{local}p "%f" %R "%r" %>s"#, true),
    (
        r#"%a %D %T %B %I %S "%{Set-Cookie}o" "%{sid}C" "%{X}e" "%{X}n" "%{T}^ti" %>s"#,
        true,
    ),
    (r#"%{X-Forwarded-For}i %l %u %t "%r" %>s %b"#, false),
    ("%a %U %>s", true),
];

/// By virtual host; `None`: Apache's default.
const ERRORS: [(&str, Option<&str>); 4] = [
    ("e1.example", None),
    (
        "e2.example",
        Some(r"[%{u}t] [%-m:%l] [pid %P:tid %T] %7F: %E: [client\ %a] %M% ,\ referer\ %{Referer}i"),
    ),
    ("e3.example", Some("%{cu}t %P %a %v %l: %E: %M")),
    (
        "e4.example",
        Some(r"[%t] [pid\ %P] [R:%L] [C:%{C}L] [peer\ %{c}a] [client\ %a] [%{User-Agent}i] %M"),
    ),
];

/// As a word of Apache's configuration.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

/// What a request sends beside its path.
struct Sent {
    from: &'static str,
    client: &'static str,
    path: &'static str,
    agent: &'static str,
    headers: &'static str,
}

const HOSTILE: [Sent; 6] = [
    Sent {
        from: CLIENT,
        client: CLIENT,
        path: "/index.html?a=%22",
        agent: "plain",
        headers: "X-Forwarded-For: 192.0.2.66\r\nReferer: http://x/\r\n",
    },
    Sent {
        from: CLIENT,
        client: CLIENT,
        path: "/nothing\"%20\\200",
        agent: "\" 200 5 \"-\" \"\\x16\\",
        headers: "X-Forwarded-For: 192.0.2.66 - - [22/Nov/2026:11:00:32 +0000] \"GET / HTTP/1.1\" 200 5\r\nReferer: [client 192.0.2.66:1] AH10244: x\r\n",
    },
    // us er" [22/Nov/2026:11:00:32 +0000] "x
    Sent {
        from: CLIENT,
        client: CLIENT,
        path: "/private/",
        agent: "\",\"ip\":\"192.0.2.66\",\"x\":\"",
        headers: "Authorization: Basic dXMgZXIiIFsyMi9Ob3YvMjAyNjoxMTowMDozMiArMDAwMF0gIng6eA==\r\n",
    },
    // An empty name.
    Sent {
        from: CLIENT,
        client: CLIENT,
        path: "/private/",
        agent: "\u{e9}|200|\"\t\"",
        headers: "Authorization: Basic Ong=\r\nCookie: sid=192.0.2.66 \"x; a=b\r\n",
    },
    Sent {
        from: CLIENT,
        client: CLIENT,
        path: "/closed/192.0.2.66:80/[client%20192.0.2.66:80]",
        agent: "] [client 192.0.2.66:80] ",
        headers: "Referer: 192.0.2.66:80 [client 192.0.2.66:80]\r\n",
    },
    Sent {
        from: PROXY,
        client: BEHIND,
        path: "/closed/behind",
        agent: "behind",
        headers: "X-Real: 2001:db8::7\r\n",
    },
];

fn configuration() -> String {
    let mut conf = r#"
LoadModule auth_basic_module /usr/lib/apache2/modules/mod_auth_basic.so
LoadModule authn_core_module /usr/lib/apache2/modules/mod_authn_core.so
LoadModule authn_file_module /usr/lib/apache2/modules/mod_authn_file.so
LoadModule authz_user_module /usr/lib/apache2/modules/mod_authz_user.so
LoadModule remoteip_module /usr/lib/apache2/modules/mod_remoteip.so
RemoteIPHeader X-Real
RemoteIPInternalProxy 198.51.100.99
<Location /private>
    AuthType Basic
    AuthName x
    AuthUserFile /dev/null
    Require valid-user
</Location>
"#
    .to_owned();
    for (number, (format, _)) in ACCESS.iter().enumerate() {
        let format = quoted(format);
        conf.push_str(&format!(
            "GlobalLog /var/log/apache2/a{number}.log {format}\n"
        ));
    }
    let (piped, _) = ACCESS[1];
    let in_command = piped.replace('"', "\\\"");
    conf.push_str(&format!(
        "CustomLog \"|/usr/bin/pipeban log access --format '{in_command}' /var/log/apache2/own.log\" {0}\n\
         CustomLog \"|/usr/bin/pipeban log access --format common /var/log/apache2/wrong.log\" {0}\n\
         CustomLog \"|/usr/bin/pipeban log access /var/log/apache2/auto.log\" combined\n\
         ErrorLogFormat {1}\n\
         ErrorLog \"|/usr/bin/pipeban log error --format '{2}' {ERROR_LOG}\"\n",
        quoted(piped),
        quoted(ERRORS[3].1.unwrap()),
        // Apache takes backslashes away twice.
        ERRORS[3].1.unwrap().replace('\\', r"\\\\"),
    ));
    // The first virtual host is the default one.
    conf.push_str("<VirtualHost *:80>\nServerName www.example.org\n</VirtualHost>\n");
    for (host, format) in ERRORS {
        conf.push_str(&format!("<VirtualHost *:80>\nServerName {host}\n"));
        // An inherited format cannot be taken back: this is Apache's own.
        let default = r"[%{u}t] [%-m:%l] [pid\ %P:tid\ %T] %7F: %E: [client\ %a] %M% ,\ referer:\ %{Referer}i";
        conf.push_str(&format!(
            "ErrorLogFormat {}\n",
            quoted(format.unwrap_or(default))
        ));
        conf.push_str(&format!(
            "ErrorLog /var/log/apache2/{host}.log\n</VirtualHost>\n"
        ));
    }
    conf
}

#[test]
fn what_hostile_clients_send_is_read_as_sent_in_every_format() {
    let Some(world) = World::new() else { return };
    let _apache = Apache::start(&world, Mpm::Event, &configuration());
    let clients = world.clients();
    let mut statuses = Vec::new();
    for sent in &HOSTILE {
        let mut connection = Connection::open(&clients, sent.from, SERVER4).expect("open");
        let headers = format!("User-Agent: {}\r\n{}", sent.agent, sent.headers);
        statuses.push(connection.get(sent.path, &headers).expect("answered"));
        // Apache answers first and logs then: the next line must be the next request's.
        let last = format!("/var/log/apache2/a{}.log", ACCESS.len() - 1);
        eventually("its line", || {
            let lines = world.bytes(&last).iter().filter(|b| **b == b'\n').count();
            if lines >= statuses.len() {
                Ok(())
            } else {
                Err(format!("{lines} of {}", statuses.len()))
            }
        });
    }
    for (number, (format, names)) in ACCESS.iter().enumerate() {
        let parser = Parser::new(Kind::Access, format).unwrap();
        assert_eq!(parser.doubt().is_none(), *names, "{format}");
        let log = eventually(&format!("{} lines of `{format}`", HOSTILE.len()), || {
            let log = world.bytes(&format!("/var/log/apache2/a{number}.log"));
            let lines = log.iter().filter(|b| **b == b'\n').count();
            // The first request asked whether Apache listens.
            if lines >= HOSTILE.len() {
                Ok(log)
            } else {
                Err(lines.to_string())
            }
        });
        let lines: Vec<&[u8]> = log
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .collect();
        let lines = &lines[lines.len() - HOSTILE.len()..];
        for ((line, sent), status) in lines.iter().zip(&HOSTILE).zip(&statuses) {
            let shown = String::from_utf8_lossy(line);
            let record = parser.parse(line);
            if !names {
                assert_eq!(record, None, "{shown}");
                continue;
            }
            let record = record.unwrap_or_else(|| panic!("{format}: {shown}"));
            let client = record.client.unwrap();
            assert_eq!(client.addr.to_string(), sent.client, "{format}: {shown}");
            assert_eq!(record.status, Some(*status), "{format}: {shown}");
            if format.contains("%{c}a") {
                assert_eq!(record.peer.unwrap().to_string(), sent.from, "{shown}");
            }
            if let Some(request) = record.request {
                let line = format!("GET {} HTTP/1.1", sent.path);
                assert_eq!(unescape(request).as_ref(), line.as_bytes(), "{shown}");
            }
            // Apache takes blanks at the end of a header away.
            if let Some(agent) = record.agent.filter(|_| !format.contains("%400")) {
                let agent = unescape(agent).into_owned();
                assert_eq!(agent, sent.agent.trim_end().as_bytes(), "{shown}");
            }
        }
    }
}

#[test]
fn error_lines_of_every_format_name_the_client_and_pipeban_bans_by_them() {
    let Some(world) = World::new() else { return };
    let apache = Apache::start(&world, Mpm::Event, &configuration());
    apache.pipe("error");
    world.engine();
    let clients = world.clients();
    for (host, format) in ERRORS {
        for sent in &HOSTILE[4..] {
            for path in [sent.path.to_owned(), format!("/{}", "x".repeat(300))] {
                let mut connection = Connection::open(&clients, sent.from, SERVER4).expect("open");
                let headers = format!("User-Agent: {}\r\n{}", sent.agent, sent.headers);
                connection.get_of(host, &path, &headers).expect("answered");
            }
        }
        let log = world.read(&format!("/var/log/apache2/{host}.log"));
        let parser = Parser::new(Kind::Error, format.unwrap_or("default")).unwrap();
        assert_eq!(parser.doubt(), None);
        let named: Vec<String> = log
            .lines()
            .filter(|line| line.contains("AH01630") || line.contains("AH00036"))
            .map(|line| {
                let record = parser
                    .parse(line.as_bytes())
                    .unwrap_or_else(|| panic!("{line}"));
                record
                    .client
                    .unwrap_or_else(|| panic!("{line}"))
                    .addr
                    .to_string()
            })
            .collect();
        assert_eq!(named, [CLIENT, CLIENT, BEHIND, BEHIND], "{host}: {log}");
    }
    // The main server's error log goes through pipeban; the command line names the format.
    http::attack(&clients, "198.51.100.70", SERVER4);
    world.until_banned("apache-cgitraversal", "198.51.100.70");
    // What each worker reads, and what it cannot.
    let auto = world.until_logged("the format of the first lines is `combined`");
    assert!(auto.contains("auto.log"), "{auto}");
    let worker = |path: &str| {
        eventually(&format!("the worker of {path}"), || {
            let status = world.status(None);
            let workers = status["workers"].as_array().unwrap();
            let found = workers
                .iter()
                .find(|w| w["path"] == format!("/var/log/apache2/{path}"));
            let found = found.filter(|w| w["lines"].as_u64() > Some(0) && !w["format"].is_null());
            found.cloned().ok_or_else(|| status.to_string())
        })
    };
    let own = worker("own.log");
    assert_eq!(
        (&own["format"], &own["unparsed"]),
        (&ACCESS[1].0.into(), &0.into())
    );
    assert_eq!(worker("auto.log")["format"], "combined");
    assert_eq!(worker("error.log")["format"], ERRORS[3].1.unwrap());
    let wrong = eventually("examples of what could not be read", || {
        let worker = worker("wrong.log");
        let examples = worker["unparsed_lines"].as_array().unwrap().clone();
        examples.first().cloned().ok_or_else(|| worker.to_string())
    });
    assert!(
        wrong["begins"].as_str().unwrap().starts_with("{\"ip\":"),
        "{wrong}"
    );
    let text = world.pipeban(&["status"]).stdout;
    assert!(
        text.contains("log, format `common`, 100 % unparsed"),
        "{text}"
    );
    assert!(text.contains("begins `{\"ip\":"), "{text}");
}
