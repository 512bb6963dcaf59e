//! Apache's logs by the hour, by the day, and as rotatelogs writes them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::http;
use crate::support::world::SERVER4;
use crate::support::{Apache, Mpm, World, eventually};

const DIR: &str = "/var/log/apache2";

/// rotatelogs and pipeban with the same arguments, each in a directory of its own.
fn directives(arguments: &str) -> String {
    let in_directory = |directory: &str| arguments.replace("DIR", &format!("{DIR}/{directory}"));
    format!(
        "CustomLog \"|/usr/bin/rotatelogs {}\" combined\n\
         CustomLog \"|/usr/bin/pipeban log access {}\" combined\n\
         CustomLog {DIR}/reference.log combined\n\
         ErrorLog \"|/usr/bin/pipeban log error --link {DIR}/error.log {DIR}/%Y/error.%S.log\"\n",
        in_directory("theirs"),
        in_directory("ours")
    )
}

fn names(world: &World, directory: &str) -> BTreeSet<String> {
    let path = world.path(&format!("{DIR}/{directory}"));
    std::fs::read_dir(path)
        .expect("a directory")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .filter(|name| name != "current")
        .collect()
}

/// In the order of their names.
fn all(world: &World, directory: &str) -> String {
    let read = |name| {
        let text = world.read(&format!("{DIR}/{directory}/{name}"));
        assert!(text.is_empty() || text.ends_with('\n'), "{name} is torn");
        text
    };
    names(world, directory).into_iter().map(read).collect()
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn pipeban_in_rotatelogs_place_writes_the_same_lines_into_files_of_the_same_names() {
    for arguments in [
        "-l -f -L DIR/current DIR/access.%H%M%S 1",
        "-D DIR/access 2 60",
    ] {
        let Some(world) = World::new() else { return };
        world.must(&["mkdir", &format!("{DIR}/theirs")]);
        let apache = Apache::start(&world, Mpm::Event, &directives(arguments));
        let clients = world.clients();
        let mut asked = 0;
        let mut ask_for = |time: Duration| {
            let until = Instant::now() + time;
            while Instant::now() < until {
                let target = format!("/closed/{asked}-end");
                http::get(&clients, "198.51.100.10", SERVER4, &target).expect("answered");
                asked += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        ask_for(Duration::from_millis(2500));
        apache.reload("graceful");
        ask_for(Duration::from_millis(1500));
        apache.stop("graceful-stop");

        let reference = world.read(&format!("{DIR}/reference.log"));
        eventually("every line is in a file of ours", || {
            let ours = all(&world, "ours");
            if sorted(&ours) == sorted(&reference) {
                Ok(())
            } else {
                Err(format!(
                    "{} of {} lines",
                    ours.lines().count(),
                    reference.lines().count()
                ))
            }
        });
        // rotatelogs makes none for a second without a line.
        let (theirs, ours) = (names(&world, "theirs"), names(&world, "ours"));
        assert!(theirs.len() >= 2, "{theirs:?}");
        assert!(ours.is_superset(&theirs), "{theirs:?} {ours:?}");
        if arguments.contains("current") {
            let link = world.must(&["readlink", &format!("{DIR}/ours/current")]);
            assert!(ours.contains(link.trim()), "{link} {ours:?}");
        }
        let errors = world.must(&["sh", "-c", &format!("cat {DIR}/*/error.*.log")]);
        for n in 0..asked {
            let lines = errors.matches(&format!("/{n}-end")).count();
            assert_eq!(lines, 1, "error lines of {n}");
        }
        assert!(world.read(&format!("{DIR}/error.log")).len() <= errors.len());
    }
}
