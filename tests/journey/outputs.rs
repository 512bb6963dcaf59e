//! Log files named by the time, under a real Apache.

use std::time::{Duration, Instant};

use crate::support::http;
use crate::support::world::SERVER4;
use crate::support::{Apache, Mpm, World, eventually};

const DIR: &str = "/var/log/apache2";

/// The text of all files that match the shell pattern, in the order of their names.
fn all(world: &World, pattern: &str) -> String {
    world.must(&["sh", "-c", &format!("cat {DIR}/{pattern}")])
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn files_of_each_second_hold_every_line_once_across_a_reload() {
    let Some(world) = World::new() else { return };
    let directives = format!(
        "CustomLog \"|/usr/bin/pipeban log access --link {DIR}/current \
             {DIR}/ours/access.%H%M%S\" combined\n\
         CustomLog \"|/usr/bin/pipeban log access -l -L {DIR}/never {DIR}/old 86400\" combined\n\
         CustomLog {DIR}/reference.log combined\n\
         ErrorLog \"|/usr/bin/pipeban log error --link {DIR}/error.log {DIR}/%Y/error.%S.log\"\n"
    );
    let apache = Apache::start(&world, Mpm::Event, &directives);
    let clients = world.clients();
    let mut requests = 0;
    let mut send_requests = |time: Duration| {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let target = format!("/closed/{requests}-end");
            http::get(&clients, "198.51.100.10", SERVER4, &target).expect("answered");
            requests += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    send_requests(Duration::from_millis(2500));
    apache.reload("graceful");
    send_requests(Duration::from_millis(1500));
    apache.stop("graceful-stop");

    let reference = world.read(&format!("{DIR}/reference.log"));
    // A directive with rotatelogs's arguments writes to PATH, and never to the link.
    for pattern in ["ours/access.*", "old"] {
        eventually("every line is in a file of ours", || {
            let ours = all(&world, pattern);
            if sorted(&ours) == sorted(&reference) {
                Ok(())
            } else {
                let (ours, all) = (ours.lines().count(), reference.lines().count());
                Err(format!("{pattern}: {ours} of {all} lines"))
            }
        });
    }
    let names = world.must(&["sh", "-c", &format!("cd {DIR}/ours; echo *")]);
    assert!(names.split_whitespace().count() >= 3, "{names}");
    let link = world.must(&["readlink", &format!("{DIR}/current")]);
    let last = names.split_whitespace().last().unwrap_or_default();
    assert!(link.trim().ends_with(last), "{link} {names}");
    assert!(!world.path(&format!("{DIR}/never")).exists());
    let errors = all(&world, "*/error.*.log");
    for n in 0..requests {
        let lines = errors.matches(&format!("/{n}-end")).count();
        assert_eq!(lines, 1, "error lines of {n}");
    }
    assert!(world.read(&format!("{DIR}/error.log")).len() <= errors.len());
}
