//! Gathers the facts: from the engine, the database, the firewall, Apache's configuration and logs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::enforcement;
use super::logs::{self, Source};
use super::reading::{self, InUse};
use crate::apache::{self, Scan};
use crate::cli::ask;
use crate::cli::global::Global;
use crate::cli::replay;
use crate::config::{Backend, Config, JailName, Origins, Problem};
use crate::control::{self, AskError, Command, Known, KnownBan, Reply};
use crate::disk;
use crate::engine;
use crate::firewall;
use crate::jail::{Ban, Cause, Exempt, Mode, Moment, Now, Reason, SHARED_RETRIES, Why};
use crate::record::Kind;
use crate::report::explain::{
    BanFact, CounterFact, CrawlerFact, Engine, ExemptFact, Facts, Off, UfwFact, WorkerFact,
};
use crate::store::{Past, PastBan, ReadOnly};
use crate::sys;

/// A busy engine is not waited for longer: the database has the same.
const PATIENCE: Duration = Duration::from_millis(700);

/// What was asked.
pub(super) struct Asked<'a> {
    pub(super) net: IpNet,
    /// A pasted line.
    pub(super) line: Option<(Kind, &'a str)>,
    /// Empty: those that Apache writes.
    pub(super) logs: &'a [PathBuf],
    pub(super) apache: Option<&'a Path>,
}

/// Why there is no answer.
pub(super) enum Failed {
    NotPermitted(String),
    Config(Vec<Problem>),
}

/// What the configuration says, and where.
struct Configured {
    in_use: Config,
    /// The files, where the engine has not taken them into use.
    waiting: Option<Config>,
    origins: Origins,
}

pub(super) fn gather(asked: &Asked<'_>, global: &Global) -> Result<Facts, Failed> {
    let (known, engine) = ask_engine(global, asked.net);
    let configured = configuration(global, known.as_ref())?;
    let config = &configured.in_use;
    let now = Now {
        boot: Moment::from_boottime(sys::clock::boottime()),
        wall: Timestamp::now(),
    };
    let enabled = config.jails.iter().filter(|(_, jail)| jail.enabled);
    let enabled: Vec<JailName> = enabled.map(|(name, _)| name.clone()).collect();
    let (past, database) = read_database(config, asked.net, &enabled, now);
    if known.is_none() && database.is_some() && asked.logs.is_empty() && asked.line.is_none() {
        let permitted = !matches!(engine, Engine::Silent(_)) || nix::unistd::geteuid().is_root();
        if !permitted {
            let text = "no permission to ask the engine or to read the database: try `sudo`";
            return Err(Failed::NotPermitted(text.to_owned()));
        }
    }
    let allowed = past.allowed.iter().map(|entry| entry.net);
    let (exempt, _) = engine::exempt_stored(config, allowed);
    let scan = apache::scan(asked.apache).ok();
    let mut facts = Facts {
        host: asked.net,
        now: now.wall,
        zone: TimeZone::system(),
        commands: sys::systemd::commands(),
        database,
        off: off(config, known.as_ref(), now),
        dry_run: config.firewall.has(Backend::DryRun),
        bans: Vec::new(),
        past: Vec::new(),
        counters: Vec::new(),
        exempt: exemptions(&configured, known.as_ref(), &exempt, &past, asked.net),
        enabled,
        crawler: known.as_ref().and_then(crawler),
        shared: known.as_ref().is_some_and(|known| known.shared),
        ufw: ufw(config),
        table: config.firewall.has_table(),
        max_rules: config.firewall.max_rules,
        apache_ports: ports(config, scan.as_ref()),
        unpiped: scan.as_ref().map(logs::unpiped).unwrap_or_default(),
        workers: known.as_ref().map(workers).unwrap_or_default(),
        logs: Vec::new(),
        engine,
    };
    bans(&mut facts, known.as_ref(), &past, now);
    facts.counters = counters(config, known.as_ref(), &past, now);
    enforcement::ask(&mut facts.bans, config);
    let mut sources = match asked.logs {
        [] => logs::of_host(scan.as_ref(), known.as_ref()),
        given => given.iter().map(|file| Source::given(file)).collect(),
    };
    if let Some((kind, line)) = asked.line {
        sources.insert(0, Source::line(kind, line));
    }
    let naming = engine::ClientNamings::of(asked.apache.map(Path::to_owned));
    let in_use = InUse {
        config,
        waiting: configured.waiting.as_ref(),
        origins: &configured.origins,
        exempt: &exempt,
        naming: &naming,
        formats: scan.as_ref().map(logs::formats).unwrap_or_default(),
        global,
    };
    facts.logs = reading::logs(&in_use, &sources, &asked.net);
    facts
        .bans
        .sort_by_key(|ban| (ban.until.is_some(), std::cmp::Reverse(ban.until)));
    Ok(facts)
}

/// Asks the engine, for a bounded time whatever it does.
fn ask_engine(global: &Global, net: IpNet) -> (Option<Known>, Engine) {
    let socket = disk::paths_of(&global.config).socket();
    let (send, answer) = mpsc::channel();
    let asking = thread::Builder::new().spawn(move || {
        let _ = send.send(control::ask(&socket, &Command::Explain { net }, PATIENCE));
    });
    let answer = match asking {
        Ok(_) => answer.recv_timeout(PATIENCE + Duration::from_millis(100)),
        Err(_) => Err(mpsc::RecvTimeoutError::Disconnected),
    };
    match answer {
        Ok(Ok(Reply::Known(known))) => (Some(*known), Engine::Running),
        Ok(Ok(Reply::Refused { text, .. })) => (None, Engine::Silent(text)),
        Ok(Ok(_)) => (None, Engine::Silent("it sent an unexpected answer".into())),
        Ok(Err(AskError::NotRunning)) => (None, Engine::Stopped),
        Ok(Err(AskError::NoAnswer(error))) if error.kind() == io::ErrorKind::WouldBlock => {
            (None, Engine::Silent("it is busy".into()))
        }
        Ok(Err(error)) => (None, Engine::Silent(ask::explain(global, &error))),
        Err(_) => (None, Engine::Silent("it is busy".into())),
    }
}

/// The configuration that the engine uses; without an engine the files, which it would use.
fn configuration(global: &Global, known: Option<&Known>) -> Result<Configured, Failed> {
    let file = global.config.as_path();
    let files = disk::load_with_origins(file);
    let hash = |config: &Config| serde_json::to_string(config).map(control::config_hash).ok();
    let wanted = known.map(|known| known.engine.config.clone());
    match files {
        Ok((files, origins)) => {
            let last_good = || engine::configuration_in_use(file);
            let differs = wanted.is_some() && hash(&files) != wanted;
            let in_use = differs.then(last_good).flatten();
            let in_use = in_use.filter(|config| hash(config) == wanted);
            Ok(match in_use {
                Some(in_use) => Configured {
                    in_use,
                    waiting: Some(files),
                    origins,
                },
                None => Configured {
                    in_use: files,
                    waiting: None,
                    origins,
                },
            })
        }
        Err(problems) => {
            let config = engine::configuration_in_use(file)
                .or_else(|| replay::config::load(global).ok())
                .ok_or(Failed::Config(problems))?;
            Ok(Configured {
                in_use: config,
                waiting: None,
                origins: Origins::default(),
            })
        }
    }
}

fn crawler(known: &Known) -> Option<CrawlerFact> {
    let crawler = known.crawler.clone()?;
    Some(CrawlerFact {
        engine: crawler.engine,
        confirmed: crawler.confirmed,
        text: crawler.text,
        at: crawler.at,
    })
}

fn read_database(
    config: &Config,
    net: IpNet,
    jails: &[JailName],
    now: Now,
) -> (Past, Option<String>) {
    let read = ReadOnly::open(&config.paths.database()).and_then(|database| match database {
        Some(database) => database.history_of(&net, jails, now),
        None => Ok(Past::default()),
    });
    match read {
        Ok(past) => (past, None),
        Err(error) => (Past::default(), Some(error.to_string())),
    }
}

fn off(config: &Config, known: Option<&Known>, now: Now) -> Option<Off> {
    let off = match known {
        Some(known) => known.engine.off.clone(),
        // A user that cannot read the directory does not know.
        None => {
            let exists = config.paths.off_file().exists();
            exists
                .then(|| engine::off::read(&config.paths, now.wall))
                .flatten()
        }
    };
    off.map(|off| Off {
        since: off.since,
        until: off.until,
    })
}

fn ufw(config: &Config) -> UfwFact {
    let host = firewall::ufw_host();
    UfwFact {
        used: config.firewall.needs_ufw() && config.firewall.mirror,
        installed: host.installed,
        enabled: host.enabled,
        ipv6: host.ipv6,
    }
}

/// The ports that running Apaches listen on, else those of Apache's configuration.
fn ports(config: &Config, scan: Option<&Scan>) -> Vec<u16> {
    let listening = apache::listeners::published(&config.paths.runtime);
    let written = scan.map(|scan| scan.layout.listens.keys().copied());
    match listening.is_empty() {
        true => written.into_iter().flatten().collect(),
        false => listening.into_iter().collect(),
    }
}

fn workers(known: &Known) -> Vec<WorkerFact> {
    let facts = known.workers.iter().map(|worker| WorkerFact {
        log: match &worker.path {
            Some(path) => format!("`{}`", path.display()),
            None => format!("the {} log", worker.kind),
        },
        matching: worker.counters.matching,
        shed: worker.counters.shed,
        unsent: worker.counters.unsent,
    });
    facts.collect()
}

/// Active bans as the engine has them, else as they are stored; ended ones as stored.
fn bans(facts: &mut Facts, known: Option<&Known>, past: &Past, now: Now) {
    let stored = past.bans.iter().map(|past| stored_ban(past, now));
    let (ended, mut active): (Vec<_>, Vec<_>) = stored.partition(|ban| ban.ended.is_some());
    facts.past = ended;
    if let Some(known) = known {
        let stored = |id: &str| {
            let stored = active.iter().find(|ban| ban.id == id);
            let stored = stored.map(|ban| (ban.lines.clone(), ban.answered));
            stored.unwrap_or_default()
        };
        let of_engine = known.bans.iter().map(|ban| {
            let (lines, answered) = stored(&ban.id);
            BanFact {
                lines,
                answered,
                ..known_ban(ban)
            }
        });
        active = of_engine.collect();
    }
    // Without an engine no ban is marked as over.
    let is_over = |ban: &BanFact| ban.until.is_some_and(|until| until <= now.wall);
    let (over, active): (Vec<_>, Vec<_>) = active.into_iter().partition(is_over);
    let over = over.into_iter().map(|ban| BanFact {
        ended: ban.until.map(|until| (until, "over".to_owned())),
        ..ban
    });
    facts.past.extend(over);
    facts.past.sort_by_key(|ban| {
        let ended = ban.ended.as_ref().map(|(at, _)| *at);
        std::cmp::Reverse(ended)
    });
    facts.bans = active;
}

fn stored_ban(past: &PastBan, now: Now) -> BanFact {
    let ban: &Ban = &past.ban;
    BanFact {
        id: ban.id.to_string(),
        jail: ban.jail.clone(),
        net: ban.net,
        ports: ban.ports.clone(),
        since: ban.since_wall,
        until: ban.until.map(|until| now.wall_of(until)),
        failures: ban.failures,
        within: ban.within,
        cause: ban.cause.clone(),
        observed: ban.mode == Mode::Observed,
        behind: ban.mode.proxy(),
        ended: past.ended.clone(),
        lines: past.lines.clone(),
        answered: past.answered,
        in_force: None,
        ufw: None,
        backends: Vec::new(),
        accepted: None,
        forwarded: None,
    }
}

fn known_ban(ban: &KnownBan) -> BanFact {
    BanFact {
        id: ban.id.clone(),
        jail: ban.jail.clone(),
        net: ban.net,
        ports: ban.ports.clone(),
        since: ban.since,
        until: ban.until,
        failures: ban.failures,
        within: ban.within,
        cause: Cause::from_word(&ban.cause, ban.given.clone()).unwrap_or(Cause::Jail),
        observed: ban.observed,
        behind: ban.behind,
        ended: None,
        lines: Vec::new(),
        answered: false,
        in_force: ban.in_force,
        ufw: ban.ufw.clone(),
        backends: Vec::new(),
        accepted: None,
        forwarded: None,
    }
}

fn counters(config: &Config, known: Option<&Known>, past: &Past, now: Now) -> Vec<CounterFact> {
    let of_engine = known.into_iter().flat_map(|known| {
        let counters = known.counters.iter();
        counters.map(|counter| (counter.jail.clone(), counter.net, counter.hits.clone()))
    });
    let stored = past.counters.iter().filter(|_| known.is_none());
    let stored = stored.map(|(jail, net, hits)| {
        let hits = hits.iter().map(|(at, weight)| (now.wall_of(*at), *weight));
        (jail.clone(), *net, hits.collect())
    });
    let facts = of_engine.chain(stored).filter_map(|(jail, net, hits)| {
        let settings = config.jails.get(&jail)?;
        Some(CounterFact {
            jail,
            net,
            hits,
            maxretry: match known.is_some_and(|known| known.shared) {
                true => settings.maxretry.saturating_mul(SHARED_RETRIES),
                false => settings.maxretry,
            },
            findtime: settings.findtime,
            enforce: settings.enforce,
        })
    });
    facts.collect()
}

fn exemptions(
    configured: &Configured,
    known: Option<&Known>,
    exempt: &Exempt,
    past: &Past,
    net: IpNet,
) -> Vec<ExemptFact> {
    let config = &configured.in_use;
    let found: Vec<(JailName, Reason)> = match known {
        Some(known) => known
            .exempt
            .iter()
            .map(|found| {
                let (why, entry) = (found.why, found.entry);
                (found.jail.clone(), Reason { why, entry })
            })
            .collect(),
        None => {
            let jails = config.jails.iter().filter(|(_, jail)| jail.enabled);
            let reasons =
                jails.filter_map(|(name, jail)| Some((name.clone(), exempt.reason(jail, &net)?)));
            reasons.collect()
        }
    };
    let facts = found.into_iter().map(|(jail, reason)| ExemptFact {
        place: place(configured, past, &jail, reason),
        jail,
        reason,
    });
    facts.collect()
}

/// Where the entry is written.
fn place(configured: &Configured, past: &Past, jail: &JailName, reason: Reason) -> Option<String> {
    match reason.why {
        Why::IgnoreIp => {
            let files = &configured.in_use.jails.get(jail)?.ignore_files;
            let holds = |file: &&PathBuf| {
                let nets = disk::networks_in(file);
                nets.is_ok_and(|nets| nets.iter().any(|net| net.contains(&reason.entry)))
            };
            if let Some(file) = files.iter().find(holds) {
                return Some(file.display().to_string());
            }
            let (file, (line, _)) = configured.origins.of(jail.as_str(), "ignoreip")?;
            Some(format!("{}:{line}", file.display()))
        }
        Why::AllowList => {
            let entry = past
                .allowed
                .iter()
                .find(|entry| entry.net == reason.entry)?;
            let since = entry.since.to_zoned(TimeZone::system());
            let since = since.strftime("added at %Y-%m-%d %H:%M:%S");
            Some(match &entry.reason {
                Some(why) => format!("{since}: {why}"),
                None => since.to_string(),
            })
        }
        _ => None,
    }
}
