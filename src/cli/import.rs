//! `pipeban import`

mod lines;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::Global;
use super::ask;
use super::exit::Exit;
use crate::config::JailName;
use crate::control::{Command, Fate, Offered, Reply};
use crate::record::display;
use lines::{Line, Reader};

/// Bans given to the engine at once: a hit that comes meanwhile waits for no more than these.
const BATCH: usize = 500;

/// Bytes of them, well below what one message may have.
const BATCH_BYTES: usize = 128 << 10;

/// Lines told one by one, of those that are wrong and of those that are left out each.
const TOLD: usize = 20;

/// Bytes shown of what is said of one line.
const SHOWN: usize = 300;

/// Take over bans
///
/// Reads what `pipeban export` wrote, json or list, or any list of addresses and networks, one a
/// line. Bans keep their ends, whatever time has passed; those that are over are left out, and so
/// is whoever must never be banned (of this host, its gateways and name servers, trusted proxies,
/// ignoreip, the allow-list): told with the reason. A ban that is there already is never
/// shortened, so the same file can be taken in twice. A list names no ends: the jail's bantime
/// counts from now.
///
/// A line that makes no sense is told with its number and left out, all others are taken in; the
/// exit status is 2 then.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipeban import bans.json\n  \
    pipeban import --jail manual addresses.txt\n  \
    ssh web1 pipeban export | pipeban import")]
pub(super) struct Args {
    /// Where to read; - is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// On this jail's behalf, whatever the file says; a list names none
    #[arg(long)]
    jail: Option<JailName>,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let input: Box<dyn BufRead> = if args.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        match File::open(&args.file) {
            Ok(file) => Box::new(BufReader::with_capacity(64 << 10, file)),
            Err(error) => {
                ask::complain(global, &format!("{}: {error}", args.file.display()));
                return Exit::Failed;
            }
        }
    };
    let name = match args.file.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => args.file.display().to_string(),
    };
    let mut import = Import {
        global,
        jail: args.jail.as_ref(),
        name,
        batch: Vec::new(),
        bytes: 0,
        sums: Sums::default(),
        trouble: None,
    };
    match import.all(input) {
        Ok(()) => import.end(),
        Err(exit) => {
            let done = &import.sums;
            if done.new + done.longer > 0 {
                let text = "what was taken in before that stays; import it again for the rest";
                eprintln!("pipeban: {}: {text}", done.taken());
            }
            exit
        }
    }
}

struct Import<'a> {
    global: &'a Global,
    jail: Option<&'a JailName>,
    /// What is read, for messages.
    name: String,
    /// Each with the number of its line.
    batch: Vec<(u64, Offered)>,
    bytes: usize,
    sums: Sums,
    /// What the firewall refused.
    trouble: Option<String>,
}

#[derive(Default)]
struct Sums {
    new: u64,
    longer: u64,
    known: u64,
    over: u64,
    spared: u64,
    refused: u64,
    malformed: u64,
}

impl Import<'_> {
    fn all(&mut self, input: Box<dyn BufRead>) -> Result<(), Exit> {
        let mut lines = Reader::new(input);
        loop {
            let line = match lines.next(self.jail) {
                Ok(line) => line,
                Err(error) => {
                    self.flush()?;
                    ask::complain(self.global, &format!("{}: {error}", self.name));
                    return Err(Exit::Failed);
                }
            };
            match line {
                Line::End => return self.flush(),
                Line::Empty => {}
                Line::Wrong { column, why } => {
                    self.sums.malformed += 1;
                    let place = match column {
                        Some(column) => format!("{}:{column}", lines.number()),
                        None => lines.number().to_string(),
                    };
                    if self.sums.malformed <= TOLD as u64 {
                        self.tell(&place, &why);
                    }
                }
                Line::Ban(offered) => {
                    self.bytes += serde_json::to_vec(&offered).map_or(0, |text| text.len() + 1);
                    self.batch.push((lines.number(), *offered));
                    if self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES {
                        self.flush()?;
                    }
                }
            }
        }
    }

    fn tell(&self, place: &str, what: &str) {
        let what = display(what.as_bytes(), SHOWN);
        eprintln!("{}:{place}: {what}", self.name);
    }

    /// Gives the engine what has been read.
    fn flush(&mut self) -> Result<(), Exit> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let (numbers, bans): (Vec<u64>, Vec<Offered>) = self.batch.drain(..).unzip();
        let hosts: Vec<_> = bans.iter().map(|ban| ban.net).collect();
        let jail = self.jail.cloned();
        let reply = match ask::ask(self.global, &Command::Import { jail, bans }) {
            Ok(reply) => reply,
            Err(error) => {
                ask::complain(self.global, &ask::explain(self.global, &error));
                return Err(ask::exit_of(&error));
            }
        };
        let Reply::Taken { fates, trouble } = reply else {
            return Err(ask::show(self.global, &reply));
        };
        if trouble.is_some() {
            self.trouble = trouble;
        }
        for ((number, net), fate) in numbers.into_iter().zip(hosts).zip(fates) {
            self.count(number, &crate::jail::show_net(&net), fate);
        }
        Ok(())
    }

    fn count(&mut self, number: u64, host: &str, fate: Fate) {
        let sums = &mut self.sums;
        let (sum, text) = match fate {
            Fate::New => (&mut sums.new, None),
            Fate::Longer => (&mut sums.longer, None),
            Fate::Known => (&mut sums.known, None),
            Fate::Over => (&mut sums.over, None),
            Fate::Spared(why) => {
                let text = format!("{host} is never banned: {why}");
                (&mut sums.spared, Some(text))
            }
            Fate::Refused(why) => {
                let text = format!("{host} is not banned: {why}");
                (&mut sums.refused, Some(text))
            }
        };
        *sum += 1;
        if let Some(text) = text
            && *sum <= TOLD as u64
        {
            self.tell(&number.to_string(), &text);
        }
    }

    fn end(&self) -> Exit {
        let sums = &self.sums;
        let untold = |sum: u64| sum.saturating_sub(TOLD as u64);
        let more = untold(sums.spared) + untold(sums.refused) + untold(sums.malformed);
        if more > 0 {
            eprintln!("{}: and {more} lines more like these", self.name);
        }
        if let Some(trouble) = &self.trouble {
            eprintln!("pipeban: {trouble}");
        }
        let wrong = sums.refused + sums.malformed > 0 || self.trouble.is_some();
        if self.global.json {
            ask::print(&sums.json(!wrong).to_string());
        } else {
            ask::print(&sums.text());
        }
        if wrong { Exit::Failed } else { Exit::Yes }
    }
}

impl Sums {
    fn taken(&self) -> String {
        format!("{} bans taken in", self.new + self.longer)
    }

    fn text(&self) -> String {
        let others = [
            (self.longer, "of them in place of a shorter one"),
            (self.known, "were there already"),
            (self.over, "are over"),
            (self.spared, "must never be"),
            (self.refused, "cannot be"),
            (self.malformed, "lines make no sense"),
        ];
        let others = others.iter().filter(|(count, _)| *count > 0);
        let others = others.map(|(count, what)| format!("; {count} {what}"));
        self.taken() + &others.collect::<String>()
    }

    fn json(&self, done: bool) -> serde_json::Value {
        serde_json::json!({
            "done": done,
            "new": self.new,
            "longer": self.longer,
            "known": self.known,
            "over": self.over,
            "never_banned": self.spared,
            "refused": self.refused,
            "malformed": self.malformed,
        })
    }
}
