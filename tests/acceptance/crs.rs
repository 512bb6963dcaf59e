use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use pipeban::record::{Kind, Parser, unescape};

use crate::detect::{Line, data, judge, lines_of};
use crate::support::{eventually, skip_without};

const MODULES: &str = "/usr/lib/apache2/modules";
const RULES: &str = "/usr/share/modsecurity-crs/rules";

/// fail2ban's filters for attacks in access logs.
const FAIL2BAN: [&str; 4] = [
    "apache-badbots",
    "nginx-bad-request",
    "nginx-botsearch",
    "php-url-fopen",
];

/// Apache with ModSecurity and the Core Rule Set, which answers 406 to what it refuses.
struct Server {
    apache: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start(paranoia: u32) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().display();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut conf = format!(
            "ServerRoot {root}\nPidFile {root}/pid\nListen {address}\nServerName www.example.org\n\
             ErrorLog {root}/error.log\nDocumentRoot {root}\n"
        );
        for (name, file) in [
            ("mpm_event_module", "mod_mpm_event"),
            ("authz_core_module", "mod_authz_core"),
            ("unique_id_module", "mod_unique_id"),
            ("security2_module", "mod_security2"),
        ] {
            conf += &format!("LoadModule {name} {MODULES}/{file}.so\n");
        }
        conf += &format!(
            "SecRuleEngine On\nSecDataDir {root}\n\
             SecAction \"id:900000,phase:1,nolog,pass,setvar:tx.paranoia_level={paranoia}\"\n\
             IncludeOptional /etc/modsecurity/crs/crs-setup.conf\nInclude {RULES}/*.conf\n\
             SecRuleUpdateActionById 949110 \"deny,status:406\"\n"
        );
        let file = directory.path().join("httpd.conf");
        std::fs::write(&file, conf).unwrap();
        let apache = Command::new("/usr/sbin/apache2")
            .args(["-D", "FOREGROUND", "-f"])
            .arg(file)
            .spawn()
            .unwrap();
        eventually("Apache answers", || {
            TcpStream::connect(address).map_err(|error| error.to_string())
        });
        Server {
            apache,
            address,
            _directory: directory,
        }
    }

    /// Whether the rules refuse the request of an access line.
    fn refuses(&self, line: &[u8]) -> bool {
        let formats = ["combined", "vhost_combined", "common", "vhost_common"];
        let mut parsers = formats
            .iter()
            .map(|format| Parser::new(Kind::Access, format).unwrap());
        let found = parsers.find_map(|parser| {
            let record = parser.parse(line)?;
            let text = |field: Option<&[u8]>| {
                let field = field.filter(|field| *field != b"-").unwrap_or_default();
                unescape(field).into_owned()
            };
            Some([record.request, record.referer, record.agent].map(text))
        });
        let Some([mut request, referer, agent]) = found else {
            return false;
        };
        request.extend(b"\r\nHost: www.example.org\r\nAccept: */*\r\nConnection: close\r\n");
        for (name, value) in [("Referer", referer), ("User-Agent", agent)] {
            if !value.is_empty() {
                request.extend([name.as_bytes(), b": ", &value, b"\r\n"].concat());
            }
        }
        if !request.starts_with(b"GET ") {
            request.extend(b"Content-Length: 0\r\n");
        }
        request.extend(b"\r\n");
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut answer = Vec::new();
        // Apache may close before it has read what is no HTTP.
        let _ = stream.write_all(&request);
        let _ = stream.read_to_end(&mut answer);
        answer.starts_with(b"HTTP/1.1 406")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.apache.id().try_into().unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.apache.wait();
    }
}

/// The lines that a filter of fail2ban for access logs matches.
fn matched_by_fail2ban(lines: &[Line]) -> BTreeSet<Vec<u8>> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text: Vec<_> = lines.iter().map(Line::bytes).collect();
    std::fs::write(file.path(), text.join(&b'\n')).unwrap();
    let mut matched = BTreeSet::new();
    for filter in FAIL2BAN {
        let output = Command::new("/usr/bin/fail2ban-regex")
            .args(["--out", "msg"])
            .arg(file.path())
            .arg(format!("/etc/fail2ban/filter.d/{filter}.conf"))
            .output()
            .unwrap();
        let lines = output.stdout.split(|byte| *byte == b'\n');
        matched.extend(lines.map(<[u8]>::to_vec));
    }
    matched
}

/// Access lines that one line is enough to know, by class; for the benign ones one class.
fn lines(file: &str) -> BTreeMap<String, Vec<Line>> {
    let mut classes: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for line in lines_of(&data().join(file)) {
        let benign = file.starts_with("benign");
        if line.kind == Kind::Access && (benign || line.conf == "high") {
            let class = if benign { "benign" } else { &line.class };
            classes.entry(class.to_owned()).or_default().push(line);
        }
    }
    classes
}

#[test]
fn the_shipped_filters_find_more_than_fail2ban_and_the_core_rule_set() {
    for (path, package) in [
        ("/usr/sbin/apache2", "apache2"),
        (
            "/usr/lib/apache2/modules/mod_security2.so",
            "libapache2-mod-security2",
        ),
        (RULES, "modsecurity-crs"),
        ("/usr/bin/fail2ban-regex", "fail2ban"),
    ] {
        if !Path::new(path).exists() {
            return skip_without(package);
        }
    }
    let mut shares: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut all = lines("attack.jsonl");
    all.extend(lines("benign.jsonl"));
    let mut note = |class: &String, lines: &[Line], found: &mut dyn FnMut(&Line) -> bool| {
        let count = lines.iter().filter(|line| found(line)).count();
        #[expect(clippy::cast_precision_loss, reason = "a few thousand lines")]
        let share = 100.0 * count as f64 / lines.len() as f64;
        shares.entry(class.clone()).or_default().push(share);
    };
    for (class, lines) in &all {
        note(class, lines, &mut |line| {
            judge().verdict(line.kind, &line.bytes()).0
        });
    }
    for (class, lines) in &all {
        let matched = matched_by_fail2ban(lines);
        note(class, lines, &mut |line| matched.contains(&line.bytes()));
    }
    for paranoia in [1, 4] {
        let server = Server::start(paranoia);
        for (class, lines) in &all {
            note(class, lines, &mut |line| server.refuses(&line.bytes()));
        }
    }
    println!(
        "{:16} lines  pipeban %  fail2ban %  CRS 1 %  CRS 4 %",
        "class"
    );
    let show = |name: &str, lines: usize, shares: &[f64]| {
        let [ours, fail2ban, one, four] = shares.try_into().unwrap();
        println!("{name:16} {lines:5} {ours:10.1} {fail2ban:11.1} {one:8.1} {four:8.1}");
    };
    for (class, shares) in &shares {
        show(class, all[class].len(), shares);
    }
    let benign = shares.remove("benign").unwrap();
    let mut means = vec![0.0; 4];
    for found in shares.values() {
        for (mean, share) in means.iter_mut().zip(found) {
            *mean += share / f64::from(u32::try_from(shares.len()).unwrap());
        }
    }
    show("mean of classes", 0, &means);
    assert!(means[1] > 1.0, "fail2ban is not at work: {means:?}");
    assert!(means[2] > 30.0, "the rule set is not at work: {means:?}");
    assert!(
        means[1..].iter().all(|other| means[0] > *other),
        "{means:?}"
    );
    assert!(benign[0] <= benign[2], "{benign:?}");
}
