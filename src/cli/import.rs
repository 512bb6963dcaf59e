//! `pipeban import`

mod lines;
mod lists;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::ask;
use super::exit::Exit;
use super::global::Global;
use crate::config::JailName;
use crate::control::{Command, Fate, Offered, Reply, Until};
use crate::jail::show_net;
use crate::record::display;
use lines::{Line, Reader};

/// Bans in one message at most: a hit waits for no more than these.
const BATCH: usize = 500;

/// Bytes in one message at most, well below the engine's bound.
const BATCH_BYTES: usize = 128 << 10;

/// Messages about single lines, of each kind.
const SHOWN: u64 = 20;

/// Bytes shown of a message about one line.
const SHOWN_BYTES: usize = 300;

/// Import bans from a file
///
/// Reads the output of `pipeban export` (json or list), or any list of addresses and networks, one
/// per line. Bans keep their ends; a list has none, so the jail's bantime starts now. An import
/// never shortens a ban, so you can import the same file twice.
///
/// pipeban skips bans that are over, and addresses that it never bans (of this host, its gateways
/// and name servers, trusted proxies, ignoreip, the allow-list) with a message. It also skips
/// malformed lines with a message that has the line number; the exit status is then 2.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipeban import bans.json\n  \
    pipeban import --jail manual addresses.txt\n  \
    ssh web1 pipeban export | pipeban import")]
pub(super) struct Args {
    /// File to read; - is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Give all bans to this jail; needed for a list
    #[arg(long)]
    jail: Option<JailName>,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let path = args.file.display().to_string();
    let (name, input): (String, Box<dyn BufRead>) = if args.file == Path::new("-") {
        ("standard input".to_owned(), Box::new(io::stdin().lock()))
    } else {
        match File::open(&args.file) {
            Ok(file) => (path, Box::new(BufReader::with_capacity(64 << 10, file))),
            Err(error) => {
                ask::complain(global, &format!("cannot read {path}: {error}"));
                return Exit::Failed;
            }
        }
    };
    read(global, name, input, args.jail.as_ref(), false)
}

/// Imports the bans of an input with this name in messages. `listed`: shows each imported ban.
pub(super) fn read(
    global: &Global,
    name: String,
    input: Box<dyn BufRead>,
    jail: Option<&JailName>,
    listed: bool,
) -> Exit {
    let mut import = Import {
        global,
        jail,
        name,
        listed,
        batch: Vec::new(),
        bytes: 0,
        sums: Sums::default(),
        trouble: None,
    };
    match import.all(input) {
        Ok(()) => import.end(),
        Err(exit) => {
            let imported = import.sums.new + import.sums.longer;
            if imported > 0 {
                eprintln!(
                    "pipeban: imported {} before this error; run the import again for the rest",
                    count(imported, "ban", "bans")
                );
            }
            exit
        }
    }
}

struct Import<'a> {
    global: &'a Global,
    jail: Option<&'a JailName>,
    /// The input's name, for messages.
    name: String,
    listed: bool,
    /// Bans to send, each with its line number.
    batch: Vec<(u64, Offered)>,
    bytes: usize,
    sums: Sums,
    /// Why imported bans are not in force.
    trouble: Option<String>,
}

/// Bans by fate; also the answer with `--json`.
#[derive(Default, Serialize)]
struct Sums {
    /// Nothing was refused or malformed, and all bans are in force.
    done: bool,
    new: u64,
    longer: u64,
    known: u64,
    over: u64,
    never_banned: u64,
    refused: u64,
    malformed: u64,
}

impl Import<'_> {
    fn all(&mut self, input: Box<dyn BufRead>) -> Result<(), Exit> {
        let mut lines = Reader::new(input);
        loop {
            match lines.next(self.jail) {
                Ok(Line::End) => return self.send(),
                Ok(Line::Empty) => {}
                Ok(Line::Malformed { column, why }) => {
                    let column = column.map(|column| format!(":{column}"));
                    let place = format!("{}{}", lines.number(), column.unwrap_or_default());
                    self.sums.malformed += 1;
                    self.show(self.sums.malformed, &place, &why);
                }
                Ok(Line::Ban(offered)) => {
                    self.bytes += serde_json::to_vec(&offered).map_or(0, |text| text.len() + 1);
                    self.batch.push((lines.number(), *offered));
                    if self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES {
                        self.send()?;
                    }
                }
                Err(error) => {
                    self.send()?;
                    ask::complain(self.global, &format!("cannot read {}: {error}", self.name));
                    return Err(Exit::Failed);
                }
            }
        }
    }

    /// Sends the batch to the engine.
    fn send(&mut self) -> Result<(), Exit> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let (numbers, bans): (Vec<u64>, Vec<Offered>) = self.batch.drain(..).unzip();
        let hosts: Vec<String> = bans.iter().map(|ban| show_net(&ban.net)).collect();
        let shown: Vec<String> = bans.iter().filter(|_| self.listed).map(shown).collect();
        let jail = self.jail.cloned();
        let (fates, trouble) = match ask::ask(self.global, &Command::Import { jail, bans }) {
            Ok(Reply::Taken { fates, trouble }) => (fates, trouble),
            Ok(reply) => return Err(ask::show(self.global, &reply)),
            Err(error) => return Err(ask::fail(self.global, &error)),
        };
        self.trouble = trouble.or(self.trouble.take());
        for (line, fate) in shown.iter().zip(&fates) {
            if matches!(fate, Fate::New | Fate::Longer) && !self.global.json {
                ask::print(line);
            }
        }
        for ((number, host), fate) in numbers.into_iter().zip(hosts).zip(fates) {
            self.count(&number.to_string(), &host, fate);
        }
        Ok(())
    }

    fn count(&mut self, line: &str, host: &str, fate: Fate) {
        let sums = &mut self.sums;
        match fate {
            Fate::New => sums.new += 1,
            Fate::Longer => sums.longer += 1,
            Fate::Known => sums.known += 1,
            Fate::Over => sums.over += 1,
            Fate::Spared(why) => {
                sums.never_banned += 1;
                let text = format!("{host} is never banned: {why}");
                self.show(self.sums.never_banned, line, &text);
            }
            Fate::Refused(why) => {
                sums.refused += 1;
                let text = format!("{host} is not banned: {why}");
                self.show(self.sums.refused, line, &text);
            }
        }
    }

    /// Shows the `nth` message of a kind, up to a bound.
    fn show(&self, nth: u64, place: &str, text: &str) {
        if nth <= SHOWN {
            let text = display(text.as_bytes(), SHOWN_BYTES);
            eprintln!("{}:{place}: {text}", self.name);
        }
    }

    fn end(mut self) -> Exit {
        let sums = &mut self.sums;
        let hidden = [sums.never_banned, sums.refused, sums.malformed]
            .map(|sum| sum.saturating_sub(SHOWN))
            .iter()
            .sum();
        if hidden > 0 {
            let lines = count(hidden, "more line", "more lines");
            eprintln!("{}: {lines} with such problems", self.name);
        }
        if let Some(trouble) = &self.trouble {
            eprintln!("pipeban: {trouble}");
        }
        sums.done = sums.refused + sums.malformed == 0 && self.trouble.is_none();
        ask::print(&if self.global.json {
            serde_json::json!(sums).to_string()
        } else {
            sums.text()
        });
        if sums.done { Exit::Yes } else { Exit::Failed }
    }
}

impl Sums {
    fn text(&self) -> String {
        let mut text = format!("imported {}", count(self.new + self.longer, "ban", "bans"));
        if self.longer > 0 {
            text += &format!(" ({} longer than before)", self.longer);
        }
        let skipped = [
            (self.known, "known ban", "known bans"),
            (self.over, "expired ban", "expired bans"),
            (self.never_banned, "exempt address", "exempt addresses"),
            (self.refused, "refused ban", "refused bans"),
            (self.malformed, "malformed line", "malformed lines"),
        ];
        let skipped = skipped.iter().filter(|(number, ..)| *number > 0);
        let skipped: Vec<String> = skipped.map(|(n, one, more)| count(*n, one, more)).collect();
        if let Some((last, others)) = skipped.split_last() {
            text += "; skipped ";
            if !others.is_empty() {
                text += &format!("{} and ", others.join(", "));
            }
            text += last;
        }
        text
    }
}

/// A ban with its end.
fn shown(ban: &Offered) -> String {
    let end = match ban.until {
        Until::Jail => "for the jail's bantime".to_owned(),
        Until::ForEver => "for ever".to_owned(),
        Until::At(end) => format!("until {end}"),
    };
    format!("{} by {} {end}", show_net(&ban.net), ban.jail)
}

fn count(number: u64, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}
