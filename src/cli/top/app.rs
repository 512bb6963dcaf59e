//! What `top` shows, and what its keys have chosen. No terminal.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::cli::ask::network;
use crate::cli::status::cause;
use crate::config::JailName;
use crate::control::{BanStatus, BanTime, Command, FailingStatus, Status};

/// What the lower part lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Banned,
    Failing,
}

/// What is in front of the tables.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Dialog {
    None,
    Keys,
    Problems,
    /// An address is being typed.
    Address(String),
    /// `y` sends the command.
    Confirm {
        question: String,
        command: Box<Command>,
    },
    /// The answer to one.
    Answer(String),
}

/// What a key asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Request {
    Quit,
    Command(Command),
    /// `pipeban explain`
    Explain(IpNet),
}

/// Per second.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) lines: f64,
    pub(super) hits: f64,
    pub(super) bans: f64,
    pub(super) jails: BTreeMap<JailName, f64>,
}

pub(super) struct App {
    pub(super) status: Status,
    pub(super) now: Timestamp,
    /// `None`: there is only one answer yet.
    pub(super) rates: Option<Rates>,
    /// Why there is no newer answer.
    pub(super) trouble: Option<String>,
    pub(super) list: List,
    /// Index of the selected client.
    pub(super) selected: usize,
    pub(super) dialog: Dialog,
}

impl App {
    pub(super) fn new(status: Status, now: Timestamp) -> App {
        App {
            status,
            now,
            rates: None,
            trouble: None,
            list: List::Banned,
            selected: 0,
            dialog: Dialog::None,
        }
    }

    /// Takes the engine's next answer. The selection stays on its client, or at the top.
    pub(super) fn update(&mut self, answer: Result<Status, String>, now: Timestamp) {
        let clients = self.clients();
        let selected = clients.get(self.selected);
        let selected = selected.map(|(jail, host)| ((*jail).clone(), (*host).to_owned()));
        match answer {
            Ok(status) => {
                let seconds = now.duration_since(self.now).as_secs_f64();
                self.rates = Some(rates(&self.status, &status, seconds));
                self.status = status;
                self.now = now;
                self.trouble = None;
            }
            Err(error) => self.trouble = Some(error),
        }
        let mut clients = self.clients().into_iter();
        let found = selected.and_then(|(jail, host)| clients.position(|at| at == (&jail, &*host)));
        self.select(match self.selected {
            0 => 0,
            selected => found.unwrap_or(selected),
        });
    }

    pub(super) fn answered(&mut self, text: String) {
        self.dialog = Dialog::Answer(text);
    }

    /// The bans of every jail, newest first.
    pub(super) fn banned(&self) -> Vec<(&JailName, &BanStatus)> {
        let jails = self.status.jails.iter();
        let mut bans: Vec<_> = jails
            .flat_map(|jail| jail.banned.iter().map(move |ban| (&jail.name, ban)))
            .collect();
        bans.sort_by_key(|(_, ban)| std::cmp::Reverse(ban.since));
        bans
    }

    pub(super) fn failing(&self) -> &[FailingStatus] {
        &self.status.failing
    }

    /// The jails and clients of the list, in its order.
    pub(super) fn clients(&self) -> Vec<(&JailName, &str)> {
        match self.list {
            List::Banned => {
                let bans = self.banned().into_iter();
                bans.map(|(jail, ban)| (jail, &*ban.host)).collect()
            }
            List::Failing => {
                let clients = self.failing().iter();
                clients.map(|of| (&of.jail, &*of.host)).collect()
            }
        }
    }

    /// Why the selected client is banned.
    pub(super) fn why(&self) -> Option<String> {
        let banned = match self.list {
            List::Banned => self.banned(),
            List::Failing => return None,
        };
        let (jail, ban) = banned.get(self.selected)?;
        Some(cause(jail, ban, true)?.line())
    }

    /// The address or network of the selected client.
    pub(super) fn host(&self) -> Option<String> {
        let clients = self.clients();
        clients
            .get(self.selected)
            .map(|(_, host)| (*host).to_owned())
    }

    pub(super) fn select(&mut self, index: usize) {
        self.selected = index.min(self.clients().len().saturating_sub(1));
    }

    pub(super) fn switch(&mut self) {
        self.list = match self.list {
            List::Banned => List::Failing,
            List::Failing => List::Banned,
        };
        self.selected = 0;
    }

    /// Asks before it unbans the selected client.
    pub(super) fn ask_unban(&mut self) {
        let Some(host) = self.host() else { return };
        let Ok(net) = network(&host) else {
            return;
        };
        self.dialog = Dialog::Confirm {
            question: format!("lift every ban of {host}?"),
            command: Box::new(Command::Unban {
                net: Some(net),
                id: None,
                jail: None,
                forget: false,
            }),
        };
    }

    /// Asks before it bans what was typed.
    pub(super) fn ask_ban(&mut self, text: &str) {
        self.dialog = match network(text.trim()) {
            Ok(net) => Dialog::Confirm {
                question: format!("ban {} for the bantime of [defaults]?", text.trim()),
                command: Box::new(Command::Ban {
                    net,
                    jail: None,
                    bantime: BanTime::Jail,
                    reason: Some("top".into()),
                }),
            },
            Err(error) => Dialog::Answer(format!("`{}` is {error}", text.escape_debug())),
        };
    }
}

/// What changed between two answers. A counter that begins again counts from 0.
fn rates(before: &Status, after: &Status, seconds: f64) -> Rates {
    let seconds = seconds.max(0.001);
    let rate = |before: u64, after: u64| {
        let change = if after >= before {
            after - before
        } else {
            after
        };
        change as f64 / seconds
    };
    let pipes = |status: &Status| -> (u64, u64) {
        let counters = status.workers.iter().map(|worker| worker.counters);
        counters.fold((0, 0), |(lines, hits), one| {
            (
                lines.saturating_add(one.lines),
                hits.saturating_add(one.hits),
            )
        })
    };
    let bans = |status: &Status| status.jails.iter().map(|jail| jail.total_banned).sum();
    let (lines, hits) = (pipes(before), pipes(after));
    let jails = after.jails.iter().map(|jail| {
        let before = before.jails.iter().find(|old| old.name == jail.name);
        let failed = before.map_or(jail.total_failed, |old| old.total_failed);
        (jail.name.clone(), rate(failed, jail.total_failed))
    });
    Rates {
        lines: rate(lines.0, hits.0),
        hits: rate(lines.1, hits.1),
        bans: rate(bans(before), bans(after)),
        jails: jails.collect(),
    }
}
