//! Where the bans come from: the database, or logs of fail2ban.

use std::io;
use std::time::SystemTime;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Failure;
use crate::cli::global::Global;
use crate::cli::replay::input::{self, Block, Blocks};
use crate::disk;
use crate::report::fail2ban::{LogDetails, Logs};
use crate::report::{Collector, Details, Evidence, Query, Spell};
use crate::store::{Error, ReadOnly};

pub(super) enum Source {
    Database(ReadOnly),
    Logs(Logs),
}

impl Source {
    /// The logs with these names; without any, the database.
    pub(super) fn open(
        logs: &[String],
        global: &Global,
        zone: &TimeZone,
    ) -> Result<Source, Failure> {
        if logs.is_empty() {
            return database(global).map(Source::Database);
        }
        let mut read = Logs::new(zone.clone());
        for name in logs {
            self::log(name, &mut read).map_err(|error| {
                let text = format!("cannot read `{name}`: {error}");
                match error.kind() {
                    io::ErrorKind::PermissionDenied => Failure::NotPermitted(text),
                    _ => Failure::Cannot(text),
                }
            })?;
        }
        read.finish();
        Ok(Source::Logs(read))
    }

    /// Adds all bans.
    pub(super) fn rows(&self, collector: &mut Collector) -> Result<(), Failure> {
        match self {
            Source::Database(database) => {
                let query = collector.query();
                let (since, until) = (query.since, query.until);
                let whole = query.vhost.is_some();
                let read = database.bans(since, until, whole, |row| collector.add(row));
                read.map_err(|error| Failure::Cannot(format!("cannot read the database: {error}")))
            }
            Source::Logs(logs) => {
                logs.bans().for_each(|row| collector.add(&row));
                collector
                    .note("from logs: a ban is taken to be in force until its `Unban` line".into());
                let lines = logs.without_time();
                if lines > 0 {
                    collector.note(format!(
                        "{lines} lines have no time: the time of their file is used"
                    ));
                }
                Ok(())
            }
        }
    }

    /// For single clients.
    pub(super) fn details<'s>(&'s self, query: &'s Query) -> Box<dyn Details + 's> {
        match self {
            Source::Database(database) => Box::new(Stored { database, query }),
            Source::Logs(logs) => Box::new(LogDetails { logs, query }),
        }
    }
}

fn database(global: &Global) -> Result<ReadOnly, Failure> {
    let path = disk::paths_of(&global.config).database();
    let shown = path.display();
    match ReadOnly::open(&path) {
        Ok(Some(database)) => Ok(database),
        Ok(None) => Err(Failure::Cannot(format!(
            "there is no database {shown}: no engine has run with this configuration yet"
        ))),
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied => Err(
            Failure::NotPermitted(format!("no permission to read {shown}: try `sudo`")),
        ),
        Err(error) => Err(Failure::Cannot(format!("cannot read {shown}: {error}"))),
    }
}

fn log(name: &str, logs: &mut Logs) -> io::Result<()> {
    let (input, _) = input::open(name)?;
    let mut blocks = Blocks::new(input)?;
    while let Some(block) = blocks.next()? {
        if let Block::Lines(lines) = block {
            logs.lines(lines);
        }
    }
    let changed = std::fs::metadata(name).and_then(|file| file.modified());
    let time = Timestamp::try_from(changed.unwrap_or_else(|_| SystemTime::now()));
    logs.end_of_log(time.unwrap_or(Timestamp::MAX));
    Ok(())
}

/// Details from the database.
struct Stored<'s> {
    database: &'s ReadOnly,
    query: &'s Query,
}

impl Details for Stored<'_> {
    fn bans(&self, net: &IpNet, most: usize) -> io::Result<Vec<Spell>> {
        let mut spells = Vec::new();
        let read = self.database.bans_of(net, most, |row| {
            spells.extend(Spell::of(row, self.query));
        });
        read.map_err(io::Error::other)?;
        Ok(spells)
    }

    fn evidence(&self, ban: u64) -> io::Result<Evidence> {
        self.database.evidence(ban).map_err(io::Error::other)
    }
}
