//! Lines that are not Apache's own, or not whole: nobody innocent is hit, attackers still are.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::apache::{BOTH_PIPES, ERROR_LOG};
use crate::support::http::{ATTACK, Connection};
use crate::support::world::{FILTER, SERVER4};
use crate::support::{Apache, Mpm, World, eventually};

/// Whom the forged lines name.
const INNOCENT: &str = "203.0.113.250";
const ATTACKER: &str = "198.51.100.7";
/// Says on stderr what the client asks it to, so many times, with another `NUMBER` each time.
const SCRIPT: &str = r#"#!/usr/bin/perl
$_ = $ENV{HTTP_X_SAY}; s/%([0-9A-F]{2})/chr hex $1/ge;
for my $n (1 .. $ENV{HTTP_X_TIMES}) { (my $text = $_) =~ s/NUMBER/4999999 - $n/ge; print STDERR $text; }
print "Content-Type: text/plain\nContent-Length: 3\n\nok\n";
"#;
/// Bans nobody in earnest. One jail bans at once, one counts.
const CONFIG: &str = r#"
[firewall]
backend = "dry-run"
[jails.once]
log = "error"
filter = "apache-cgitraversal"
maxretry = 1
[jails.count]
log = "error"
filter = "apache-cgitraversal"
maxretry = 1000000
"#;

fn start<'w>(world: &'w World, mpm: Mpm, modules: &str) -> Apache<'w> {
    world.write("/etc/pipeban/pipeban.toml", CONFIG);
    world.write("/etc/pipeban/filters.d/apache-cgitraversal.conf", FILTER);
    fs::create_dir_all(world.path("/var/site/cgi-bin")).expect("made");
    world.write("/var/site/cgi-bin/say", SCRIPT);
    let script = world.path("/var/site/cgi-bin/say");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("set");
    let apache = Apache::start(world, mpm, &format!("{modules}{BOTH_PIPES}"));
    apache.pipe("error");
    world.engine();
    apache
}

/// A whole line of Apache's, as far as anybody can tell who does not know its processes.
const IMITATION: &str = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid NUMBER:tid NUMBER] \
     [client 203.0.113.250:49108] AH10244: invalid URI path (/cgi-bin/.%2e/bin/sh)";

fn say(world: &World, times: usize, text: &str) {
    let visitor = Connection::open(&world.clients(), "198.51.100.8", SERVER4);
    let mut connection = visitor.expect("connects");
    let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let status = connection.get(
        "/cgi-bin/say",
        &format!("X-Say: {encoded}\r\nX-Times: {times}\r\nConnection: close\r\n"),
    );
    assert_eq!(status.expect("answered"), 200);
}

fn hits(world: &World, wanted: u64) {
    eventually(&format!("{wanted} hits"), || {
        let jail = world.jail("count");
        if jail["total_failed"] == wanted {
            Ok(())
        } else {
            Err(jail.to_string())
        }
    });
}

fn nobody_but_the_attacker(world: &World) {
    let jail = world.jail("once");
    let banned: Vec<_> = jail["banned"].as_array().into_iter().flatten().collect();
    assert!(banned.iter().all(|ban| ban["host"] == ATTACKER), "{jail}");
}

#[test]
fn what_scripts_say_under_mod_cgid_hits_nobody() {
    let Some(world) = World::new() else { return };
    let _apache = start(
        &world,
        Mpm::Event,
        "LoadModule cgid_module /usr/lib/apache2/modules/mod_cgid.so\nScriptSock /run/apache2/cgid\n",
    );
    scripts_hit_nobody(&world, |log| {
        let raw = |line: &&str| line.starts_with("[client 203.0.113.250:9] AH10244");
        log.lines().filter(raw).count() == 1
    });
}

#[test]
fn what_scripts_say_under_mod_cgi_hits_nobody() {
    let Some(world) = World::new() else { return };
    let _apache = start(
        &world,
        Mpm::Prefork,
        "LoadModule cgi_module /usr/lib/apache2/modules/mod_cgi.so\n",
    );
    scripts_hit_nobody(&world, |log| log.contains("AH01215: "));
}

fn scripts_hit_nobody(world: &World, said: impl Fn(&str) -> bool) {
    let clients = world.clients();
    let mut attacker = Connection::open(&clients, ATTACKER, SERVER4).expect("connects");
    attacker.get(ATTACK, "").expect("answered");
    hits(world, 1);

    // Raw text, no prefix at all.
    say(
        world,
        1,
        &format!("[client {INNOCENT}:9] AH10244: invalid URI path (/cgi-bin/../bin/sh)\n"),
    );
    // A client field of the asking client's own, in what the script says.
    say(
        world,
        1,
        "[client 198.51.100.8:9] AH10244: invalid URI path (/cgi-bin/../bin/sh)\n",
    );
    // Whole lines: one alone, and many guesses at once. This number is no process.
    say(world, 1, &format!("{IMITATION}\n"));
    say(world, 200, &format!("{IMITATION}\n"));
    say(
        world,
        1,
        &format!(
            "[Sun Nov 22 11:00:33 2026] [error] [client {INNOCENT}] AH10244: invalid URI path \
             (/cgi-bin/../bin/sh)\n"
        ),
    );
    eventually("the script's words are in the log", || {
        let log = world.read(ERROR_LOG);
        if said(&log) && log.matches("[client 203.0.113.250]").count() == 1 {
            Ok(())
        } else {
            Err(log)
        }
    });

    // Behind forged lines there is doubt for 50 of Apache's own, no longer.
    let mut visitor = Connection::open(&clients, "198.51.100.8", SERVER4).expect("connects");
    for n in 0..60 {
        let status = visitor.get(&format!("/closed/{n}"), "").expect("answered");
        assert_eq!(status, 403);
    }
    let mut attacker = Connection::open(&clients, ATTACKER, SERVER4).expect("connects");
    attacker.get(ATTACK, "").expect("answered");
    hits(world, 2);
    nobody_but_the_attacker(world);
}

/// Several children, long lines, a reader that stops again and again: lines are torn. Also tells
/// what share of genuine long lines is not matched.
#[test]
fn torn_lines_hit_nobody_and_long_attacks_are_hits() {
    let Some(world) = World::new() else { return };
    let apache = start(&world, Mpm::Prefork, "");
    let worker = apache.pipe("error").worker;
    let clients = world.clients();
    let start_of_referer = start_of_referer(&world);
    let over = AtomicBool::new(false);
    let [attacks, lures, short] = [const { AtomicUsize::new(0) }; 3];
    let long_attack = ATTACK.replace("/bin/sh", &format!("/{}/bin/sh", "a".repeat(6500)));
    // A pipe is filled page by page: a line of two pages tears in the middle.
    let lure = |n: usize| {
        let before = 4096 - start_of_referer + 2 - n % 5;
        let imitation = IMITATION.replace("NUMBER", "4999999");
        let filler = "y".repeat(7900 - before);
        format!("Referer: {}{imitation}{filler}\r\n", "x".repeat(before))
    };
    std::thread::scope(|scope| {
        for visitor in 0..40 {
            let (over, clients) = (&over, &clients);
            let (attacks, lures, short) = (&attacks, &lures, &short);
            let (long_attack, lure) = (&long_attack, &lure);
            scope.spawn(move || {
                for n in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let (from, target, headers, count) = match visitor % 8 {
                        0 => (ATTACKER, long_attack.as_str(), String::new(), attacks),
                        // Short lines between: else every line would fill two whole pages.
                        1 => ("198.51.100.9", "/closed/x", String::new(), short),
                        _ => ("198.51.100.8", "/closed/x", lure(n), lures),
                    };
                    let answer = Connection::open(clients, from, SERVER4)
                        .and_then(|mut connection| connection.get(target, &headers));
                    if answer.is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let end = Instant::now() + Duration::from_secs(4);
        while Instant::now() < end {
            worker.signal(Signal::SIGSTOP);
            std::thread::sleep(Duration::from_millis(700));
            worker.signal(Signal::SIGCONT);
            std::thread::sleep(Duration::from_millis(300));
        }
        over.store(true, Ordering::Relaxed);
    });
    let attacks = attacks.into_inner() as u64;
    let (counted, shed) = settled(&world);
    let log = world.bytes(ERROR_LOG);
    let lines = || {
        log.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
    };
    let torn = lines().filter(|line| !line.starts_with(b"[")).count();
    let forged = lines()
        .filter(|line| line.starts_with(b"[Sun Nov 22 11:00:33.366318 2026]"))
        .count();
    let _ = writeln!(
        std::io::stderr(),
        "torn lines: {} lures, {torn} tails, {forged} of them forged whole; {attacks} long attacks, \
         {counted} hits ({:.2} % not matched), {shed} lines of any kind shed",
        lures.into_inner(),
        attacks.saturating_sub(counted) as f64 * 100.0 / attacks.max(1) as f64
    );
    nobody_but_the_attacker(&world);
    assert!(torn > 0, "lines are torn");
    assert!(counted <= attacks, "{counted} hits of {attacks} attacks");
    let doubtful = (attacks / 5).max(5) + shed;
    assert!(counted + doubtful >= attacks, "{counted} hits of {attacks}");
}

/// Where in an error line what stands behind `referer: ` begins.
fn start_of_referer(world: &World) -> usize {
    let mut visitor =
        Connection::open(&world.clients(), "198.51.100.8", SERVER4).expect("connects");
    let status = visitor
        .get("/closed/x", "Referer: marker\r\n")
        .expect("answered");
    assert_eq!(status, 403);
    eventually("the line", || {
        let log = world.read(ERROR_LOG);
        log.lines().find_map(|line| line.find("marker")).ok_or(log)
    })
}

/// Hits of the counting jail, and lines shed, as soon as they stay the same.
fn settled(world: &World) -> (u64, u64) {
    let mut before = None;
    eventually("all hits are counted", || {
        let status = world.status(None);
        let worker = &status["workers"].as_array().expect("workers")[1];
        assert_eq!(worker["kind"], "error", "{status}");
        let hits = world.jail("count")["total_failed"]
            .as_u64()
            .expect("a number");
        let now = (hits, worker["shed"].as_u64().expect("a number"));
        let waits = worker["pending"] != 0;
        let settled = before.replace(now) == Some(now) && !waits;
        std::thread::sleep(Duration::from_millis(1100));
        if settled {
            Ok(now)
        } else {
            Err(status.to_string())
        }
    })
}
