//! Lines that are not Apache's own, or not whole: nobody innocent is hit, attackers still are.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;

use crate::support::apache::{BOTH_PIPES, CGID, ERROR_LOG};
use crate::support::http::{ATTACK, Connection};
use crate::support::world::{FILTER, SERVER4};
use crate::support::{Apache, Mpm, World, eventually, skip};

/// The address that the forged lines name.
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
    let _apache = start(&world, Mpm::Event, CGID);
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

    // Forged lines hide none of Apache's.
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
    let start_of_referer = start_of_referer(&world);
    // A pipe is filled page by page: a line of two pages tears in the middle. There is
    // something harmless, then a whole line of Apache's.
    let lure = |text: &'static str| {
        move |n: usize| {
            let before = 4096 - start_of_referer + 2 - n % 5;
            let text = text.replace("NUMBER", "4999999");
            let filler = "y".repeat(7900 - before);
            format!("Referer: {}{text}{filler}\r\n", "x".repeat(before))
        }
    };
    let harmless = Flood::run(&world, &apache, &lure("harmless"));
    let Flood { attacks, hits, .. } = harmless;
    assert!(hits <= attacks, "{harmless:?}");
    assert!(
        hits + 2 * harmless.torn + harmless.shed >= attacks,
        "{harmless:?}"
    );
    let forged = Flood::run(&world, &apache, &lure(IMITATION));
    assert!(forged.hits <= forged.attacks, "{forged:?}");
    nobody_but_the_attacker(&world);
    // Whether a line tears is up to the machine: most often one does at once.
    if harmless.torn + forged.torn == 0 {
        skip("no line was torn");
    }
}

/// What came of one flood of long lines.
#[derive(Debug)]
struct Flood {
    attacks: u64,
    hits: u64,
    /// Lines of any kind, of both floods.
    shed: u64,
    /// Rests of torn lines.
    torn: u64,
}

/// Ends the clients of a flood.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Flood {
    fn run(world: &World, apache: &Apache<'_>, lure: &(dyn Fn(usize) -> String + Sync)) -> Flood {
        let (hits_before, _) = settled(world);
        let torn_before = torn(world);
        let keeper = apache.pipe("error").keeper;
        let clients = world.clients();
        let over = AtomicBool::new(false);
        let [attacks, others] = [const { AtomicUsize::new(0) }; 2];
        let long_attack = ATTACK.replace("/bin/sh", &format!("/{}/bin/sh", "a".repeat(6500)));
        std::thread::scope(|scope| {
            for visitor in 0..40 {
                let (over, clients, long_attack) = (&over, &clients, &long_attack);
                let (attacks, others) = (&attacks, &others);
                scope.spawn(move || {
                    for n in 0.. {
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        let (from, target, headers, count) = match visitor % 8 {
                            0 => (ATTACKER, long_attack.as_str(), String::new(), attacks),
                            // Short lines between: else every line would fill two whole pages.
                            1 => ("198.51.100.9", "/closed/x", String::new(), others),
                            _ => ("198.51.100.8", "/closed/x", lure(n), others),
                        };
                        let answer = Connection::open(clients, from, SERVER4)
                            .and_then(|mut connection| connection.get(target, &headers));
                        if answer.is_ok() {
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            // Also where a wait below fails.
            let _end = Ends(&over);
            let answered = || attacks.load(Ordering::Relaxed) + others.load(Ordering::Relaxed);
            for _ in 0..3 {
                keeper.signal(Signal::SIGSTOP);
                // The pipe is full when Apache answers no more.
                let mut before = usize::MAX;
                eventually("a full pipe", || {
                    let now = answered();
                    let full = std::mem::replace(&mut before, now) == now;
                    std::thread::sleep(Duration::from_millis(200));
                    full.then_some(()).ok_or(format!("{now} answered"))
                });
                keeper.signal(Signal::SIGCONT);
                eventually("answers again", || {
                    let now = answered();
                    (now > before + 100)
                        .then_some(())
                        .ok_or(format!("{now} answered"))
                });
            }
        });
        let (hits, shed) = settled(world);
        let flood = Flood {
            attacks: attacks.into_inner() as u64,
            hits: hits - hits_before,
            shed,
            torn: torn(world) - torn_before,
        };
        let missed = flood.attacks.saturating_sub(flood.hits) as f64;
        let _ = writeln!(
            std::io::stderr(),
            "long lines, slow reader: {flood:?}, {others:?} others; {:.2} % of the attacks not matched",
            missed * 100.0 / flood.attacks.max(1) as f64
        );
        flood
    }
}

/// Lines that begin as none of Apache's: rests of torn ones, forged whole or not.
fn torn(world: &World) -> u64 {
    let log = world.bytes(ERROR_LOG);
    let lines = log.split(|byte| *byte == b'\n');
    let rest = |line: &&[u8]| {
        let forged =
            line.starts_with(b"[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 4999999:");
        !line.is_empty() && (!line.starts_with(b"[") || forged)
    };
    lines.filter(rest).count() as u64
}

/// Where the text after `referer: ` begins in an error line.
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

/// Hits of the counting jail, and lines shed, when every line in the log is matched.
fn settled(world: &World) -> (u64, u64) {
    eventually("all hits are counted", || {
        let status = world.status(None);
        let workers = status["workers"].as_array().cloned().unwrap_or_default();
        let worker = workers.into_iter().find(|worker| worker["kind"] == "error");
        let worker = worker.ok_or_else(|| status.to_string())?;
        let hits = world.jail("count")["total_failed"]
            .as_u64()
            .expect("a number");
        let log = world.bytes(ERROR_LOG);
        let lines = log.iter().filter(|byte| **byte == b'\n').count();
        if worker["lines"] == lines && worker["pending"] == 0 && worker["hits"] == hits {
            Ok((hits, worker["shed"].as_u64().expect("a number")))
        } else {
            Err(format!("{lines} lines: {status}"))
        }
    })
}

#[test]
fn a_script_that_locks_its_stderr_or_makes_it_small_holds_up_no_keeper() {
    let Some(world) = World::new() else { return };
    let apache = start(&world, Mpm::Event, CGID);
    let pipe = apache.pipe("error");
    let stdin = format!("/proc/{}/fd/0", pipe.stub.pid);
    let stderr = fs::File::options().write(true).open(stdin).expect("a pipe");
    let locked = std::thread::spawn(move || stderr.lock().map(|()| stderr));
    // As long as a lock that keepers wait for would take.
    std::thread::sleep(Duration::from_millis(500));
    pipe.keeper.signal(Signal::SIGKILL);
    let stderr = locked.join().expect("no panic").expect("locked");
    fcntl(&stderr, FcntlArg::F_SETPIPE_SZ(4096)).expect("smaller");
    let mut attacker = Connection::open(&world.clients(), ATTACKER, SERVER4).expect("connects");
    attacker.get(ATTACK, "").expect("answered");
    hits(&world, 1);
    let size = fcntl(&stderr, FcntlArg::F_GETPIPE_SZ).expect("a pipe");
    assert!(size > 65_536, "{size}");
}
