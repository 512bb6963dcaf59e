//! `pipeban setup`

use std::fmt::Display;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::ask;
use super::exit::Exit;
use super::global::Global;
use super::status::without_bans;
use crate::apache::{self, Applied, Plan, Scan, Wish};
use crate::config::{self, Backend};
use crate::disk;
use crate::engine;
use crate::firewall;
use crate::sys::systemd;

/// Add pipeban to this host's Apache configuration, or remove it
///
/// Shows each ErrorLog that does not reach pipeban, and the line that replaces it. pipeban then
/// writes the same file, so no log gains or loses a line. Apache keeps writing the access logs; one
/// GlobalLog (conf-enabled/pipeban.conf) sends a copy of every request to pipeban, which writes no
/// file. Directives of pipeban with wrong arguments, or with another format than Apache writes, are
/// corrected. With the back end `apache`, setup also enables conf-enabled/pipeban-deny.conf, and without
/// it disables that. Without
/// --write nothing changes, and status 1 means that there is something to change. Apache tests the
/// new configuration; it is not reloaded.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Change the files: make backups, let Apache test the result, and restore the files if it
    /// refuses them
    #[arg(long)]
    write: bool,
    /// Remove every directive that names pipeban, also from sites that are not enabled
    #[arg(long, conflicts_with = "files")]
    remove: bool,
    /// Let pipeban write the access logs too, one pipe each, instead of one GlobalLog
    #[arg(long)]
    files: bool,
    /// The first file of Apache's configuration, if it is not in a usual place
    #[arg(long, value_name = "FILE")]
    apache_config: Option<PathBuf>,
    /// The path of pipeban in the directives
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/pipeban")]
    program: PathBuf,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let scan = match apache::scan(args.apache_config.as_deref()) {
        Ok(scan) => scan,
        // Without Apache there is nothing to remove.
        Err(apache::ScanError::None) if args.remove => return Exit::Yes,
        Err(error) => {
            eprintln!("pipeban: {error}");
            return Exit::Failed;
        }
    };
    let plan = if args.remove {
        apache::remove(&scan)
    } else {
        match wish(args, global) {
            Ok(wish) => apache::fit(&scan, &wish),
            Err(message) => {
                eprintln!("pipeban: {message}");
                return Exit::Failed;
            }
        }
    };
    if args.write && !plan.is_empty() {
        return write(&plan, &scan, global);
    }
    print_plan(&plan, &scan, args, global);
    let error = !args.remove && scan.left().any(apache::Finding::is_error);
    match plan.is_empty() && !error {
        true => Exit::Yes,
        false => Exit::No,
    }
}

/// Whether `pipeban setup --write` would change something.
pub(super) fn changes(scan: &Scan, global: &Global) -> bool {
    let args = Args {
        write: false,
        remove: false,
        files: false,
        apache_config: None,
        program: PathBuf::from("/usr/bin/pipeban"),
    };
    wish(&args, global).is_ok_and(|wish| !apache::fit(scan, &wish).is_empty())
}

fn wish(args: &Args, global: &Global) -> Result<Wish, String> {
    let program = &args.program;
    if !program.is_absolute() {
        return Err(format!(
            "--program {}: Apache needs an absolute path",
            program.display()
        ));
    }
    if program.file_name().is_none_or(|name| name != "pipeban") {
        return Err(format!(
            "--program {}: the file must be named pipeban, or its directives are not recognized",
            program.display()
        ));
    }
    if args.write && !program.is_file() {
        return Err(format!(
            "{} does not exist, so Apache would end at its next reload: install pipeban first",
            program.display()
        ));
    }
    let config = if global.config == Path::new(config::DEFAULT_FILE) {
        None
    } else {
        let config =
            std::path::absolute(&global.config).map_err(|error| format!("--config: {error}"))?;
        Some(config)
    };
    let plain = |path: &Path| {
        !path
            .to_string_lossy()
            .contains([' ', '\t', '"', '\'', '\\'])
    };
    if !plain(program) || config.as_deref().is_some_and(|config| !plain(config)) {
        return Err(
            "the paths of --program and --config cannot have spaces, quotes or backslashes".into(),
        );
    }
    Ok(Wish {
        program: program.clone(),
        config,
        files: args.files,
        // As it is written, also before `reload`.
        deny: disk::load(&global.config)
            .ok()
            .or_else(|| engine::configuration_in_use(&global.config))
            .map(|config| config.firewall.has(Backend::Apache)),
    })
}

fn write(plan: &Plan, scan: &Scan, global: &Global) -> Exit {
    let backups = disk::paths_of(&global.config).state.join("apache-backup");
    match apache::apply(plan, &scan.root, &backups) {
        Ok(applied) => {
            print_applied(&applied, plan, global);
            Exit::Yes
        }
        Err(error) => {
            eprintln!("pipeban: {error}");
            if matches!(&error, apache::ApplyError::Io(_, cause) if cause.kind() == std::io::ErrorKind::PermissionDenied)
            {
                Exit::NotPermitted
            } else {
                Exit::Failed
            }
        }
    }
}

/// A line that `--json` omits.
fn print_text(global: &Global, text: impl Display) {
    if !global.json {
        ask::print(&text.to_string());
    }
}

fn print_applied(applied: &Applied, plan: &Plan, global: &Global) {
    for (file, backup) in &applied.files {
        let object = json!({"event": "changed", "file": file, "backup": backup});
        let text = format!("changed {} (backup: {})", file.display(), backup.display());
        ask::print_one(global, &object, text);
    }
    for link in &applied.links {
        let event = if plan.unlink.contains(link) {
            "disabled"
        } else {
            "enabled"
        };
        let object = json!({"event": event, "file": link});
        ask::print_one(global, &object, format_args!("{event} {}", link.display()));
    }
    for note in &plan.notes {
        print_text(global, format_args!("note: {note}"));
    }
    for line in advice(global) {
        print_text(global, line);
    }
    print_text(
        global,
        format_args!(
            "Apache accepts the change. To apply it: {}",
            systemd::commands().reload_apache
        ),
    );
}

/// The jails that ban no client, and the addresses that administrators probably come from, with the
/// lines to type.
fn advice(global: &Global) -> Vec<String> {
    let config = disk::load(&global.config).ok();
    let jails = config.iter().flat_map(|config| &config.jails);
    let mut lines = without_bans(jails.map(|(name, jail)| (name, jail.enabled, jail.enforce)));
    let session = ["SSH_CONNECTION", "SSH_CLIENT"].into_iter();
    let session = session.filter_map(|name| std::env::var(name).ok());
    let session = session.filter_map(|value| value.split(' ').next()?.parse::<IpAddr>().ok());
    if let Some(addr) = session.into_iter().next() {
        lines.push(format!(
            "To never ban the address of this ssh session: pipeban allow {addr}"
        ));
    }
    let rules = ["/etc/ufw/user.rules", "/etc/ufw/user6.rules"];
    let rules = rules.map(|file| std::fs::read_to_string(file).unwrap_or_default());
    let allowed = firewall::allowed_by_ufw(&rules.concat());
    if !allowed.is_empty() {
        let commands = allowed.iter().map(|net| format!("pipeban allow {net}"));
        let commands: Vec<String> = commands.collect();
        lines.push(format!(
            "To never ban the addresses that ufw allows: {}",
            commands.join(" && ")
        ));
    }
    lines
}

/// This command line with `--write`.
fn with_write(args: &Args, global: &Global) -> String {
    let mut line = "pipeban".to_owned();
    let mut path = |name: &str, path: &Path| line += &format!(" {name} {}", path.display());
    if global.config != Path::new(config::DEFAULT_FILE) {
        path("--config", &global.config);
    }
    line += " setup";
    for (flag, given) in [(" --files", args.files), (" --remove", args.remove)] {
        line += if given { flag } else { "" };
    }
    let mut path = |name: &str, path: &Path| line += &format!(" {name} {}", path.display());
    if let Some(root) = &args.apache_config {
        path("--apache-config", root);
    }
    if args.program != Path::new("/usr/bin/pipeban") {
        path("--program", &args.program);
    }
    line + " --write"
}

fn print_plan(plan: &Plan, scan: &Scan, args: &Args, global: &Global) {
    for edit in &plan.edits {
        let (place, directive) = (&edit.place, edit.directive);
        let object = json!({"event": "edit", "file": place.file, "line": place.line, "directive": directive, "new": edit.new});
        let text = match &edit.new {
            Some(new) => format!("{place}: change {directive} to\n    {new}"),
            None => format!("{place}: delete {directive}"),
        };
        ask::print_one(global, &object, text);
    }
    if let Some((file, line)) = &plan.append {
        let object = json!({"event": "append", "file": file, "new": line});
        let text = format!("{}: add at the end\n    {line}", file.display());
        ask::print_one(global, &object, text);
    }
    let links = plan.link.iter().map(|(link, _)| ("enable", link));
    for (event, link) in links.chain(plan.unlink.iter().map(|link| ("disable", link))) {
        let object = json!({"event": event, "file": link});
        ask::print_one(global, &object, format_args!("{event} {}", link.display()));
    }
    for note in plan.notes.iter().chain(&scan.layout.notes) {
        let object = json!({"event": "note", "text": note});
        ask::print_one(global, &object, format_args!("note: {note}"));
    }
    for line in advice(global).into_iter().filter(|_| !args.remove) {
        print_text(global, line);
    }
    let left: Vec<_> = scan.left().filter(|_| !args.remove).collect();
    for finding in &left {
        let severity = if finding.is_error() { "error" } else { "note" };
        let object = json!({"event": severity, "text": finding.to_string()});
        ask::print_one(global, &object, format_args!("{severity}: {finding}"));
    }
    let left = !left.is_empty() || !plan.notes.is_empty();
    print_text(
        global,
        match (plan.is_empty(), args.remove) {
            (true, true) => "No directive of Apache names pipeban.".to_owned(),
            (true, false) if left => "pipeban can change nothing more.".to_owned(),
            (true, false) => {
                "Every site's error lines and requests reach pipeban: nothing to do.".to_owned()
            }
            (false, _) => format!("To make these changes: {}", with_write(args, global)),
        },
    );
}
