//! `pipeban test`

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::Global;
use super::exit::Exit;
use super::problems;
use crate::config::{self, Config, DEFAULT_FILE, JailName, Problem};
use crate::filter::{self, Dates, Definition, Filter};
use crate::record::{self, Parser};
use judge::{Judge, Rule, Sight};

mod judge;
mod summary;

/// Which lines match, and whom they hit
///
/// Runs the very code that runs behind Apache, and touches nothing. With --filter only the filter
/// is asked; with --jail also the jail's virtual hosts and its ignoreip; without both, every
/// enabled jail of the kind of log. Ends with 0 when a line matched and 1 when none did.
///
/// A line is `spoof` when it matches only with another address than the one Apache itself names
/// as the client: it hits nobody.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pipeban test --jail apache-auth /var/log/apache2/error.log
  pipeban test --filter ./my-filter.conf --kind raw --line 'login failed: 192.0.2.1'
  tail -n 1000 /var/log/apache2/access.log | pipeban test --json -")]
pub(super) struct Args {
    /// Only this jail, also when it is not enabled
    #[arg(long, value_name = "JAIL", conflicts_with = "filter")]
    jail: Option<JailName>,
    /// Only this filter: a name, or a file in fail2ban's format, with options as fail2ban writes
    /// them: `name[mode="aggressive"]`
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// Kind of log; by default the jail's, else what the first lines are. With `raw`, for
    /// filters alone, lines need not be Apache's, and the pattern's `<HOST>` decides
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Format of an access log: a name or a LogFormat string
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    format: String,
    /// Log file, or - for standard input
    #[arg(value_name = "FILE", required_unless_present = "line")]
    file: Option<PathBuf>,
    /// One line instead of a file
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    line: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Access,
    Error,
    Raw,
}

/// Lines looked at to tell the kind of a log.
const LINES_TO_GUESS: usize = 1000;

/// Why there is nothing to show.
enum Failure {
    Usage(String),
    Failed(String),
    Config(Vec<Problem>),
    Write(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Write(error)
    }
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let (message, exit) = match test(args, global) {
        Ok(true) => return Exit::Yes,
        Ok(false) => return Exit::No,
        // Whoever read our output has seen enough.
        Err(Failure::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Exit::Yes;
        }
        Err(Failure::Write(error)) => (format!("cannot write: {error}"), Exit::Failed),
        Err(Failure::Failed(message)) => (message, Exit::Failed),
        Err(Failure::Usage(message)) => (message, Exit::Usage),
        Err(Failure::Config(problems)) => {
            problems::print(&problems);
            return Exit::Config;
        }
    };
    eprintln!("pipeban: {message}");
    exit
}

/// Whether a line matched.
fn test(args: &Args, global: &Global) -> Result<bool, Failure> {
    if args.kind == Some(Kind::Raw) && args.filter.is_none() {
        return Err(Failure::Usage(
            "--kind raw goes with --filter only: a jail takes the client from Apache's records"
                .to_owned(),
        ));
    }
    let config = load_config(args, global)?;
    let mut rules = rules(args, global, config.as_ref())?;
    let mut lines = open(args)?;
    let (kind, first) = kind(args, &rules, &mut lines)?;
    let sight = match kind {
        Kind::Raw => Sight::Raw,
        Kind::Access => Sight::Apache(parser(record::Kind::Access, &args.format)?),
        Kind::Error => {
            // `combined` and the like are formats of the other kind of log.
            let known = args.format == "auto" || args.kind == Some(Kind::Error);
            let format = if known { &args.format } else { "auto" };
            Sight::Apache(parser(record::Kind::Error, format)?)
        }
    };
    rules.retain(|rule| match (rule.log, kind) {
        (None, _) => true,
        (Some(log), Kind::Access) => log == record::Kind::Access,
        (Some(log), Kind::Error) => log == record::Kind::Error,
        (Some(_), Kind::Raw) => false,
    });
    let judge = Judge { sight, rules };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut summary = summary::Summary::new(&judge);
    let mut number = 0;
    let mut each = |line: &[u8], out: &mut dyn Write| -> Result<(), Failure> {
        number += 1;
        let verdict = judge.line(number, line);
        if global.json {
            let text = serde_json::to_string(&verdict).map_err(io::Error::other)?;
            writeln!(out, "{text}")?;
        }
        summary.add(line, &verdict);
        Ok(())
    };
    for line in &first {
        each(line, &mut out)?;
    }
    while let Some(line) = next_line(&mut lines, args)? {
        each(&line, &mut out)?;
    }
    if !global.json {
        summary.print(&judge, &mut out)?;
    }
    out.flush()?;
    Ok(summary.matched > 0)
}

fn load_config(args: &Args, global: &Global) -> Result<Option<Config>, Failure> {
    let missing = global.config == Path::new(DEFAULT_FILE) && !global.config.exists();
    if args.filter.is_some() && missing {
        return Ok(None);
    }
    config::load(&global.config)
        .map(Some)
        .map_err(Failure::Config)
}

fn rules(args: &Args, global: &Global, config: Option<&Config>) -> Result<Vec<Rule>, Failure> {
    if let Some(name) = &args.filter {
        let definition = definition(name, global, config)?;
        let filter = Filter::compile(&definition).map_err(Failure::Config)?;
        let defaults = config.map(|config| &config.defaults);
        // The built-in maxretry is 5, the weight 1.
        let bans_alone = defaults.is_some_and(|jail| jail.weight >= jail.maxretry);
        let weight = defaults.map_or(1, |jail| jail.weight);
        return Ok(vec![Rule {
            jail: None,
            log: None,
            dates: Dates::of(&definition),
            definition,
            filter,
            sequence: RefCell::default(),
            weight,
            bans_alone,
            ignoreip: Vec::new(),
            vhost: Vec::new(),
            not_vhost: Vec::new(),
        }]);
    }
    let Some(config) = config else {
        return Ok(Vec::new());
    };
    let mut rules = Vec::new();
    for (name, jail) in &config.jails {
        let wanted = match &args.jail {
            Some(jail) => jail == name,
            None => jail.enabled,
        };
        let Some(definition) = config.filters.get(&jail.filter).filter(|_| wanted) else {
            continue;
        };
        rules.push(Rule {
            jail: Some(name.clone()),
            log: Some(jail.log),
            dates: Dates::of(definition),
            definition: definition.clone(),
            filter: Filter::compile(definition).map_err(Failure::Config)?,
            sequence: RefCell::default(),
            weight: jail.weight,
            bans_alone: jail.weight >= jail.maxretry,
            ignoreip: jail.ignoreip.clone(),
            vhost: jail.vhost.clone(),
            not_vhost: jail.not_vhost.clone(),
        });
    }
    if rules.is_empty() {
        let known: Vec<&str> = config.jails.keys().map(JailName::as_str).collect();
        let message = match &args.jail {
            Some(name) => format!(
                "there is no jail `{name}`; the jails are: {}",
                known.join(", ")
            ),
            None => {
                "no jail is enabled: name one with --jail, or a filter with --filter".to_owned()
            }
        };
        return Err(Failure::Config(vec![Problem {
            file: global.config.clone(),
            place: None,
            message,
        }]));
    }
    Ok(rules)
}

/// The filter that `--filter` means.
fn definition(name: &str, global: &Global, config: Option<&Config>) -> Result<Definition, Failure> {
    let whole = name;
    let (name, options) = filter::split_options(whole).map_err(Failure::Usage)?;
    let read = |file: &Path| {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        filter::read_from(&stem, file, &options, &config::OnDisk).map_err(Failure::Config)
    };
    if name.contains('/') || name.ends_with(".conf") || name.ends_with(".toml") {
        if name.ends_with(".toml") {
            return Err(Failure::Usage(format!(
                "`{name}`: filters in TOML are not supported yet, fail2ban's .conf files are"
            )));
        }
        let file = Path::new(name);
        if let Err(error) = File::open(file) {
            return Err(Failure::Failed(format!("`{name}` cannot be read: {error}")));
        }
        return read(file);
    }
    if let Some(definition) = config.and_then(|config| config.filters.get(whole)) {
        return Ok(definition.clone());
    }
    let paths = config::paths_of(&global.config);
    let places = config::filter_directories(&global.config, &paths);
    let files = places.map(|place| place.join(format!("{name}.conf")));
    match files.iter().find(|file| file.is_file()) {
        Some(file) => read(file),
        None => Err(Failure::Failed(format!(
            "there is no filter `{name}`: looked for {}",
            files.map(|file| file.display().to_string()).join(", ")
        ))),
    }
}

fn parser(kind: record::Kind, format: &str) -> Result<Parser, Failure> {
    Parser::new(kind, format).map_err(|message| Failure::Usage(format!("--format: {message}")))
}

fn open(args: &Args) -> Result<Box<dyn BufRead>, Failure> {
    if let Some(line) = &args.line {
        // A final newline, as `"$(...)"` would drop it; without text there is still one line.
        return Ok(Box::new(io::Cursor::new(format!("{line}\n").into_bytes())));
    }
    match args.file.as_deref() {
        None => Ok(Box::new(io::empty())),
        Some(file) if file == Path::new("-") => Ok(Box::new(io::stdin().lock())),
        Some(file) => {
            let mut lines = BufReader::new(File::open(file).map_err(|e| unreadable(file, &e))?);
            let front = lines.fill_buf().map_err(|e| unreadable(file, &e))?;
            if front.starts_with(&[0x1f, 0x8b]) {
                let name = file.display();
                return Err(Failure::Failed(format!(
                    "`{name}` is compressed: `zcat {name} | pipeban test ... -`"
                )));
            }
            Ok(Box::new(lines))
        }
    }
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("`{}` cannot be read: {error}", file.display()))
}

/// The next line without its newline.
fn next_line(lines: &mut dyn BufRead, args: &Args) -> Result<Option<Vec<u8>>, Failure> {
    let mut line = Vec::new();
    let length = lines
        .read_until(b'\n', &mut line)
        .map_err(|error| unreadable(args.file.as_deref().unwrap_or(Path::new("-")), &error))?;
    if line.ends_with(b"\n") {
        line.pop();
    }
    Ok((length > 0).then_some(line))
}

/// The kind of the lines, and those that were read to find out.
fn kind(
    args: &Args,
    rules: &[Rule],
    lines: &mut dyn BufRead,
) -> Result<(Kind, Vec<Vec<u8>>), Failure> {
    let of = |log| match log {
        record::Kind::Access => Kind::Access,
        record::Kind::Error => Kind::Error,
    };
    let mut logs: Vec<_> = rules.iter().map(|rule| rule.log).collect();
    logs.dedup();
    match (args.kind, logs.as_slice()) {
        (Some(kind), _) => return Ok((kind, Vec::new())),
        (None, [Some(log)]) => return Ok((of(*log), Vec::new())),
        _ => {}
    }
    let error = parser(record::Kind::Error, "auto")?;
    let access = parser(record::Kind::Access, &args.format)?;
    let mut first = Vec::new();
    while first.len() < LINES_TO_GUESS {
        let Some(line) = next_line(lines, args)? else {
            break;
        };
        let kind = if error.parse(&line).is_some() {
            Some(Kind::Error)
        } else {
            access.parse(&line).map(|_| Kind::Access)
        };
        first.push(line);
        if let Some(kind) = kind {
            return Ok((kind, first));
        }
    }
    Ok((Kind::Access, first))
}

#[cfg(test)]
mod tests;
