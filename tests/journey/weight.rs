//! What pipeban costs Apache and the machine. By `make bench`.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::http::Connection;
use crate::support::process;
use crate::support::world::SERVER4;
use crate::support::{Apache, Mpm, World, eventually, skip};

const PAIRS: usize = 15;
const HOSTS: usize = 100;

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The shipped jails and filters, as an installation has them.
fn install(world: &World) {
    for part in ["jails.d", "filters.d"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("config")
            .join(part);
        for file in fs::read_dir(from).expect("there").flatten() {
            let name = file.file_name().into_string().expect("a name");
            let text = fs::read_to_string(file.path()).expect("text");
            world.write(&format!("/usr/share/pipeban/{part}/{name}"), &text);
        }
    }
    world.write(
        "/etc/pipeban/pipeban.toml",
        "[firewall]\nbackend = \"dry-run\"\n",
    );
}

/// One Apache, three ports, a logger each: measured in turn, so that each sees the same machine.
#[test]
fn measure_throughput_of_apache_with_a_file_with_rotatelogs_and_with_pipeban() {
    let Some(world) = World::new() else { return };
    if !Path::new("/usr/bin/wrk").exists() {
        return skip("needs wrk (`make bench` installs it)");
    }
    install(&world);
    let loggers = [
        ("file", 80, "/var/log/apache2/plain.log"),
        (
            "rotatelogs",
            443,
            "\"|/usr/bin/rotatelogs /var/log/apache2/rotated.%Y 86400\"",
        ),
        (
            "pipeban",
            2222,
            "\"|/usr/bin/pipeban log access --format combined /var/log/apache2/access.log\"",
        ),
    ];
    let mut logs = "Listen 443\nListen 2222\nErrorLog /var/log/apache2/error.log\n".to_owned();
    for (_, port, log) in loggers {
        let host = format!("<VirtualHost *:{port}>\nCustomLog {log} combined\n</VirtualHost>\n");
        logs.push_str(&host);
    }
    let _apache = Apache::start(&world, Mpm::Event, &logs);
    world.start_engine();
    let mut rates = [const { Vec::new() }; 3];
    for round in 0..=PAIRS {
        // The order changes, so that none always comes first.
        for turn in 0..3 {
            let at = (turn + round) % 3;
            let rate = wrk(&world, loggers[at].1);
            // What is still being matched is not to slow the next one down.
            std::thread::sleep(Duration::from_millis(300));
            // The first round warms up, and has pipeban compile its filters.
            if round > 0 {
                rates[at].push(rate);
            }
        }
    }
    for ((name, ..), rates) in loggers.iter().zip(&rates) {
        say(&format!(
            "{name:<11} {:>8.0} requests/s, median of {PAIRS}",
            middle(rates.clone())
        ));
    }
    let ratio = |other: usize| -> Vec<f64> {
        rates[2]
            .iter()
            .zip(&rates[other])
            .map(|(ours, other)| ours / other)
            .collect()
    };
    for (name, other) in [("file", 0), ("rotatelogs", 1)] {
        let mut ratios = ratio(other);
        ratios.sort_by(f64::total_cmp);
        // Of 15 pairs the 4th to the 12th hold the median with 96 %.
        let (low, high) = (ratios[3], ratios[PAIRS - 4]);
        let verdict = match (low, high) {
            (low, _) if low >= 0.97 => "within 3 %",
            (_, high) if high < 0.97 => "more than 3 % less",
            _ => "inconclusive",
        };
        say(&format!(
            "pipeban / {name}: {:.3} (96 % interval {low:.3} to {high:.3}): {verdict}",
            middle(ratios)
        ));
    }
}

/// Requests a second of a small file.
fn wrk(world: &World, port: u16) -> f64 {
    let url = format!("http://{SERVER4}:{port}/index.html");
    let argv = [
        "ip", "netns", "exec", "clients", "wrk", "-t1", "-c16", "-d2s", &url,
    ];
    let said = world.must(&argv);
    let rate = said
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"));
    rate.and_then(|rate| rate.trim().parse().ok())
        .unwrap_or_else(|| panic!("{said}"))
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn measure_a_hundred_virtual_hosts_with_two_pipes_each() {
    let Some(world) = World::new() else { return };
    install(&world);
    world.start_engine();
    let hosts = |custom: &dyn Fn(usize) -> String, error: &dyn Fn(usize) -> String| {
        let mut text = "ErrorLog /var/log/apache2/main.log\n".to_owned();
        for n in 0..HOSTS {
            let (custom, error) = (custom(n), error(n));
            let _ = write!(
                text,
                "<VirtualHost *:80>\nServerName h{n}.example.org\nCustomLog {custom} combined\nErrorLog {error}\n</VirtualHost>\n"
            );
        }
        text
    };
    let begun = Instant::now();
    let files = hosts(&|n| format!("/var/log/apache2/a{n}"), &|n| {
        format!("/var/log/apache2/e{n}")
    });
    let apache = Apache::start(&world, Mpm::Event, &files);
    say(&format!(
        "start of Apache, {HOSTS} virtual hosts with files: {:.2?}",
        begun.elapsed()
    ));
    apache.stop("stop");
    let begun = Instant::now();
    let pipes = hosts(
        &|n| format!("\"|/usr/bin/pipeban log access --format combined /var/log/apache2/a{n}\""),
        &|n| format!("\"|/usr/bin/pipeban log error /var/log/apache2/e{n}\""),
    );
    let _apache = Apache::start(&world, Mpm::Event, &pipes);
    say(&format!("with two pipes each: {:.2?}", begun.elapsed()));
    let wanted = 2 * HOSTS;
    let count = || roles(&world).map(|role| role.len());
    eventually("all loggers", || {
        let now = count();
        if now == [wanted; 3] {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
    say(&format!("processes: {:?} stubs, keepers, workers", count()));
    memory(&world, "before the first line: nothing compiled");
    let clients = world.clients();
    for n in 0..HOSTS {
        let mut visitor = Connection::open(&clients, "198.51.100.9", SERVER4).expect("connects");
        let host = format!("h{n}.example.org");
        let close = "Connection: close\r\n";
        visitor
            .get_of(&host, "/closed/vendor/phpunit/eval-stdin.php", close)
            .expect("answered");
    }
    eventually("every log has its line", || {
        let written = |kind: char, n: usize| {
            !world
                .bytes(&format!("/var/log/apache2/{kind}{n}"))
                .is_empty()
        };
        let there = (0..HOSTS)
            .filter(|n| written('a', *n) && written('e', *n))
            .count();
        if there == HOSTS {
            Ok(())
        } else {
            Err(there.to_string())
        }
    });
    std::thread::sleep(Duration::from_secs(2));
    let [stub, keeper, worker] = memory(&world, "each has matched a line");
    if !cfg!(debug_assertions) {
        assert!(
            stub + keeper < 3000,
            "stub and keeper: {} KiB",
            stub + keeper
        );
        assert!(worker < 12_000, "worker: {worker} KiB");
    }
}

/// Stubs, keepers and workers of all pipes.
fn roles(world: &World) -> [Vec<process::Process>; 3] {
    let all = world.processes();
    let ours: Vec<_> = process::pipebans(&all)
        .into_iter()
        .filter(|process| process.argv.iter().any(|word| word == "log"))
        .collect();
    let main = process::apache(&all).map(|main| main.pid);
    let mut roles = [const { Vec::new() }; 3];
    for process in &ours {
        let role = if Some(process.parent) == main {
            0
        } else if process.session == process.pid {
            1
        } else {
            2
        };
        roles[role].push(process.clone());
    }
    roles
}

/// Tells the mean memory of each role; the proportional one in KiB comes back.
fn memory(world: &World, when: &str) -> [u64; 3] {
    let mut names = ["stub", "keeper", "worker"].into_iter();
    roles(world).map(|processes| {
        let of = |name: &str| -> u64 {
            let each = processes.iter().filter_map(|process| {
                let text =
                    fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid)).ok()?;
                let line = text.lines().find_map(|line| line.strip_prefix(name))?;
                line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
            });
            each.sum::<u64>() / processes.len().max(1) as u64
        };
        let (pss, rss) = (of("Pss:"), of("Rss:"));
        let name = names.next().unwrap_or_default();
        say(&format!(
            "{when}: {:>3} x {name}: {pss} KiB proportional, {rss} KiB resident",
            processes.len()
        ));
        pss
    })
}
