//! `pipeban top`

mod app;
mod draw;
mod keys;

use std::io::{self, IsTerminal};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use ipnet::IpNet;
use jiff::Timestamp;
use nix::sys::signal::{SigSet, Signal};
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::{event, execute};

use super::exit::Exit;
use super::global::Global;
use super::{ask, explain};
use crate::control::{Command, Reply, Status};
use crate::jail::show_net;
use app::{App, Request};

/// Between two questions to the engine.
const EVERY: Duration = Duration::from_secs(1);

/// Between two looks at what arrived.
const LOOK: Duration = Duration::from_millis(100);

/// Clients at most, banned and with hits.
const CLIENTS: usize = 500;

/// Show lines, hits and bans as they happen
///
/// Rates, jails and clients, renewed each second. Keys: up and down select a client, Tab switches
/// between banned clients and those with hits, `e` explains the selected client, `u` lifts the bans of the selected client, `b` bans an
/// address, `w` shows all problems, `?` all keys, `q` ends it. Bans change only after a `y`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args, global: &Global) -> Exit {
    if global.json || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let text = "`top` needs a terminal; `pipeban status --json` prints the same";
        ask::complain(global, text);
        return Exit::Usage;
    }
    // The first answer before the screen: what is wrong is printed where it stays.
    let first = match status(global) {
        Ok(status) => status,
        Err(exit) => return exit,
    };
    // The signals first: later threads inherit that they are blocked.
    let answers = match end_at_signals().and_then(|()| fetch(global)) {
        Ok(answers) => answers,
        Err(error) => {
            eprintln!("pipeban: cannot start a thread: {error}");
            return Exit::Failed;
        }
    };
    // Its panic hook leaves the screen too, before `panic = "abort"` ends the process.
    let ended = match ratatui::try_init() {
        Ok(mut terminal) => show(&mut terminal, first, &answers, global),
        Err(error) => Err(error),
    };
    ratatui::restore();
    match ended {
        Ok(()) => Exit::Yes,
        Err(error) => {
            eprintln!("pipeban: cannot use the terminal: {error}");
            Exit::Failed
        }
    }
}

/// Until a key ends it.
fn show(
    screen: &mut ratatui::DefaultTerminal,
    first: Box<Status>,
    answers: &Receiver<Result<Box<Status>, String>>,
    global: &Global,
) -> io::Result<()> {
    let mut app = App::new(*first, Timestamp::now());
    loop {
        while let Ok(answer) = answers.try_recv() {
            app.update(answer.map(|status| *status), Timestamp::now());
        }
        screen.draw(|frame| draw::draw(frame, &mut app))?;
        if !event::poll(LOOK)? {
            continue;
        }
        match keys::handle(&mut app, &event::read()?) {
            Some(Request::Quit) => return Ok(()),
            Some(Request::Command(command)) => app.answered(perform(&command, global)),
            Some(Request::Explain(net)) => {
                if !explain(net, global)? {
                    return Ok(());
                }
                // `clear` would ask the terminal for its cursor, which not every one answers.
                *screen = ratatui::try_init()?;
            }
            None => {}
        }
    }
}

/// Prints the answer of `pipeban explain` on the normal screen, and waits for Enter. False: the
/// terminal is gone.
fn explain(net: IpNet, global: &Global) -> io::Result<bool> {
    ratatui::try_restore()?;
    ask::print(&format!("\n$ pipeban explain {}", show_net(&net)));
    explain::of(net, global);
    ask::print("\nEnter: back to `pipeban top`");
    Ok(io::stdin().read_line(&mut String::new())? > 0)
}

/// The engine's answer, in words.
fn perform(command: &Command, global: &Global) -> String {
    match ask::ask(global, command) {
        Ok(Reply::Done { text, .. } | Reply::Refused { text, .. }) => text,
        Ok(_) => "the engine sent an unexpected answer".to_owned(),
        Err(error) => ask::explain(global, &error),
    }
}

/// The first answer; what is wrong is printed.
fn status(global: &Global) -> Result<Box<Status>, Exit> {
    match ask::ask(global, &question()) {
        Ok(Reply::Status(status)) => Ok(status),
        Ok(reply) => Err(ask::show(global, &reply)),
        Err(error) => Err(ask::fail(global, &error)),
    }
}

fn question() -> Command {
    Command::Status {
        jail: None,
        newest: CLIENTS,
    }
}

/// Asks each second in a thread: a slow engine does not stop the keys.
fn fetch(global: &Global) -> io::Result<Receiver<Result<Box<Status>, String>>> {
    let (sender, answers) = bounded(1);
    let global = global.clone();
    std::thread::Builder::new()
        .name("fetch".into())
        .spawn(move || {
            loop {
                std::thread::sleep(EVERY);
                let answer = match ask::ask(&global, &question()) {
                    Ok(Reply::Status(status)) => Ok(status),
                    Ok(_) => Err("the engine sent an unexpected answer".to_owned()),
                    Err(error) => Err(ask::explain(&global, &error)),
                };
                if sender.send(answer).is_err() {
                    return;
                }
            }
        })?;
    Ok(answers)
}

/// Ends the program at a signal, with the terminal as it was, whatever the other threads do:
/// crossterm reads for ever from a terminal that is gone.
fn end_at_signals() -> io::Result<()> {
    let mut end = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        end.add(signal);
    }
    end.thread_block()?;
    let thread = std::thread::Builder::new().name("signals".into());
    thread.spawn(move || {
        while end.wait().is_err() {}
        ratatui::restore();
        let _ = execute!(io::stdout(), Show);
        std::process::exit(Exit::Yes as i32);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests;
