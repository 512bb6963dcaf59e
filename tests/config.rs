//! Configuration, `check` and `setup` as a user meets them: files in, output and status out.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pipeban::config::{self, Log, SearchEngines};
use pipeban::disk;

use crate::support::skip_without;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pipeban(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pipeban"))
        .args(arguments)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A directory with a configuration that uses the repository's shipped jails.
struct Etc(tempfile::TempDir);

impl Etc {
    fn new(text: &str) -> Etc {
        let etc = Etc(tempfile::tempdir().unwrap());
        let share = repository().join("config");
        etc.write(
            "pipeban.toml",
            &format!(
                "[paths]\nshare = \"{}\"\nstate = \"{}\"\n{text}",
                share.display(),
                etc.0.path().join("state").display()
            ),
        );
        // An Apache with nothing in it, so that this machine's does not speak.
        etc.write(
            "apache/apache2.conf",
            "ErrorLog \"|/bin/pipeban log error /e\"\nGlobalLog \"|/bin/pipeban log access\" x\n",
        );
        etc
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let config = self.path("pipeban.toml");
        let mut all = vec!["--config", config.to_str().unwrap()];
        all.extend(arguments);
        pipeban(&all)
    }

    fn check(&self, arguments: &[&str]) -> Output {
        let root = self.path("apache/apache2.conf");
        let mut all = vec!["check", "--apache-config", root.to_str().unwrap()];
        all.extend(arguments);
        self.run(&all)
    }
}

#[test]
fn the_shipped_configuration_is_what_is_built_in() {
    let shipped = fs::read_to_string(repository().join("config/pipeban.toml")).unwrap();
    let as_shipped = Etc::new("");
    as_shipped.write("pipeban.toml", &shipped);
    // With every default written out.
    let uncommented: String = shipped
        .lines()
        .map(|line| {
            line.strip_prefix("# ")
                .filter(|rest| is_setting(rest))
                .unwrap_or(line)
        })
        .map(|line| format!("{line}\n"))
        .take_while(|line| !line.contains("my-site"))
        .collect();
    let written_out = Etc::new("");
    written_out.write("pipeban.toml", &uncommented);
    assert!(uncommented.matches(" = ").count() > 20, "{uncommented}");
    let load = |etc: &Etc| disk::load(&etc.path("pipeban.toml")).unwrap();
    assert_eq!(load(&as_shipped), load(&written_out));
}

#[test]
fn the_shipped_configuration_shows_the_default_of_every_key() {
    let shipped = fs::read_to_string(repository().join("config/pipeban.toml")).unwrap();
    for key in config::keys() {
        let section = shipped.split(&format!("\n[{}]\n", key.section)).nth(1);
        // Required keys, and keys of inline tables, have examples only.
        if section.is_none() || ["log", "filter", "command"].contains(&key.key) {
            continue;
        }
        let section = section.unwrap().split("\n[").next().unwrap();
        let shown = section.lines().any(|line| {
            let setting = line
                .strip_prefix("# ")
                .and_then(|line| line.split_once('='));
            let setting = setting.map(|(name, rest)| (name.trim(), rest.trim()));
            setting.is_some_and(|(name, rest)| name == key.key && rest.starts_with(key.default))
        });
        assert!(shown, "[{}] {} = {}", key.section, key.key, key.default);
    }
}

/// `key = value`, not prose.
fn is_setting(line: &str) -> bool {
    line.split_once('=').is_some_and(|(key, _)| {
        let key = key.trim();
        !key.is_empty()
            && key
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit())
    })
}

#[test]
fn a_list_of_proxies_is_named_and_an_own_one_goes_first() {
    let etc = Etc::new("[proxies]\ntrusted = [\"cloudflare\", \"fastly\", \"192.0.2.0/24\"]\n");
    let trusted = |etc: &Etc| {
        let config = disk::load(&etc.path("pipeban.toml")).unwrap();
        let nets = config.trusted_proxies.iter().map(ToString::to_string);
        nets.collect::<Vec<_>>()
    };
    let shipped = trusted(&etc);
    for net in [
        "192.0.2.0/24",
        "173.245.48.0/20",
        "2606:4700::/32",
        "151.101.0.0/16",
    ] {
        assert!(shipped.iter().any(|known| known == net), "{net}");
    }
    etc.write("proxies.d/cloudflare.txt", "203.0.113.0/24 # newer\n");
    let own = trusted(&etc);
    assert!(own.contains(&"203.0.113.0/24".to_owned()));
    assert!(!own.contains(&"173.245.48.0/20".to_owned()));
    // each shipped list says from where and from when it is
    for entry in fs::read_dir(repository().join("config/proxies.d")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(
            text.contains("# Source: https://") && text.contains("# As of:  20"),
            "{text}"
        );
    }
    let etc = Etc::new("[proxies]\ntrusted = [\"cloudflair\"]\n");
    let problems = disk::load(&etc.path("pipeban.toml")).unwrap_err();
    assert!(
        problems[0].message.contains("did you mean `cloudflare`"),
        "{problems:?}"
    );
    etc.write("proxies.d/cloudflair.txt", "203.0.113.0/24\nnonsense\n");
    let problems = disk::load(&etc.path("pipeban.toml")).unwrap_err();
    assert_eq!(problems[0].place, Some((2, 1)), "{problems:?}");
}

#[test]
fn a_list_of_search_engines_is_read_and_an_own_one_replaces_it() {
    let etc = Etc::new("");
    let names = |etc: &Etc| -> Vec<String> {
        let config = disk::load(&etc.path("pipeban.toml")).unwrap();
        let engines = config.search_engines.into_iter();
        engines.map(|engine| engine.name).collect()
    };
    let shipped = names(&etc);
    assert!(shipped.contains(&"Googlebot".to_owned()) && shipped.contains(&"bingbot".to_owned()));
    etc.write("search-engines.txt", "Mybot example.org\n");
    assert_eq!(names(&etc), ["Mybot"]);
    etc.write("search-engines.txt", "Mybot example.org\nnonsense\n");
    let problems = disk::load(&etc.path("pipeban.toml")).unwrap_err();
    assert_eq!(problems[0].place, Some((2, 1)), "{problems:?}");
    // each engine of the shipped list has the page that documents it
    let text = fs::read_to_string(repository().join("config/search-engines.txt")).unwrap();
    assert!(text.contains("# As of:  20"));
    for part in text.split("\n\n").skip(1) {
        assert!(part.starts_with("# Source: https://"), "{part}");
    }
}

#[test]
fn the_ignorecommand_of_apache_fakegooglebot_is_served_and_others_are_refused() {
    let jail = "[jails.x]\nlog = \"access\"\nfilter = \"apache-scanners\"\n";
    let policy = |text: &str| {
        let etc = Etc::new(text);
        let config = disk::load(&etc.path("pipeban.toml"));
        config.map(|config| {
            let warned = config
                .warnings
                .iter()
                .map(|w| w.message.clone())
                .collect::<String>();
            (config.jails[&"x".parse().unwrap()].search_engines, warned)
        })
    };
    let (spared, warned) = policy(jail).unwrap();
    assert_eq!((spared, warned.as_str()), (SearchEngines::Spare, ""));
    for command in [
        "/etc/fail2ban/filter.d/ignorecommands/apache-fakegooglebot <ip>",
        "%(ignorecommands_dir)s/apache-fakegooglebot <ip>",
        "/usr/local/etc/fail2ban/filter.d/ignorecommands/apache-fakegooglebot <F-ID>",
        "python3 /opt/f2b/apache-fakegooglebot '<ip>'",
    ] {
        let (served, warned) = policy(&format!("{jail}ignorecommand = \"{command}\"\n")).unwrap();
        assert_eq!(served, SearchEngines::BanFake);
        assert!(
            warned.contains("enable the shipped jail `apache-fake-bot`"),
            "{warned}"
        );
    }
    // No command, also for all jails.
    for text in [
        format!("{jail}ignorecommand = \"\"\n"),
        format!("[defaults]\nignorecommand = \" \"\n{jail}"),
    ] {
        let (spared, warned) = policy(&text).unwrap();
        assert_eq!((spared, warned.as_str()), (SearchEngines::Spare, ""));
    }
    let problems = policy(&(jail.to_owned() + "ignorecommand = \"/bin/x <ip>\"\n")).unwrap_err();
    assert!(
        problems[0].message.contains("runs no such program"),
        "{problems:?}"
    );
}

#[test]
fn every_shipped_jail_is_on_and_mild() {
    let off = ["apache-ai-crawlers", "apache-flood", "apache-sweep"];
    let enabled = off.map(|jail| format!("[jails.{jail}]\nenabled = true\n"));
    let etc = Etc::new(&enabled.concat());
    let config = disk::load(&etc.path("pipeban.toml")).unwrap();
    assert!(config.jails.len() >= 9);
    let recidive = &config.jails[&"recidive".parse().unwrap()];
    assert!(!recidive.enabled && recidive.log == Log::Bans);
    let fake_bot = &config.jails[&"apache-fake-bot".parse().unwrap()];
    assert!(fake_bot.enabled && !fake_bot.enforce);
    let reading = config
        .jails
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "recidive" | "apache-fake-bot"));
    for (name, jail) in reading {
        assert!(jail.enabled && jail.enforce, "{name}");
        let increment = jail.increment.as_ref().unwrap();
        assert!(
            jail.bantime.is_some_and(|time| time.as_secs() <= 3_600),
            "{name}"
        );
        assert_eq!(
            (
                increment.factor,
                increment.maxtime.as_secs(),
                increment.memory.as_secs()
            ),
            (None, 604_800, 2_592_000)
        );
        let filter = &config.filters[&jail.filter];
        assert!(!filter.failregex.is_empty());
        assert!(!filter.native.is_empty(), "{name}");
    }
    let used = config.filters.values().flat_map(|filter| &filter.native);
    let used: BTreeSet<&Path> = used.map(|text| text.file.as_path()).collect();
    for file in fs::read_dir(repository().join("config/filters.d")).unwrap() {
        let file = file.unwrap().path();
        assert!(
            used.contains(file.as_path()),
            "no jail uses {}",
            file.display()
        );
    }
    let output = etc.check(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stdout(&output).ends_with("0 hints\n") && !stdout(&output).contains("filters.d"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn the_tutorials_example_is_accepted_as_printed_and_bans_for_a_year() {
    let etc = Etc::new("");
    let examples = repository().join("config/examples");
    etc.write(
        "conf.d/tutorial.toml",
        &fs::read_to_string(examples.join("tutorial.toml")).unwrap(),
    );
    let filter = fs::read_to_string(examples.join("filters.d/apache-cgitraversal.conf")).unwrap();
    assert!(filter.contains(
        "\nfailregex = \\[client <HOST>:\\d+\\] AH10244: invalid URI path \\(.*cgi-bin.*bin/sh.*\n"
    ));
    etc.write("filters.d/apache-cgitraversal.conf", &filter);
    let config = disk::load(&etc.path("pipeban.toml")).unwrap();
    let jail = &config.jails[&"apache-cgitraversal".parse().unwrap()];
    assert_eq!(
        (jail.maxretry, jail.bantime.unwrap().as_secs()),
        (1, 31_536_000)
    );
    assert!(
        jail.increment
            .as_ref()
            .is_some_and(|increment| increment.maxtime.as_secs() >= 31_536_000)
    );
    assert_eq!(
        config.filters["apache-cgitraversal"].file,
        etc.path("filters.d/apache-cgitraversal.conf")
    );
    let output = etc.check(&[]);
    assert_eq!(output.status.code(), Some(0));
    // It is not anchored: `check` proves what that means.
    let text = stdout(&output);
    let place = etc.path("filters.d/apache-cgitraversal.conf");
    let place = format!("warning: {}:7:13: pattern 1 of", place.display());
    assert!(text.contains(&place), "{text}");
    let attack = text.lines().find_map(|line| line.strip_prefix("    "));
    let attack = attack.unwrap_or_else(|| panic!("{text}"));
    let judged = |kind: &str| {
        let filter = ["--filter", "apache-cgitraversal", "--kind", kind];
        let arguments = [&["test", "--json"], &filter[..], &["--line", attack]].concat();
        let text = stdout(&etc.run(&arguments));
        let verdict: serde_json::Value = serde_json::from_str(&text).unwrap();
        (verdict["verdict"].clone(), verdict["host"].clone())
    };
    assert_eq!(judged("raw"), ("match".into(), "198.51.100.7".into()));
    assert_eq!(judged("error"), ("spoof".into(), serde_json::Value::Null));
}

#[test]
fn wrong_patterns_cause_warnings_in_text_and_json() {
    let etc = Etc::new(
        "[jails.a]\nenabled = false\nlog = \"access\"\nfilter = \"f\"\n[jails.b]\nlog = \"access\"\nfilter = \"f\"\n",
    );
    etc.write(
        "filters.d/f.conf",
        "[Definition]\nfailregex = ^<HOST> - .*evil\n            ^<HOST> - .*evil\n            ^\\[\\] \\[\\S+\\] .*\\[client <HOST>\nignoreregex = ^<HOST> - bob\n",
    );
    let output = etc.check(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let file = etc.path("filters.d/f.conf").display().to_string();
    let text = stdout(&output);
    let expected =
        format!("warning: {file}:3:13: pattern 2 of filter `f` is the same as pattern 1: remove");
    assert_eq!(text.matches(&expected).count(), 1, "{text}");
    // The filter alone; its logs are those of its jails.
    let json = stdout(&etc.run(&["check", "--filter", "f", "--json"]));
    let objects: Vec<serde_json::Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [duplicate, summary] = objects.as_slice() else {
        panic!("{json}");
    };
    assert_eq!(duplicate["lint"], "duplicate");
    assert_eq!(duplicate["file"], file.as_str());
    assert_eq!(
        (&duplicate["line"], &duplicate["column"]),
        (&3.into(), &13.into())
    );
    assert_eq!(
        (&duplicate["option"], &duplicate["pattern"]),
        (&"failregex".into(), &2.into())
    );
    assert_eq!(duplicate["severity"], "warning");
    assert_eq!(summary["warnings"], 1);
    // A file that no jail names is checked for both logs; a broken one ends with 78.
    let text = stdout(&etc.run(&["check", "--filter", &file]));
    assert!(
        text.contains(":4:13: pattern 3 of filter `f` is spoofable"),
        "{text}"
    );
    assert!(
        text.ends_with("OK: filter `f`, 3 patterns, 2 warnings\n"),
        "{text}"
    );
    etc.write("filters.d/g.conf", "[Definition]\nfailregex = ^<HOST> (\n");
    let output = etc.run(&["check", "--filter", "g"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).contains("g.conf:2:13"),
        "{}",
        stderr(&output)
    );
    assert_eq!(
        etc.run(&["check", "--filter", "nothing"]).status.code(),
        Some(2)
    );
}

#[test]
fn check_shows_every_error_with_its_place_and_ends_with_78() {
    let etc = Etc::new(
        "[defaults]\nmaxretyr = 3\n[jails.a]\nlog = \"error\"\nfilter = \"apache-phpunitt\"\n",
    );
    etc.write("conf.d/10-x.toml", "[jails.b]\nlog = 5\n");
    etc.write("conf.d/20-y.toml.bak", "not read");
    let output = etc.check(&[]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(stdout(&output), "");
    let text = stderr(&output);
    let main = etc.path("pipeban.toml");
    let main = main.display();
    let extra = etc.path("conf.d/10-x.toml");
    for expected in [
        format!(
            "{main}:5:1: unknown key `maxretyr` in `[defaults]`: did you mean `maxretry`?\n  |\n5 | maxretyr = 3\n  | ^^^^^^^^\n"
        ),
        format!(
            "{}:2:7: expected text in quotes, found the number 5\n",
            extra.display()
        ),
        format!(
            "{main}:8:1: jail `a`: no filter `apache-phpunitt` (did you mean `apache-phpunit`?)"
        ),
    ] {
        assert!(text.contains(&expected), "{expected}\n---\n{text}");
    }
    let json = stdout(&etc.check(&["--json"]));
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(
        (first["line"].as_u64(), first["column"].as_u64()),
        (Some(5), Some(1))
    );
    // The same line is an error with a broken pattern, in the filter's own file.
    etc.write("pipeban.toml", "[jails.a]\nlog = \"error\"\n");
    etc.write("conf.d/10-x.toml", "");
    etc.write(
        "filters.d/a.conf",
        "[Definition]\nfailregex = ^<HOST> ok\n            ^<HOST> (\n",
    );
    let text = stderr(&etc.check(&[]));
    assert!(
        text.contains(&format!("{}:3:", etc.path("filters.d/a.conf").display())),
        "{text}"
    );
}

#[test]
fn check_warns_of_what_works_and_does_nothing() {
    let etc = Etc::new("");
    let share = etc.path("share");
    let text = format!("[paths]\nshare = {share:?}\n[jails.a]\nlog = \"access\"\n");
    etc.write("pipeban.toml", &text);
    etc.write("apache/apache2.conf", "");
    etc.write(
        "filters.d/a.toml",
        "[[match]]\npath = '^/a$'\nhit = ['GET /a HTTP/1.1', 'GET /b HTTP/1.1']\n\
         miss = 'GET /a?x HTTP/1.1'\n",
    );
    etc.write("filters.d/a.conf", "[Definition]\nfailregex = ^<HOST> a\n");
    let text = stdout(&etc.check(&[]));
    let (native, old) = (etc.path("filters.d/a.toml"), etc.path("filters.d/a.conf"));
    for expected in [
        format!("warning: {}: this file is not used, because", old.display()),
        format!(
            "{}:1:1: pattern 1 of filter `a` does not hit a sample",
            native.display()
        ),
        format!(
            "{}:1:1: pattern 1 of filter `a` hits a sample",
            native.display()
        ),
    ] {
        assert!(text.contains(&expected), "{expected}\n---\n{text}");
    }
    assert!(!text.contains("GET /a HTTP"), "{text}");
    let b = "[jails.b]\nlog = \"access\"\nfilter = \"a\"\nignoreip = [\"::/0\", \"10.0.0.0/8\"]\n";
    let all = "[proxies]\ntrusted = [\"0.0.0.0/1\"]\n[defaults]\nignoreip = [\"0.0.0.0/0\"]\n";
    etc.write("conf.d/all.toml", &format!("{all}{b}"));
    let text = stdout(&etc.check(&[]));
    for expected in [
        "warning: no jail bans a client of 0.0.0.0/1: it is in `trusted` of [proxies]\n",
        "warning: jail `a` never bans a client of 0.0.0.0/0: it is in `ignoreip`\n",
        "warning: jail `b` never bans a client of ::/0: it is in `ignoreip`\n",
    ] {
        assert!(text.contains(expected), "{expected}\n---\n{text}");
    }
    assert!(!text.contains("10.0.0.0/8"), "{text}");
    std::fs::remove_file(etc.path("conf.d/all.toml")).unwrap();
    etc.write("conf.d/off.toml", "[jails.a]\nenabled = false\n");
    let text = stdout(&etc.check(&[]));
    assert!(text.starts_with("warning: no jail is enabled"), "{text}");
}

#[test]
fn a_broken_line_brings_no_errors_but_its_own() {
    let etc = Etc::new("[defaults]\nmaxretry = = 3\n[jails.x]\nlog = \"access\"\nfiltre = \"a\"\n");
    let text = stderr(&etc.check(&[]));
    let main = etc.path("pipeban.toml").display().to_string();
    let places: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix(&main)?.split(' ').next())
        .collect();
    assert_eq!(places, [":5:12:", ":5:14:", ":8:1:"], "{text}");
    assert!(text.contains("did you mean `filter`?"), "{text}");
    // Nothing else is wrong: then the missing filter itself is text.
    etc.write("pipeban.toml", "[jails.x]\nlog = \"access\"\n");
    let text = stderr(&etc.check(&[]));
    assert!(
        text.contains(":1:8: jail `x`: no `filter` is set, and no filter `x` exists"),
        "{text}"
    );
}

#[test]
fn a_jail_for_some_hosts_needs_logs_that_name_them() {
    let etc = Etc::new(
        "[jails.a]\nlog = \"access\"\nfilter = \"apache-phpunit\"\nvhost = [\"x.example\"]\n",
    );
    let apache = |format: &str| {
        etc.write(
            "apache/apache2.conf",
            &format!(
                "LogFormat \"{format} %h\" f\nErrorLog \"|/bin/pipeban log error /e\"\nGlobalLog \"|/bin/pipeban log access\" f\n"
            ),
        );
        stdout(&etc.check(&[]))
    };
    let text = apache("%u");
    assert!(
        text.contains(
            "the format of this GlobalLog lacks the virtual host, so jail `a` ignores its lines"
        ),
        "{text}"
    );
    assert!(!apache("%>v:%p").contains("lacks the virtual host"));
}

#[test]
fn a_missing_configuration_says_what_to_do() {
    let output = pipeban(&["--config", "/nonexistent/p.toml", "check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).starts_with("/nonexistent/p.toml: not found: check `--config`"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_disabled_jail_needs_no_filter() {
    let etc = Etc::new(
        "[jails.a]\nlog = \"error\"\nenabled = false\nfilter = \"none\"\n[jails.b]\nenabled = false\n",
    );
    let output = etc.check(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("jail `b` is disabled here and defined nowhere"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn show_prints_a_jail_with_the_place_of_each_key() {
    let etc = Etc::new("[defaults]\nbantime = \"2h\"\n[jails.apache-phpunit]\nmaxretry = 2\n");
    let output = etc.check(&["--show", "apache-phpunit"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let shown = stdout(&output);
    let main = etc.path("pipeban.toml");
    for (start, end) in [
        ("bantime = \"2h\"", format!("# {}:5", main.display())),
        ("maxretry = 2", format!("# {}:7", main.display())),
        ("ipv6_prefix = 64", "# built in".into()),
        ("filter = \"apache-phpunit\"", "jails.d/apache.toml:".into()),
    ] {
        assert!(
            shown
                .lines()
                .any(|line| line.starts_with(start) && line.contains(&end)),
            "{start}: {shown}"
        );
    }
    let output = etc.check(&["--show", "none"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("the jails are: apache-ai-crawlers, apache-attacks"));
}

#[test]
fn fail2bans_words_are_answered_with_the_command_that_was_meant() {
    let output = pipeban(&["set", "apache-auth", "unbanip", "192.0.2.7"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(
        stderr(&output).contains("pipeban unban 192.0.2.7 --jail apache-auth"),
        "{}",
        stderr(&output)
    );
    let output = pipeban(&["stauts"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("status"));
}

/// A copy of this machine's Apache configuration with one more site; `None`, loudly, without one.
fn apache(etc: &Etc) -> Option<PathBuf> {
    let root = etc.path("apache2");
    let copied = Path::new("/etc/apache2/apache2.conf").exists()
        && Path::new("/usr/sbin/apache2").exists()
        && Command::new("cp")
            .args(["-a", "/etc/apache2"])
            .arg(&root)
            .status()
            .unwrap()
            .success();
    if !copied {
        skip_without("apache2");
        return None;
    }
    // Where apache2ctl never ran, /run/apache2 is not there.
    let run = etc.path("apache2-run");
    std::fs::create_dir(&run).unwrap();
    let envvars = std::fs::read_to_string(root.join("envvars")).unwrap();
    let envvars = format!("{envvars}\nexport APACHE_RUN_DIR={}\n", run.display());
    etc.write("apache2/envvars", &envvars);
    etc.write(
        "apache2/sites-available/shop.conf",
        "<VirtualHost *:8088>\n\tServerName shop.example.org\n\tErrorLog \"${APACHE_LOG_DIR}/shop error.log\"\n\tCustomLog ${APACHE_LOG_DIR}/shop.log combined\n</VirtualHost>\n<VirtualHost *:8087>\n\tServerName none.of.its.own\n</VirtualHost>\n",
    );
    // Written elsewhere, on Windows, for a module.
    etc.write(
        "outside/ssl.conf",
        "<IfModule mod_authz_core.c>\r\n<VirtualHost *:8089>\r\n\tErrorLog \\\r\n ${APACHE_LOG_DIR}/ssl.log\r\n\tTransferLog ${APACHE_LOG_DIR}/t.log\r\n</VirtualHost>\r\n</IfModule>\r\n",
    );
    symlink(
        etc.path("outside/ssl.conf"),
        root.join("sites-enabled/ssl.conf"),
    )
    .unwrap();
    symlink(
        "../sites-available/shop.conf",
        root.join("sites-enabled/shop.conf"),
    )
    .unwrap();
    let program = etc.path("pipeban");
    fs::copy(env!("CARGO_BIN_EXE_pipeban"), &program).unwrap();
    let snippet = fs::read_to_string(repository().join("apache-conf/pipeban.conf")).unwrap();
    let snippet = snippet.replace("|/usr/bin/pipeban", &format!("|{}", program.display()));
    etc.write("apache2/conf-available/pipeban.conf", &snippet);
    let deny = fs::read_to_string(repository().join("apache-conf/pipeban-deny.conf")).unwrap();
    etc.write("apache2/conf-available/pipeban-deny.conf", &deny);
    Some(root)
}

/// Every file below with its text, links by where they lead.
fn tree(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut names: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    for path in names {
        if path.is_symlink() {
            let to = fs::read_link(&path).unwrap();
            found.push((path, to.into_os_string().into_encoded_bytes()));
        } else if path.is_dir() {
            found.extend(tree(&path));
        } else {
            let text = fs::read(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

#[test]
fn setup_fits_into_debians_apache_and_goes_without_a_trace() {
    let etc = Etc::new("[firewall]\nbackend = [\"ufw\", \"apache\"]\n");
    let Some(apache) = apache(&etc) else { return };
    let before = tree(&apache);
    let root = apache.join("apache2.conf");
    let program = etc.path("pipeban");
    let setup = |arguments: &[&str]| {
        let mut all = vec![
            "setup",
            "--apache-config",
            root.to_str().unwrap(),
            "--program",
            program.to_str().unwrap(),
        ];
        all.extend(arguments);
        etc.run(&all)
    };
    for files in [&[][..], &["--files"][..]] {
        let look = setup(files);
        assert_eq!(look.status.code(), Some(1), "{}", stderr(&look));
        assert!(
            stdout(&look).contains("'${APACHE_LOG_DIR}/shop error.log'"),
            "{}",
            stdout(&look)
        );
        assert_eq!(tree(&apache), before, "looking changes nothing");
        let written = setup(&[files, &["--write"]].concat());
        assert_eq!(written.status.code(), Some(0), "{}", stderr(&written));
        assert!(apache.join("conf-enabled/pipeban-deny.conf").exists());
        for site in ["shop", "ssl"] {
            let site = apache.join(format!("sites-enabled/{site}.conf"));
            assert!(site.is_symlink(), "links stay links");
        }
        let outside = fs::read_to_string(etc.path("outside/ssl.conf")).unwrap();
        assert!(
            outside.contains("pipeban")
                && outside.contains(" log error ${APACHE_LOG_DIR}/ssl.log\"\r\n")
                && outside.matches('\n').count() == outside.matches("\r\n").count(),
            "{outside}"
        );
        let again = setup(files);
        assert_eq!(again.status.code(), Some(0), "{}", stdout(&again));
        let check = etc.run(&["check", "--apache-config", root.to_str().unwrap()]);
        assert!(
            stdout(&check).contains(" 0 warnings,"),
            "{}",
            stdout(&check)
        );
        let removed = setup(&["--remove", "--write"]);
        assert_eq!(removed.status.code(), Some(0), "{}", stderr(&removed));
        assert_eq!(tree(&apache), before);
        assert_eq!(setup(&["--remove"]).status.code(), Some(0));
    }
    let backup = etc
        .path("state/apache-backup")
        .join(apache.strip_prefix("/").unwrap())
        .join("apache2.conf.pipeban-backup");
    assert_eq!(fs::read(backup).unwrap(), fs::read(&root).unwrap());
}

#[test]
fn what_apache_refuses_is_put_back() {
    let etc = Etc::new("");
    let Some(apache) = apache(&etc) else { return };
    let root = apache.join("apache2.conf");
    let program = etc.path("pipeban");
    let setup = || {
        etc.run(&[
            "setup",
            "--write",
            "--apache-config",
            root.to_str().unwrap(),
            "--program",
            program.to_str().unwrap(),
        ])
    };
    // Refused by Apache.
    etc.write(
        "apache2/conf-available/pipeban.conf",
        "NoSuchDirective on\n",
    );
    let before = tree(&apache);
    let output = setup();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("NoSuchDirective"),
        "{}",
        stderr(&output)
    );
    assert_eq!(tree(&apache), before);
    // Accepted by Apache's test, but the end of it at the next reload.
    etc.write(
        "apache2/conf-available/pipeban.conf",
        "GlobalLog \"|/nonexistent/pipeban log access\" common\n",
    );
    let before = tree(&apache);
    let output = setup();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("/nonexistent/pipeban"),
        "{}",
        stderr(&output)
    );
    assert_eq!(tree(&apache), before);
    // Broken before: not our fault, and not touched.
    etc.write("apache2/sites-available/shop.conf", "<VirtualHost");
    let before = tree(&apache);
    let output = setup();
    assert!(
        stderr(&output).contains("already broken"),
        "{}",
        stderr(&output)
    );
    assert_eq!(tree(&apache), before);
}

#[test]
fn check_and_setup_report_wrong_arguments_and_a_header_of_any_client() {
    let etc = Etc::new("");
    let program = env!("CARGO_BIN_EXE_pipeban");
    let apache = |wrong: &str| {
        etc.write(
            "apache/apache2.conf",
            &format!("ErrorLog \"|{program} log error /e\"\n{wrong}\n"),
        );
    };
    let global = format!("GlobalLog \"|{program} log access\" x");
    let root = etc.path("apache/apache2.conf");
    let root = root.to_str().unwrap();
    for (wrong, says) in [
        (
            global.replace("access", "access --fromat combined"),
            "`--fromat` is not an option: write `--format`",
        ),
        (
            global.replace("access", "access --owner=root:adm --mod=0644 /a"),
            "write `--mode`; until this is corrected, all lines go to /a",
        ),
        (
            global.replace("access", "access /a /b"),
            "`/b` is one path too many",
        ),
        (
            global.replace("access", "access /a 86400"),
            "rotatelogs's and cronolog's arguments",
        ),
        (
            format!("{global}\nRemoteIPHeader X-Forwarded-For"),
            "any client can pretend to be another address",
        ),
    ] {
        apache(&wrong);
        let output = etc.check(&[]);
        assert_eq!(output.status.code(), Some(78), "{wrong}: {output:?}");
        let text = stdout(&output);
        let line = text.lines().find(|line| line.starts_with("error: "));
        assert!(line.is_some_and(|line| line.contains(says)), "{text}");
        assert!(text.contains("\n1 error: "), "{text}");
        let json = stdout(&etc.check(&["--json"]));
        assert!(json.contains("\"severity\":\"error\""), "{json}");
        let output = etc.run(&["setup", "--apache-config", root]);
        assert_eq!(output.status.code(), Some(1), "{wrong}: {output:?}");
        let text = stdout(&output);
        let corrects = text.contains("apache2.conf:2: change GlobalLog to");
        assert!(corrects || text.contains(says), "{text}");
    }
    apache(&global);
    let output = etc.check(&[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = etc.run(&["setup", "--apache-config", root]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).contains("nothing to do"), "{output:?}");
}

#[test]
fn remove_finds_sites_that_are_not_enabled() {
    let etc = Etc::new("");
    etc.write("apache/apache2.conf", "ErrorLog /e\n");
    etc.write(
        "apache/sites-available/off.conf",
        "<VirtualHost *>\n  ErrorLog \"|/usr/bin/pipeban log error /x\"\n</VirtualHost>\n",
    );
    let root = etc.path("apache/apache2.conf");
    let output = etc.run(&[
        "setup",
        "--remove",
        "--apache-config",
        root.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("off.conf:2: change ErrorLog to\n    ErrorLog /x\n"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn every_snippet_loads_in_a_stock_apache() {
    if !Path::new("/usr/sbin/apache2").exists() {
        return skip_without("apache2");
    }
    let etc = Etc::new("");
    let modules = "/usr/lib/apache2/modules";
    let snippets = fs::read_dir(repository().join("apache-conf")).unwrap();
    let mut loaded = 0;
    for snippet in snippets.map(|file| file.unwrap().path()) {
        etc.write(
            "a.conf",
            &format!(
                "ServerName x\nListen 127.0.0.1:1\n\
                 LoadModule mpm_event_module {modules}/mod_mpm_event.so\n\
                 LoadModule authz_core_module {modules}/mod_authz_core.so\n\
                 ErrorLog {0}/e\nPidFile {0}/p\nDefaultRuntimeDir {0}\nInclude {1}\n",
                etc.0.path().display(),
                snippet.display()
            ),
        );
        let output = Command::new("/usr/sbin/apache2")
            .arg("-t")
            .arg("-f")
            .arg(etc.path("a.conf"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}: {}",
            snippet.display(),
            stderr(&output)
        );
        loaded += 1;
    }
    assert_eq!(loaded, 2);
}

#[test]
fn paths_are_found_whatever_else_is_broken() {
    let etc = Etc::new("[defaults\nmaxretry = = 3\n");
    assert_eq!(
        disk::paths_of(&etc.path("pipeban.toml")).share,
        repository().join("config")
    );
    assert_eq!(
        disk::paths_of(Path::new("/nonexistent")),
        config::Paths::default()
    );
}
