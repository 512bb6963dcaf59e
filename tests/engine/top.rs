//! `pipeban top` on a terminal of 80 columns: what it draws, what its keys do, and that it leaves the
//! terminal as it was.

use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex};

use nix::fcntl::OFlag;
use nix::pty::{Winsize, grantpt, openpty, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;

use super::*;

const SIZE: Winsize = Winsize {
    ws_row: 24,
    ws_col: 80,
    ws_xpixel: 0,
    ws_ypixel: 0,
};

pub(super) struct Top {
    child: Child,
    keys: File,
    drawn: Arc<Mutex<Vec<u8>>>,
    slave: std::os::fd::OwnedFd,
    before: Termios,
}

impl Top {
    pub(super) fn start(lab: &Lab) -> Top {
        let terminal = openpty(Some(&SIZE), None).unwrap();
        let before = tcgetattr(&terminal.slave).unwrap();
        let end = || terminal.slave.try_clone().unwrap();
        let mut command = lab.command(&["top"]);
        command.stdin(end()).stdout(end()).stderr(end());
        let child = command.env("TERM", "xterm-256color").spawn().unwrap();
        let drawn = Arc::new(Mutex::new(Vec::new()));
        let mut screen = File::from(terminal.master.try_clone().unwrap());
        let into = Arc::clone(&drawn);
        std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Top {
            child,
            keys: terminal.master.into(),
            drawn,
            slave: terminal.slave,
            before,
        }
    }

    /// Waits until the text has been drawn in one piece.
    pub(super) fn until_drawn(&self, text: &str) {
        until(text, || self.drawn().contains(text));
    }

    pub(super) fn drawn(&self) -> String {
        String::from_utf8_lossy(&self.drawn.lock().unwrap()).into_owned()
    }

    pub(super) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Its exit status; the terminal is as it was.
    pub(super) fn ended(mut self) -> Option<i32> {
        let status = self.child.wait().unwrap();
        assert_eq!(tcgetattr(&self.slave).unwrap(), self.before);
        // It has left the other screen, and shows the cursor.
        self.until_drawn("\x1b[?1049l");
        self.until_drawn("\x1b[?25h");
        status.code()
    }
}

fn signal(top: &Top, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(top.child.id()).unwrap());
    kill(pid, signal).unwrap();
}

#[test]
fn keys_and_signals_end_it_and_the_terminal_is_as_it_was() {
    let lab = Lab::started();
    lab.say(&["ban", "203.0.113.9"]);
    for end in [None, Some(Signal::SIGTERM), Some(Signal::SIGHUP)] {
        let mut top = Top::start(&lab);
        top.until_drawn("203.0.113.9");
        match end {
            None => top.press("q"),
            Some(end) => signal(&top, end),
        }
        assert_eq!(top.ended(), Some(0));
    }
}

/// As when an ssh session breaks.
#[test]
fn it_ends_with_its_terminal() {
    let lab = Lab::started();
    lab.say(&["ban", "203.0.113.9"]);
    // No other process may hold its end.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = ptsname_r(&master).unwrap();
    let end = || File::options().read(true).write(true).open(&slave).unwrap();
    let top = lab.command(&["top"]);
    let mut command = Command::new("setsid");
    command
        .arg("--ctty")
        .arg("sh")
        .args(["-c", "stty rows 24 cols 80; exec \"$@\"", "sh"])
        .arg(top.get_program())
        .args(top.get_args());
    command.stdin(end()).stdout(end()).stderr(end());
    let mut child = command.env("TERM", "xterm-256color").spawn().unwrap();
    let (mut screen, mut drawn) = (master, Vec::new());
    while !String::from_utf8_lossy(&drawn).contains("203.0.113.9") {
        let mut buffer = [0; 4_096];
        let length = screen.read(&mut buffer).unwrap();
        drawn.extend_from_slice(&buffer[..length]);
    }
    drop(screen);
    until("it ends", || child.try_wait().unwrap().is_some());
}

#[test]
fn a_ban_is_lifted_after_a_yes() {
    let lab = Lab::started();
    lab.say(&["ban", "203.0.113.9"]);
    let mut top = Top::start(&lab);
    top.until_drawn("203.0.113.9");
    top.press("u");
    // Spaces that were there are not drawn again.
    top.until_drawn("203.0.113.9?");
    assert_eq!(lab.jail("manual")["currently_banned"], 1);
    top.press("y");
    until("it is lifted", || {
        lab.jail("manual")["currently_banned"] == 0
    });
    top.press("xq");
    assert_eq!(top.ended(), Some(0));
}

#[test]
fn a_client_is_explained_on_the_normal_screen() {
    let lab = Lab::started();
    lab.say(&["ban", "203.0.113.9"]);
    let mut top = Top::start(&lab);
    top.until_drawn("203.0.113.9");
    top.press("e");
    top.until_drawn("$ pipeban explain 203.0.113.9");
    top.until_drawn("Enter: back to");
    top.press("\n");
    until("the screen is back", || {
        top.drawn().matches("\x1b[?1049h").count() == 2
    });
    top.press("q");
    assert_eq!(top.ended(), Some(0));
}

#[test]
fn a_network_with_hits_is_explained_by_its_count() {
    let lab = Lab::started();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let hits = vec![hit(1, "2001:db8::7", &["often"])];
    worker.send(&Request::Hits(hits)).unwrap();
    worker.ack().unwrap();
    let failing = &lab.status()["failing"][0];
    assert_eq!(failing["host"], "2001:db8::/64");
    let (_, answer) = lab.say(&["explain", "--json", "2001:db8::/64"]);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["reasons"][0]["code"], "below-maxretry", "{answer:#}");
}

#[test]
fn without_a_terminal_it_names_status() {
    let lab = Lab::started();
    let (exit, text) = lab.say(&["top"]);
    assert_eq!(exit, 64, "{text}");
    assert!(text.contains("pipeban status --json"), "{text}");
}
