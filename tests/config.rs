//! Configuration, `check` and `setup` as a user meets them: files in, output and status out.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pipeban::config::{self, Log};

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
    let load = |etc: &Etc| config::load(&etc.path("pipeban.toml")).unwrap();
    assert_eq!(load(&as_shipped), load(&written_out));
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
        let config = config::load(&etc.path("pipeban.toml")).unwrap();
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
    let problems = config::load(&etc.path("pipeban.toml")).unwrap_err();
    assert!(
        problems[0].message.contains("did you mean `cloudflare`"),
        "{problems:?}"
    );
    etc.write("proxies.d/cloudflair.txt", "203.0.113.0/24\nnonsense\n");
    let problems = config::load(&etc.path("pipeban.toml")).unwrap_err();
    assert_eq!(problems[0].place, Some((2, 1)), "{problems:?}");
}

#[test]
fn every_shipped_jail_is_on_mild_and_anchored() {
    let etc = Etc::new("");
    let config = config::load(&etc.path("pipeban.toml")).unwrap();
    assert!(config.jails.len() >= 9);
    let recidive = &config.jails[&"recidive".parse().unwrap()];
    assert!(!recidive.enabled && recidive.log == Log::Bans);
    let reading = config
        .jails
        .iter()
        .filter(|(name, _)| name.as_str() != "recidive");
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
        for pattern in &filter.failregex {
            assert!(
                pattern.text.trim_start_matches("(?i)").starts_with('^'),
                "{name}: {}",
                pattern.text
            );
        }
    }
    let files = fs::read_dir(repository().join("config/filters.d"))
        .unwrap()
        .count();
    assert_eq!(
        files,
        config.filters.len(),
        "every shipped filter has its jail"
    );
    let output = etc.check(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stdout(&output).ends_with("0 hints\n") && !stdout(&output).contains("filters.d"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn the_tutorials_example_is_accepted_as_it_stands_and_asks_for_a_year() {
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
    let config = config::load(&etc.path("pipeban.toml")).unwrap();
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
    let told = stdout(&output);
    let place = etc.path("filters.d/apache-cgitraversal.conf");
    let place = format!("warning: {}:7:13: pattern 1 of", place.display());
    assert!(told.contains(&place), "{told}");
    let attack = told.lines().find_map(|line| line.strip_prefix("    "));
    let attack = attack.unwrap_or_else(|| panic!("{told}"));
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
fn what_is_wrong_with_patterns_is_warned_of_in_text_and_json() {
    let etc = Etc::new(
        "[jails.a]\nenabled = false\nlog = \"access\"\nfilter = \"f\"\n[jails.b]\nlog = \"access\"\nfilter = \"f\"\n",
    );
    etc.write(
        "filters.d/f.conf",
        "[Definition]\nfailregex = ^<HOST> - .*evil\n            ^<HOST> - .*evil$\n            ^\\[\\] \\[\\S+\\] .*\\[client <HOST>\nignoreregex = ^<HOST> - bob\n",
    );
    let output = etc.check(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let file = etc.path("filters.d/f.conf").display().to_string();
    let told = stdout(&output);
    for expected in [
        format!("warning: {file}:3:13: pattern 2 of filter `f` matches nothing that pattern 1"),
        format!("warning: {file}:4:13: pattern 3 of filter `f` matches no line of Apache's access"),
    ] {
        assert_eq!(told.matches(&expected).count(), 1, "{told}");
    }
    // The filter alone; its logs are those of its jails.
    let json = stdout(&etc.run(&["check", "--filter", "f", "--json"]));
    let objects: Vec<serde_json::Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [never, shadowed, summary] = objects.as_slice() else {
        panic!("{json}");
    };
    assert_eq!(never["lint"], "never-matches");
    assert_eq!(shadowed["lint"], "shadowed");
    assert_eq!(shadowed["file"], file.as_str());
    assert_eq!(
        (&shadowed["line"], &shadowed["column"]),
        (&3.into(), &13.into())
    );
    assert_eq!(
        (&shadowed["option"], &shadowed["pattern"]),
        (&"failregex".into(), &2.into())
    );
    assert_eq!(shadowed["severity"], "warning");
    assert_eq!(summary["warnings"], 2);
    // A file that no jail names is held against both logs; a broken one ends with 78.
    let told = stdout(&etc.run(&["check", "--filter", &file]));
    assert!(
        told.contains(":4:13: pattern 3 of filter `f` takes what a client writes"),
        "{told}"
    );
    assert!(
        told.ends_with("OK: filter `f`, 3 patterns, 2 warnings\n"),
        "{told}"
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
    let told = stderr(&output);
    let main = etc.path("pipeban.toml");
    let main = main.display();
    let extra = etc.path("conf.d/10-x.toml");
    for expected in [
        format!(
            "{main}:5:1: unknown key `maxretyr` in `[defaults]`: did you mean `maxretry`?\n  |\n5 | maxretyr = 3\n  | ^^^^^^^^\n"
        ),
        format!(
            "{}:2:7: expected a text in quotes, found the number 5\n",
            extra.display()
        ),
        format!(
            "{main}:8:1: jail `a`: no filter `apache-phpunitt` (did you mean `apache-phpunit`?)"
        ),
    ] {
        assert!(told.contains(&expected), "{expected}\n---\n{told}");
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
    let told = stderr(&etc.check(&[]));
    assert!(
        told.contains(&format!("{}:3:", etc.path("filters.d/a.conf").display())),
        "{told}"
    );
}

#[test]
fn a_broken_line_brings_no_errors_but_its_own() {
    let etc = Etc::new("[defaults]\nmaxretry = = 3\n[jails.x]\nlog = \"access\"\nfiltre = \"a\"\n");
    let told = stderr(&etc.check(&[]));
    let main = etc.path("pipeban.toml").display().to_string();
    let places: Vec<&str> = told
        .lines()
        .filter_map(|line| line.strip_prefix(&main)?.split(' ').next())
        .collect();
    assert_eq!(places, [":5:12:", ":5:14:", ":8:1:"], "{told}");
    assert!(told.contains("did you mean `filter`?"), "{told}");
    // Nothing else is wrong: then the missing filter itself is told.
    etc.write("pipeban.toml", "[jails.x]\nlog = \"access\"\n");
    let told = stderr(&etc.check(&[]));
    assert!(
        told.contains(":1:8: jail `x` says no `filter`, and by its own name there is none"),
        "{told}"
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
                "LogFormat \"{format} %h\" f\nErrorLog \"|/bin/pipeban log error /e\"\nGlobalLog \"|/bin/pipeban log access\" f\n<Macro V $x>\n</Macro>\n"
            ),
        );
        stdout(&etc.check(&[]))
    };
    let told = apache("%u");
    assert!(
        told.contains("jail `a` counts only some virtual hosts, and GlobalLog at "),
        "{told}"
    );
    assert!(
        told.contains("logs inside of `<Macro>` are not looked at"),
        "{told}"
    );
    assert!(!apache("%>v:%p").contains("counts only some"));
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
fn a_disabled_jail_needs_no_filter_and_a_native_one_is_refused() {
    let etc = Etc::new(
        "[jails.a]\nlog = \"error\"\nenabled = false\nfilter = \"none\"\n[jails.b]\nenabled = false\n",
    );
    let output = etc.check(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("jail `b` is switched off here and defined nowhere"),
        "{}",
        stdout(&output)
    );
    let etc = Etc::new("[jails.a]\nlog = \"access\"\n");
    etc.write("filters.d/a.toml", "log = \"access\"");
    let output = etc.check(&[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("filters in TOML are not in this version yet"));
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
    assert!(stderr(&output).contains("there are: apache-botnet"));
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
        eprintln!("SKIPPED: no apache2 on this machine");
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
        stderr(&output).contains("broken already"),
        "{}",
        stderr(&output)
    );
    assert_eq!(tree(&apache), before);
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
        stdout(&output).contains("off.conf:2: ErrorLog becomes\n    ErrorLog /x\n"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn every_snippet_loads_in_a_stock_apache() {
    if !Path::new("/usr/sbin/apache2").exists() {
        eprintln!("SKIPPED: no apache2 on this machine");
        return;
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
        config::paths_of(&etc.path("pipeban.toml")).share,
        repository().join("config")
    );
    assert_eq!(
        config::paths_of(Path::new("/nonexistent")),
        config::Paths::default()
    );
}
