//! Lines answered and not logged: every kind of log, both ways of working, every way to end or
//! reload, and rotatelogs beside it. By `make bench`.

use std::fs;
use std::io::Write;
use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::http::Connection;
use crate::support::world::{SERVER4, SERVER6};
use crate::support::{Apache, Mpm, World, eventually};

const IN_FLIGHT: usize = 200;
const LOGS: &str = "/var/log/matrix";
const KINDS: [&str; 4] = ["CustomLog", "GlobalLog", "ErrorLog main", "ErrorLog vhost"];
const HOWS: [&str; 4] = ["graceful", "restart", "graceful-stop", "stop"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Pipeban,
    Rotatelogs,
}

impl Program {
    /// The program behind the pipe; the file's name begins with `name`.
    fn piped(self, kind: &str, name: &str) -> String {
        match self {
            Program::Pipeban => format!("\"|/usr/bin/pipeban log {kind} {LOGS}/{name}\""),
            Program::Rotatelogs => format!("\"|/usr/bin/rotatelogs {LOGS}/{name}.%Y 86400\""),
        }
    }

    fn directives(self) -> String {
        let piped = |kind, name| self.piped(kind, name);
        format!(
            "ErrorLog {}\nCustomLog {} combined\nGlobalLog {} combined\n\
             GlobalLog {LOGS}/reference combined\n\
             <VirtualHost [{SERVER6}]:80>\nServerName six.example.org\nErrorLog {}\n</VirtualHost>\n",
            piped("error", "main"),
            piped("access", "custom"),
            piped("access", "global"),
            piped("error", "vhost"),
        )
    }
}

/// What was answered, and of it what is not logged: for each of [`KINDS`]. An access line that is
/// not in Apache's own file either, which it writes last, was never written: a restart kills
/// children between their answer and their log.
type Lost = [(usize, usize); 4];

#[test]
fn measure_lines_answered_and_not_logged_in_the_whole_matrix() {
    let mut table = Vec::new();
    for program in [Program::Pipeban, Program::Rotatelogs] {
        for mpm in [Mpm::Event, Mpm::Prefork] {
            let mut cells = Vec::new();
            for how in HOWS {
                let Some(lost) = run(program, mpm, how) else {
                    return;
                };
                cells.push(lost);
            }
            table.push((program, mpm, cells));
        }
    }
    let say = |line: String| {
        let _ = writeln!(std::io::stderr(), "{line}");
    };
    say(format!(
        "not logged of answered, {IN_FLIGHT} slow requests in flight"
    ));
    let heads: String = HOWS.iter().map(|how| format!("{how:>16}")).collect();
    say(format!("{:<10} {:<8} {:<14}{heads}", "", "", ""));
    let mut ours = 0;
    for (program, mpm, cells) in &table {
        for (at, kind) in KINDS.iter().enumerate() {
            let row: String = cells
                .iter()
                .map(|cell| format!("{:>16}", format!("{} of {}", cell[at].1, cell[at].0)))
                .collect();
            let (program, mpm) = (format!("{program:?}"), format!("{mpm:?}"));
            say(format!("{program:<10} {mpm:<8} {kind:<14}{row}"));
            if program == "Pipeban" {
                ours += cells.iter().map(|cell| cell[at].1).sum::<usize>();
            }
        }
    }
    assert_eq!(ours, 0, "lines lost by pipeban");
}

fn run(program: Program, mpm: Mpm, how: &str) -> Option<Lost> {
    let world = World::new()?;
    fs::create_dir_all(world.path(LOGS)).expect("made");
    let backend = Backend::start(&world);
    let apache = Apache::start(&world, mpm, &program.directives());
    let clients = world.clients();
    let mut flight = Vec::new();
    for n in 0..IN_FLIGHT {
        let (from, server) = if n % 4 < 2 {
            ("198.51.100.9", SERVER4)
        } else {
            ("2001:db8:a000::9", SERVER6)
        };
        let fate = if n % 2 == 0 { "fine" } else { "broken" };
        let target = format!("/slow/{fate}-{n}-end");
        let mut connection = Connection::open(&clients, from, server).expect("connects");
        connection.ask(&target, "").expect("sent");
        flight.push((n, target, connection));
    }
    eventually("all requests are in flight", || match backend.waiting() {
        IN_FLIGHT => Ok(()),
        waiting => Err(format!("{waiting} of {IN_FLIGHT}")),
    });
    // Some answers before the signal, some with it, the rest while Apache acts on it.
    backend.answer(IN_FLIGHT / 4);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if how.ends_with("stop") {
                apache.stop(how);
            } else {
                apache.reload(how);
            }
        });
        for _ in 0..5 {
            backend.answer(IN_FLIGHT / 8);
            std::thread::sleep(Duration::from_millis(30));
        }
        std::thread::sleep(Duration::from_millis(500));
        backend.answer(IN_FLIGHT);
    });
    let mut answered = Vec::new();
    for (n, target, mut connection) in flight {
        if connection.answer().is_ok() {
            answered.push((n, target));
        }
    }
    let written = settled(&world);
    let text_of = |log: &str| {
        let text = written.iter().find(|(name, _)| name.starts_with(log));
        text.map_or("", |(_, text)| text.as_str())
    };
    let reference = text_of("reference");
    let count = |log: &str, wanted: &dyn Fn(usize) -> bool| {
        let text = text_of(log);
        let access = ["custom", "global"].contains(&log);
        let mut all = 0;
        let mut lost = 0;
        for (_, target) in answered.iter().filter(|(n, _)| wanted(*n)) {
            all += 1;
            let written = !access || reference.contains(target.as_str());
            lost += usize::from(written && !text.contains(target.as_str()));
        }
        (all, lost)
    };
    let broken = |n: usize| n % 2 == 1;
    Some([
        count("custom", &|_| true),
        count("global", &|_| true),
        count("main", &|n| broken(n) && n % 4 < 2),
        count("vhost", &|n| broken(n) && n % 4 >= 2),
    ])
}

/// All logs by their names, as soon as nothing is added for a second.
fn settled(world: &World) -> Vec<(String, String)> {
    let read = || -> Vec<(String, String)> {
        let files = fs::read_dir(world.path(LOGS)).expect("there").flatten();
        files
            .map(|file| {
                let text = fs::read(file.path()).unwrap_or_default();
                let name = file.file_name().to_string_lossy().into_owned();
                (name, String::from_utf8_lossy(&text).into_owned())
            })
            .collect()
    };
    let mut before = read();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = read();
        if now == before {
            return now;
        }
        before = now;
    }
}
