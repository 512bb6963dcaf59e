//! What administrators have, type and see: small inputs from public reports, reworded, each with
//! what must come of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pipeban::record::{Kind, Parser};

/// A directory with a configuration and an empty Apache.
struct Host(tempfile::TempDir);

impl Host {
    fn new(configuration: &str) -> Host {
        let host = Host(tempfile::tempdir().unwrap());
        let paths = format!(
            "[paths]\nstate = \"{0}/state\"\nruntime = \"{0}/run\"\nshare = \"{0}/share\"\n",
            host.0.path().display()
        );
        host.write("pipeban.toml", &format!("{paths}{configuration}"));
        host.write("apache2.conf", "");
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Runs pipeban; status and everything it says.
    fn says(&self, arguments: &[&str]) -> (i32, String) {
        let output: Output = Command::new(env!("CARGO_BIN_EXE_pipeban"))
            .arg("--config")
            .arg(self.path("pipeban.toml"))
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        let status = output.status.code().unwrap_or(-1);
        (status, String::from_utf8_lossy(&text).into_owned())
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn every_time_of_an_error_log_format_is_read() {
    for (modifier, time) in [
        ("%t", "Sun Nov 22 11:00:33 2026"),
        ("%{u}t", "Sun Nov 22 11:00:33.366318 2026"),
        ("%{m}t", "Sun Nov 22 11:00:33.366 2026"),
        ("%{uz}t", "Sun Nov 22 11:00:33.366318 2026 +0100"),
        ("%{zm}t", "Sun Nov 22 11:00:33.366 2026 -0530"),
        ("%{z}t", "Sun Nov 22 11:00:33 2026 +0000"),
        ("%{cu}t", "2026-11-22 11:00:33.366318"),
        ("%{cuz}t", "2026-11-22 11:00:33.366318 +0100"),
        ("%{%Y-%m-%dT%H:%M:%S}t", "2026-11-22T11:00:33"),
        ("%{%d/%b/%Y %T}t", "22/Nov/2026 11:00:33"),
    ] {
        let format = format!("[{modifier}] [%-m:%l] [pid %P:tid %T] [client %a] %M");
        let line = format!("[{time}] [core:error] [pid 7:tid 8] [client 192.0.2.7:4711] AH1: x");
        let parser = Parser::new(Kind::Error, &format).unwrap();
        assert_eq!(parser.doubt(), None, "{format}");
        let record = parser
            .parse(line.as_bytes())
            .unwrap_or_else(|| panic!("{format}: {line}"));
        let client = record.client.unwrap();
        assert_eq!(client.addr.to_string(), "192.0.2.7", "{format}");
        assert_eq!(record.stamp.unwrap().day, 22, "{format}");
        assert_eq!(&line[record.time.unwrap()], time);
    }
    // Without blanks between the fields.
    let json = r#"{"t":"%{cu}t","l":"%-m:%l","p":"%P","c":"%a","m":"%M"}"#;
    let line =
        br#"{"t":"2026-11-22 11:00:33.366318","l":"core:error","p":"7","c":"192.0.2.7:5","m":"AH1: x"}"#;
    let parser = Parser::new(Kind::Error, json).unwrap();
    assert_eq!(parser.doubt(), None);
    let client = parser.parse(line).unwrap().client.unwrap();
    assert_eq!(client.addr.to_string(), "192.0.2.7");
    for wrong in ["%{x}t", "%{cq}t", "%{%Q}t"] {
        let format = format!("[{wrong}] [pid %P] [client %a] %M");
        let error = Parser::new(Kind::Error, &format).unwrap_err();
        assert!(error.contains(wrong), "{error}");
    }
}

#[test]
fn a_log_format_with_an_unreadable_time_is_named_by_check() {
    let host = Host::new("");
    let format = "ErrorLogFormat \"[%{q}t] [pid %P] [client\\\\ %a] %M\"\n";
    let pipe = "ErrorLog \"|/bin/pipeban log error /var/log/e\"\n";
    host.write("apache2.conf", &format!("{format}{pipe}"));
    let root = host.path("apache2.conf");
    let (_, said) = host.says(&["check", "--apache-config", text(&root)]);
    assert!(said.contains("`%{q}t`"), "{said}");
    // And by setup, which pipes such a log, too.
    for (format, why) in [
        (format, "`%{q}t`"),
        (
            "ErrorLogFormat \"[%t] %M\"\n",
            "the client's address %a is not in it",
        ),
    ] {
        host.write("apache2.conf", &format!("{format}ErrorLog /var/log/e\n"));
        let (_, said) = setup(&host, &[]);
        let note = said.lines().find(|line| line.starts_with("note:"));
        assert!(note.is_some_and(|note| note.contains(why)), "{said}");
    }
}

#[test]
fn an_error_log_without_a_client_is_not_said_to_have_a_header() {
    let host = Host::new("");
    let pipe = "ErrorLog \"|/bin/pipeban log error /var/log/e\"\n";
    host.write("apache2.conf", &format!("ErrorLogFormat \"%M\"\n{pipe}"));
    let (status, said) = check(&host);
    assert_eq!(status, 78, "{said}");
    assert!(said.contains("put `[client\\ %a]` before %M"), "{said}");
    assert!(!said.contains("header"), "{said}");
}

#[test]
fn times_side_by_side_are_one_time() {
    let host = Host::new("");
    host.write(
        "f.conf",
        "[Definition]\nfailregex = ^<HOST> \\S+ \\S+ \\[\\] \"PUT\nignoreregex =\n",
    );
    for (time, written) in [
        (
            "[%{%Y-%m-%d %H:%M:%S}t.%{usec_frac}t]",
            "[2026-11-22 11:00:33.366318]",
        ),
        ("[%{%Y-%m-%d}t %{%T}t]", "[2026-11-22 11:00:33]"),
        (
            "[%{%d/%b/%Y %T}t.%{msec_frac}t %{%z}t]",
            "[22/Nov/2026 11:00:33.366 +0100]",
        ),
    ] {
        let format = format!("%h %u %l {time} \"%r\" %>s");
        let line = format!("203.0.113.7 DE - {written} \"PUT /x HTTP/1.1\" 200");
        for how in [
            &["--kind", "access", "--format", &format][..],
            &["--kind", "raw"],
        ] {
            let arguments = ["test", "--filter", "./f.conf", "--line", &line];
            let (status, said) = host.says(&[&arguments, how].concat());
            assert_eq!(status, 0, "{how:?}: {said}");
        }
    }
}

#[test]
fn a_filter_saved_with_a_byte_order_mark_is_read() {
    let host = Host::new("");
    let filter = "\u{feff}\u{feff}[Definition]\r\nfailregex = ^<HOST> .*PUT\r\nignoreregex =\r\n";
    host.write("f.conf", filter);
    let (status, said) = host.says(&["check", "--filter", "./f.conf"]);
    assert_eq!(status, 0, "{said}");
    let native = "\u{feff}log = \"access\"\n[[match]]\nmethod = \"PUT\"\npath = '^/x'\n";
    host.write("n.toml", native);
    let (status, said) = host.says(&["check", "--filter", "./n.toml"]);
    assert_eq!(status, 0, "{said}");
    for (bytes, why) in [
        (&b"\xff\xfe[\0D\0"[..], "it is UTF-16: save it as UTF-8"),
        (
            b"[Definition]\nfailregex = \xe9 <HOST>\n",
            "line 2 is not UTF-8",
        ),
    ] {
        std::fs::write(host.path("u.conf"), bytes).unwrap();
        let (status, said) = host.says(&["check", "--filter", "./u.conf"]);
        assert!(status == 78 && said.contains(why), "{said}");
    }
    // An included file, the configuration itself, and a list of networks.
    host.write("own.conf", &filter.replace("<HOST>", "<who>"));
    host.write("who.local", "\u{feff}[Definition]\nwho = <HOST>\n");
    let include = "\u{feff}[INCLUDES]\nbefore = own.conf\nafter = who.local\n";
    host.write("both.conf", include);
    let (status, said) = host.says(&["check", "--filter", "./both.conf"]);
    assert_eq!(status, 0, "{said}");
    let list = host.path("list.txt").display().to_string();
    host.write("list.txt", "\u{feff}192.0.2.0/24\r\n");
    let toml = std::fs::read_to_string(host.path("pipeban.toml")).unwrap();
    let toml = format!("\u{feff}{toml}[defaults]\r\nignoreip = [\"{list}\"]\r\n");
    host.write("pipeban.toml", &toml);
    let (status, said) = check(&host);
    assert_eq!(status, 0, "{said}");
}

#[test]
fn a_pattern_may_spell_out_the_date() {
    let host = Host::new("");
    let filter = "[Definition]\ndatepattern = {NONE}\nignoreregex =\nfailregex = ";
    for (kind, pattern, line) in [
        (
            "access",
            r#"^<HOST> - \S+ \[\d+/Nov/2026:[^\]]+\] "PUT"#,
            "203.0.113.7 - - [22/Nov/2026:11:00:33 +0000] \"PUT /x HTTP/1.1\" 200 5 \"-\" \"-\"",
        ),
        (
            "access",
            r#"^<HOST> \S+ \S+ \[22/Nov/2026:(?:0\d|1[01]):\d\d:\d\d \+0000\] "PUT"#,
            "203.0.113.7 - al [22/Nov/2026:11:00:33 +0000] \"PUT /x HTTP/1.1\" 200 5 \"-\" \"-\"",
        ),
        (
            "access",
            r#"^shop:80 <HOST> - - \[[^:\]]+:11:00:33 [^\]]*\] "PUT"#,
            "shop:80 203.0.113.7 - - [22/Nov/2026:11:00:33 +0000] \"PUT /x HTTP/1.1\" 200 5 \"-\" \"-\"",
        ),
        (
            "error",
            r"^\[Sun Nov 22 [^\]]+\] \[[^\]]+\] \[pid \d+:tid \d+\] \[client <HOST>:\d+\] AH1: x$",
            "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 7:tid 8] [client 203.0.113.7:5] AH1: x",
        ),
        (
            "error",
            r"^\[\w+ Nov \d+ [\d:.]+ 2026\] \[core:error\] .*\[client <HOST>:\d+\] AH1: x",
            "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 7:tid 8] [client 203.0.113.7:5] AH1: x",
        ),
    ] {
        host.write(
            "f.conf",
            &format!("{filter}{}\n", pattern.replace('%', "%%")),
        );
        let arguments = [
            "test", "--filter", "./f.conf", "--kind", kind, "--line", line,
        ];
        let (status, said) = host.says(&arguments);
        assert_eq!(status, 0, "{said}");
    }
}

#[test]
fn check_names_a_port_of_apache_that_a_ban_leaves_open() {
    let jail = |port: &str| {
        format!("[jails.x]\nenabled = true\nlog = \"access\"\nfilter = \"f\"\n{port}\n")
    };
    for (port, listen, warns) in [
        ("", "Listen 80\nListen 8443\n", false),
        (
            "port = [\"http\", \"https\"]",
            "Listen 80\nListen 0.0.0.0:8443 https\n",
            true,
        ),
        (
            "port = [\"http\", 8443]",
            "Listen 80\nListen [::]:8443\n",
            false,
        ),
        ("port = \"all\"", "Listen 8443\n", false),
        (
            "port = [\"http\", \"https\"]",
            "Listen 127.0.0.1:8443\n",
            false,
        ),
    ] {
        let host = Host::new(&jail(port));
        let filter = "[Definition]\nfailregex = ^<HOST> .*PUT /x\nignoreregex =\n";
        host.write("filters.d/f.conf", filter);
        host.write("apache2.conf", listen);
        let root = host.path("apache2.conf");
        let (status, said) = host.says(&["check", "--apache-config", text(&root)]);
        assert_eq!(status, 0, "{said}");
        let warned = said.contains("can still reach Apache on port 8443");
        assert_eq!(warned, warns, "{port} {listen}: {said}");
    }
}

#[test]
fn a_filter_of_another_program_is_left_to_fail2ban() {
    for (name, foreign) in [
        ("sshd", true),
        ("postfix", true),
        ("dovecot", true),
        ("site", false),
    ] {
        let jail = format!("[jails.{name}]\nenabled = true\nlog = \"error\"\n");
        let host = Host::new(&jail);
        let filter = "[Definition]\nfailregex = ^x \\S+ from <HOST> port\nignoreregex =\n";
        host.write(&format!("filters.d/{name}.conf"), filter);
        let root = host.path("apache2.conf");
        let (status, said) = host.says(&["check", "--apache-config", text(&root)]);
        assert_eq!(status, 0, "{said}");
        let warned = said.contains("leave it to fail2ban");
        assert_eq!(warned, foreign, "{said}");
    }
}

#[test]
fn a_typo_in_an_option_or_a_tag_is_an_error() {
    let host = Host::new("");
    let tags = "[Definition]\nfailregex = ^<HOST> .*\"PUT /<script>\n  ^<HOST> .*\"PUT /<page-<kind>> <only>\n\
                page-one = a\npage-two = b\nkind = one\nignoreregex =\n";
    host.write("f.conf", tags);
    for (filter, expected) in [
        ("./f.conf[only=x]", Ok(())),
        ("./f.conf[only=x,mode=normal,kind=two]", Ok(())),
        ("./f.conf", Err("no option fills the tag `<only>`")),
        (
            "./f.conf[only=x,kind=tow]",
            Err("`kind=\"tow\"` selects nothing: write `two`"),
        ),
        (
            "./f.conf[only=x,knid=two]",
            Err("has no option `knid`: write `kind`"),
        ),
    ] {
        let (status, said) = host.says(&["check", "--filter", filter]);
        match expected {
            Ok(()) => assert_eq!(status, 0, "{filter}: {said}"),
            Err(word) => assert!(
                status == 78 && said.contains(word),
                "{filter}: {status} {said}"
            ),
        }
    }
    for (text, right) in [
        ("[Definition]\nfailrgex = <HOST> x\n", "`failregex`"),
        (
            "[Definition]\nfailregex = <HOST> x\nignorregex = x\n",
            "`ignoreregex`",
        ),
        ("[Defintion]\nfailregex = <HOST> x\n", "`[Definition]`"),
        (
            "[Definition]\nfailregex = <HOST> %(pagse)s\npages = x\n",
            "`%(pages)s`",
        ),
        (
            "[INCLUDES]\nbefor = x.conf\n[Definition]\nfailregex = <HOST> x\n",
            "`before`",
        ),
    ] {
        host.write("t.conf", text);
        let (status, said) = host.says(&["check", "--filter", "./t.conf"]);
        assert!(
            status == 78 && said.contains(&format!("write {right}")),
            "{said}"
        );
    }
    let native = "log = \"access\"\n[[match]]\nmethod = \"PUT\"\npath = '^/x'\n";
    host.write("n.toml", native);
    let (status, said) = host.says(&["check", "--filter", "./n.toml[mode=normal]"]);
    assert!(status == 64 && said.contains("takes no options"), "{said}");
    host.write(
        "t.conf",
        "[Definition]\n_failregex = x\nfailregex = <HOST> %(_failregex)s\n",
    );
    let (status, said) = host.says(&["check", "--filter", "./t.conf"]);
    assert_eq!(status, 0, "{said}");
    host.write("f.conf", &tags.replace("<only>", "<page-won>"));
    let (status, said) = host.says(&["check", "--filter", "./f.conf"]);
    assert!(
        status == 78 && said.contains("write `<page-one>`"),
        "{said}"
    );
}

#[test]
fn a_log_that_a_pipe_could_not_read_is_named_with_its_format() {
    let time = "[22/Nov/2026:11:00:33 +0000]";
    let request = format!("{time} \"PUT /x HTTP/1.1\" 404 9");
    for line in [
        format!("203.0.113.9 - - {request} \"-\" \"Mozilla/5.0\" 1432 shop.example.org:443"),
        format!("203.0.113.9 - - {request} 0.004"),
        format!("203.0.113.9 - - {time} 443 \"PUT /x HTTP/1.1\" 404 9"),
        format!("shop.example.org 203.0.113.9 - - {request} \"-\" \"Mozilla/5.0\""),
    ] {
        a_log_is_read_as_its_format_says(&line);
    }
}

fn a_log_is_read_as_its_format_says(line: &str) {
    let host = Host::new("");
    let test = |format: &[&str]| {
        let arguments = ["test", "--pattern", "<HOST> .*\"PUT ", "--line", line];
        host.says(&[&arguments, format].concat())
    };
    let (status, said) = test(&[]);
    assert_eq!(status, 0, "{said}");
    let (_, format) = said.split_once("--format '").expect(&said);
    let (format, _) = format.split_once('\'').unwrap();
    let (status, said) = test(&["--format", format]);
    assert!(status == 0 && !said.contains("Live:"), "{said}");
    let single = format.replace("\\\"", "\"");
    for pasted in [
        format!("LogFormat \"{format}\" shop"),
        format!("CustomLog logs/a '{single}'"),
        format!("\"{format}\""),
    ] {
        let (status, said) = test(&["--format", &pasted]);
        assert_eq!(status, 0, "{said}");
    }
    let believed = format.replace("%h", "%{X-Forwarded-For}i");
    let (_, said) = test(&["--format", &believed]);
    assert!(
        said.contains("Client: none: lines of this format"),
        "{said}"
    );
}

/// `setup` for the configuration in `apache2.conf`.
fn setup(host: &Host, more: &[&str]) -> (i32, String) {
    let root = host.path("apache2.conf");
    let arguments = ["setup", "--apache-config", text(&root)];
    let program = ["--program", env!("CARGO_BIN_EXE_pipeban")];
    host.says(&[&arguments[..], &program, more].concat())
}

fn check(host: &Host) -> (i32, String) {
    let root = host.path("apache2.conf");
    host.says(&["check", "--apache-config", text(&root)])
}

#[test]
fn setup_takes_the_log_that_names_a_client_of_every_request() {
    let combined = "LogFormat \"%h %l %u %t \\\"%r\\\" %>s %O\" plain\nErrorLog logs/e\n\
                    CustomLog logs/main plain\n";
    let bytes = "CustomLog logs/bytes \"%{%s}t %I\"\n";
    let some = "CustomLog logs/some plain env=x\n";
    for (logs, file, global) in [
        (
            format!("{bytes}CustomLog logs/good plain\n"),
            "logs/good",
            false,
        ),
        (
            format!("{some}CustomLog logs/good plain\n{bytes}"),
            "logs/good",
            false,
        ),
        (
            format!("{some}CustomLog logs/rest plain env=!x\n"),
            "env=",
            true,
        ),
        (
            "CustomLog logs/tls \"%t %h %{SSL_PROTOCOL}x \\\"%r\\\" %b\"\nCustomLog logs/good plain\n".to_owned(),
            "logs/good",
            false,
        ),
        (
            "CustomLog logs/plain plain\nCustomLog logs/good \"%h %t \\\"%r\\\" %>s \\\"%{User-Agent}i\\\"\"\n".to_owned(),
            "logs/good",
            false,
        ),
        (
            "CustomLog logs/agents \"%h %{User-Agent}i\"\n".to_owned(),
            "logs/agents",
            true,
        ),
        ("CustomLog logs/x unknown\n".to_owned(), "logs/x", true),
        (bytes.to_owned(), "logs/bytes", true),
        (
            "CustomLog logs/p \"%{X-Real-IP}i %t \\\"%r\\\" %>s\"\n".to_owned(),
            "logs/p",
            true,
        ),
    ] {
        let host = Host::new("");
        let vhost = format!("<VirtualHost *:80>\nServerName shop\n{logs}</VirtualHost>\n");
        host.write("apache2.conf", &format!("{combined}{vhost}"));
        let (_, said) = setup(&host, &["--files"]);
        let changed: Vec<&str> = said
            .lines()
            .filter(|line| line.trim_start().starts_with("CustomLog"))
            .collect();
        assert_eq!(changed.is_empty(), global, "{said}");
        if global {
            assert!(said.contains("no access log of shop is a file"), "{said}");
            assert!(said.contains("GlobalLog \"|"), "{said}");
        } else {
            assert!(changed.iter().any(|line| line.contains(file)), "{said}");
            // The main server's and this one.
            assert_eq!(changed.len(), 2, "{said}");
        }
    }
}

#[test]
fn setup_leaves_a_log_alone_that_pipeban_would_not_open() {
    if !nix::unistd::geteuid().is_root() {
        return crate::support::skip("needs root (to give files away)");
    }
    let host = Host::new("");
    for (name, mode) in [("closed", 0o775), ("open", 0o755)] {
        host.write(&format!("{name}/error_log"), "");
        let directory = host.path(name);
        let user = nix::unistd::Uid::from_raw(1234);
        for path in [directory.join("error_log"), directory.clone()] {
            nix::unistd::chown(&path, Some(user), None).unwrap();
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&directory, mode).unwrap();
    }
    let log = |name: &str| format!("{}/error_log", host.path(name).display());
    let site = |name: &str| format!("<VirtualHost *>\nErrorLog {}\n</VirtualHost>\n", log(name));
    let text = format!(
        "ErrorLog {}\n{}{}",
        log("own"),
        site("closed"),
        site("open")
    );
    host.write("own/error_log", "");
    host.write("apache2.conf", &text);
    let (_, said) = setup(&host, &[]);
    assert!(
        said.contains("stays as it is:") && said.contains("chown"),
        "{said}"
    );
    assert!(!said.contains(&format!("{}\"", log("closed"))), "{said}");
    let made = format!("--owner root:root --mode 0644 {}\"", log("open"));
    assert!(said.contains(&made), "{said}");
    assert!(
        said.contains(&format!("log error {}\"", log("own"))),
        "{said}"
    );
    // By hand all the same.
    let piped = format!("ErrorLog \"|/bin/pipeban log error {}\"\n", log("closed"));
    host.write("apache2.conf", &piped);
    let (status, said) = check(&host);
    assert_eq!(status, 78, "{said}");
    assert!(
        said.contains("the lines of this ErrorLog are lost"),
        "{said}"
    );
}

#[test]
fn logs_in_macros_are_piped_for_every_site() {
    let host = Host::new("");
    host.write(
        "apache2.conf",
        "ErrorLog /var/log/e\nCustomLog /var/log/a common\n<Macro Site $name $namespace>\n<VirtualHost *:80>\nServerName $name\n\
         ErrorLog /srv/$namespace/$name-error.log\nCustomLog \"/srv/$name.log\" common\n\
         </VirtualHost>\n</Macro>\nUse Site a.example.org one\nUse site b.example.org two\nUse None x\n",
    );
    let (_, said) = check(&host);
    for site in ["a", "b"] {
        let bypass = format!("error lines of {site}.example.org do not reach pipeban");
        assert!(said.contains(&bypass), "{said}");
    }
    assert!(said.contains("no macro `None` is known"), "{said}");
    let (_, said) = setup(&host, &["--files"]);
    let lines = [
        "log error /srv/$namespace/$name-error.log\"",
        "log access --format common '/srv/$name.log'\" common",
    ];
    for line in lines {
        assert_eq!(said.matches(line).count(), 1, "{said}");
    }
    // The whole path is an argument, or a name could begin with `%`.
    host.write(
        "apache2.conf",
        "ErrorLog /var/log/e\n<Macro Site $log>\n<VirtualHost *:80>\nErrorLog $log/e\n</VirtualHost>\n</Macro>\n\
         <Macro Other %name \"\">\n<VirtualHost *:80>\nErrorLog /srv/%name.log\n</VirtualHost>\n</Macro>\n\
         Use Site /var/log/shop\nUse Other shop x\n",
    );
    let (_, said) = setup(&host, &["--files"]);
    assert_eq!(said.matches("change the line by hand").count(), 2, "{said}");
    assert!(!said.contains("log error /e"), "{said}");
}

#[test]
fn many_hosts_are_counted_and_grouped() {
    let host = Host::new("");
    let sites: String = (0..50)
        .map(|n| {
            format!("<VirtualHost *>\nServerName h{n}\nErrorLog /var/log/h{n}\n</VirtualHost>\n")
        })
        .collect();
    host.write("apache2.conf", &format!("ErrorLog /var/log/e\n{sites}"));
    let (_, said) = check(&host);
    assert_eq!(said.matches("error lines of").count(), 1, "{said}");
    assert!(said.contains("(and 50 more like this)"), "{said}");
    let (_, said) = setup(&host, &[]);
    assert!(
        said.contains("150 processes") && said.contains("one common ErrorLog"),
        "{said}"
    );
    assert!(said.contains("setup leaves that to you"), "{said}");
    // Access logs, too.
    let main = "ErrorLog /var/log/e\nCustomLog /var/log/a common\n";
    let sites = sites.replace("ErrorLog /var/log/h", "CustomLog /var/log/a");
    let sites = sites.replace("\n</V", " common\n</V");
    host.write("apache2.conf", &format!("{main}{sites}"));
    let (_, said) = setup(&host, &["--files"]);
    assert!(
        said.contains("150 processes") && said.contains("setup without `--files`"),
        "{said}"
    );
    let (_, said) = setup(&host, &[]);
    assert!(!said.contains("150 processes"), "{said}");
}

#[test]
fn a_command_line_of_pipebans_that_loses_lines_is_an_error_of_check() {
    let host = Host::new("");
    for (arguments, wrong) in [
        ("acces /var/log/x", Some("invalid value 'acces'")),
        (
            "access --format /var/log/x",
            Some("`--format` has no value"),
        ),
        ("access --mode /var/log/x", Some("`--mode` has no value")),
        ("access --link /var/log/x", Some("`--link` without PATH")),
        ("access --mode 0999 /var/log/x", Some("write it as 0640")),
        ("access -o /var/log/x", Some("cronolog's arguments")),
        ("--format common access /var/log/x", None),
        ("access --for-real --format=common /var/log/x", None),
    ] {
        let pipe = format!("CustomLog \"|/bin/pipeban log {arguments}\" common\n");
        let error = "ErrorLog \"|/bin/pipeban log error /e\"\n";
        let format = "LogFormat \"%h %l %u %t \\\"%r\\\" %>s %b\" common\n";
        host.write("apache2.conf", &format!("{error}{format}{pipe}"));
        let (_, said) = check(&host);
        let named = said.contains("CustomLog: ");
        assert_eq!(named, wrong.is_some(), "{arguments}: {said}");
        assert!(said.contains(wrong.unwrap_or("")), "{arguments}: {said}");
        let errors = said
            .lines()
            .filter(|line| line.starts_with("error: "))
            .count();
        assert_eq!(errors, usize::from(wrong.is_some()), "{arguments}: {said}");
    }
}

#[test]
fn a_configuration_that_does_not_exist_is_an_error_of_check() {
    let host = Host::new("");
    for (file, status) in [("missing.toml", 78), ("pipeban.toml", 0)] {
        let file = host.path(file);
        let pipe = format!(
            "CustomLog \"|{} log access --config={} {}\" combined\n",
            env!("CARGO_BIN_EXE_pipeban"),
            file.display(),
            host.path("access.log").display()
        );
        host.write("apache2.conf", &pipe);
        let (found, said) = check(&host);
        assert_eq!(found, status, "{said}");
        let named = said.contains("`--config` names ") && said.contains("which does not exist");
        assert_eq!(named, status == 78, "{said}");
    }
}

#[test]
fn an_owner_that_does_not_exist_is_named_by_check() {
    let host = Host::new("");
    for (owner, missing) in [
        ("wwwdata:adm", "user `wwwdata`"),
        ("root:amd", "group `amd`"),
        ("www-data:adm", ""),
        ("4711:4711", ""),
    ] {
        let line = format!("ErrorLog \"|/bin/pipeban log error --owner {owner} /var/log/e\"\n");
        host.write("apache2.conf", &line);
        let (_, said) = check(&host);
        assert_eq!(
            said.contains("new log files"),
            !missing.is_empty(),
            "{said}"
        );
        assert!(said.contains(missing), "{said}");
    }
}

#[test]
fn an_apache_without_conf_available_gets_its_lines_in_the_first_file() {
    if !Path::new("/usr/sbin/apache2").exists() {
        return crate::support::skip_without("apache2");
    }
    let host = Host::new("");
    let modules = "/usr/lib/apache2/modules";
    let before = format!(
        "ServerRoot {0}\nServerName x\nListen 127.0.0.1:8099\nPidFile {0}/pid\n\
         LoadModule mpm_event_module {modules}/mod_mpm_event.so\n\
         LoadModule authz_core_module {modules}/mod_authz_core.so\nErrorLog {0}/error_log\n",
        host.0.path().display()
    );
    host.write("apache2.conf", &before);
    let read = || std::fs::read_to_string(host.path("apache2.conf")).unwrap();
    let (status, said) = setup(&host, &["--write"]);
    assert_eq!(status, 0, "{said}");
    assert_eq!(read().matches("GlobalLog \"|").count(), 1, "{}", read());
    let (status, said) = check(&host);
    assert!(status == 0 && !said.contains("apache2.conf"), "{said}");
    let (status, said) = setup(&host, &[]);
    assert_eq!(status, 0, "{said}");
    let (status, said) = setup(&host, &["--remove", "--write"]);
    assert_eq!(status, 0, "{said}");
    assert_eq!(read(), before);
}

#[test]
fn cronologs_line_is_named_in_pipebans_form() {
    let host = Host::new("");
    for command in [
        "-S /var/l /var/%Y/a",
        "--symlink=/var/l /var/%Y/a",
        "-l /var/l /var/%Y/a",
    ] {
        let line = format!("CustomLog \"|/bin/cronolog {command}\" combined\n");
        host.write("apache2.conf", &format!("ErrorLog /e\n{line}"));
        let (_, said) = setup(&host, &["--files"]);
        assert!(said.contains("log access --link LINK PATH"), "{said}");
    }
    // In a line of pipeban's, a path with fields is shown as it is.
    for (path, example) in [("/var/%Y/a", "/var/%Y/a;"), ("/var/a", "/var/a.%F;")] {
        let line = format!("ErrorLog \"|/bin/pipeban log error -S /var/l {path}\"\n");
        host.write("apache2.conf", &line);
        let (_, said) = check(&host);
        assert!(said.contains(&format!("such as {example}")), "{said}");
    }
}

#[test]
fn the_line_in_place_of_logger_is_named() {
    let host = Host::new("");
    host.write("apache2.conf", "ErrorLog \"|/usr/bin/logger -t web\"\n");
    let (_, said) = setup(&host, &[]);
    assert!(said.contains("log error --syslog local1 PATH"), "{said}");
}

#[test]
fn an_address_before_that_of_the_client_decides_nothing() {
    let host = Host::new("");
    let line =
        "198.51.100.7 203.0.113.9 - - [22/Nov/2026:11:00:33 +0000] \"PUT /x HTTP/1.1\" 404 9";
    let filter = [
        "test",
        "--pattern",
        "^<HOST> .*\"PUT ",
        "--json",
        "--line",
        line,
    ];
    let (_, said) = host.says(&[&filter[..], &["--kind", "access"]].concat());
    assert!(said.contains("\"unparsed\""), "{said}");
    let format = "%{X-Real-IP}i %h %l %u %t \"%r\" %>s %b";
    let (_, said) = host.says(&[&filter[..], &["--format", format]].concat());
    assert!(!said.contains("\"match\""), "{said}");
}

#[test]
fn a_file_on_stdin_bans_only_for_real() {
    let host = Host::new("[jails.x]\nlog = \"error\"\nfilter = \"f\"\nmaxretry = 1\n");
    let filter = "[Definition]\nfailregex = \\[client <HOST>:\\d+\\] AH10244\nignoreregex =\n";
    host.write("filters.d/f.conf", filter);
    let line = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 1:tid 2] [client \
                198.51.100.10:4910] AH10244: invalid URI path (/cgi-bin/.%2e/.%2e/bin/sh)\n";
    host.write("line", line);
    let output = Command::new(env!("CARGO_BIN_EXE_pipeban"))
        .arg("--config")
        .arg(host.path("pipeban.toml"))
        .args(["log", "error"])
        .stdin(std::fs::File::open(host.path("line")).unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Ban 198.51.100.10"), "{said}");
    assert!(said.contains("`--for-real` bans"), "{said}");
    assert!(!host.path("run").exists(), "no engine was started");
}

#[test]
fn a_file_of_fail2bans_that_a_shipped_filter_hides_is_named() {
    let hidden = "/etc/fail2ban/filter.d/apache-modsecurity.conf";
    if !Path::new(hidden).exists() {
        return crate::support::skip_without("fail2ban");
    }
    let jail = "[jails.x]\nlog = \"error\"\nfilter = \"apache-modsecurity\"\n";
    let host = Host::new(jail);
    std::os::unix::fs::symlink(
        concat!(env!("CARGO_MANIFEST_DIR"), "/config"),
        host.path("share"),
    )
    .unwrap();
    let hint = format!("hint: {hidden}: this file is not used, because the shipped ");
    let (_, said) = check(&host);
    assert!(said.contains(&hint), "{said}");
    // As the hint says.
    let text = std::fs::read_to_string(hidden).unwrap();
    host.write("filters.d/apache-modsecurity.conf", &text);
    std::fs::copy(
        Path::new(hidden).with_file_name("apache-common.conf"),
        host.path("filters.d/apache-common.conf"),
    )
    .unwrap();
    let (_, said) = check(&host);
    assert!(!said.contains("this file is not used"), "{said}");
}

#[test]
fn check_show_names_every_line_that_sets_a_part_of_a_table() {
    let host = Host::new(
        "[defaults]\nincrement = { factor = 5 }\n[jails.x]\nlog = \"error\"\nfilter = \"f\"\n\
         increment.maxtime = \"9d\"\n[jails.y]\nlog = \"error\"\nfilter = \"f\"\n",
    );
    let filter = "[Definition]\nfailregex = <HOST> x\nignoreregex =\n";
    host.write("filters.d/f.conf", filter);
    let begin = format!("{}:", host.path("pipeban.toml").display());
    for (jail, lines) in [("x", "10, 6"), ("y", "6")] {
        let (status, said) = host.says(&["check", "--show", jail]);
        assert_eq!(status, 0, "{said}");
        let line = said.lines().find(|line| line.starts_with("increment"));
        let (_, from) = line.unwrap().split_once("# ").unwrap();
        assert_eq!(from.replace(&begin, ""), lines, "{said}");
    }
}

#[test]
fn help_shows_directives_in_lines_that_can_be_copied() {
    let output = Command::new(env!("CARGO_BIN_EXE_pipeban"))
        .args(["log", "--help"])
        .env("COLUMNS", "80")
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for (directive, end) in [
        ("GlobalLog", "pipeban"),
        ("ErrorLog", "error.log\""),
        ("CustomLog", "combined"),
    ] {
        let line = help.lines().find(|line| line.trim().starts_with(directive));
        assert!(line.is_some_and(|line| line.ends_with(end)), "{help}");
    }
}
