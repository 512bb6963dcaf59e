//! `pipeban setup`

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Global;
use super::exit::Exit;
use crate::apache::{self, Applied, Plan, Scan, Wish};
use crate::config::{self, Backend};
use crate::engine;

/// Fit pipeban into this host's Apache, or take it out
///
/// Lists every server whose own ErrorLog bypasses the pipe, and the line that mends it: the same
/// file is written, by pipeban, so that no log gains or loses a line. Access lines come from one
/// GlobalLog (conf-enabled/pipeban.conf), which writes no file. With the back end `apache` it also
/// enables conf-enabled/pipeban-deny.conf. Without --write nothing is changed;
/// status 1 says that something would be. Apache is tested, never reloaded.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Change the files: with backups, tested by Apache, put back when it refuses them
    #[arg(long)]
    write: bool,
    /// Take every directive that names pipeban out again, of sites not enabled too
    #[arg(long, conflicts_with = "files")]
    remove: bool,
    /// Have pipeban write the access logs too, one pipe each, instead of one GlobalLog
    #[arg(long)]
    files: bool,
    /// Apache's configuration, where it is not in the usual place
    #[arg(long, value_name = "FILE")]
    apache_config: Option<PathBuf>,
    /// The program that directives name
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/pipeban")]
    program: PathBuf,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let scan = match apache::scan(args.apache_config.as_deref()) {
        Ok(scan) => scan,
        // Without an Apache there is nothing to take out.
        Err(apache::ScanError::None) if args.remove => return Exit::Yes,
        Err(error) => {
            eprintln!("pipeban: {error}");
            return Exit::Failed;
        }
    };
    let plan = if args.remove {
        apache::remove(&scan, &scan.everything())
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
        return write(&plan, &scan, args, global);
    }
    print_plan(&plan, &scan, args, global);
    if plan.is_empty() { Exit::Yes } else { Exit::No }
}

fn wish(args: &Args, global: &Global) -> Result<Wish, String> {
    let program = &args.program;
    if !program.is_absolute() {
        return Err(format!(
            "--program {}: Apache needs an absolute path",
            program.display()
        ));
    }
    if args.write && !program.is_file() {
        return Err(format!(
            "{} does not exist, and Apache would end at its next reload: install pipeban first",
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
        return Err("--program and --config must be paths without spaces and quotes".into());
    }
    Ok(Wish {
        program: program.clone(),
        config,
        files: args.files,
        deny: engine::configuration_in_use(&global.config)
            .is_some_and(|config| config.firewall.has(Backend::Apache)),
    })
}

fn write(plan: &Plan, scan: &Scan, args: &Args, global: &Global) -> Exit {
    let backups = config::paths_of(&global.config).state.join("apache-backup");
    match apache::apply(plan, &scan.root, &backups) {
        Ok(applied) => {
            print_applied(&applied, plan, args, global);
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

fn print_applied(applied: &Applied, plan: &Plan, args: &Args, global: &Global) {
    let mut out = String::new();
    for (file, backup) in &applied.files {
        out += &if global.json {
            format!(
                "{}\n",
                json!({"event": "changed", "file": file, "backup": backup})
            )
        } else {
            format!(
                "changed {} (as it was: {})\n",
                file.display(),
                backup.display()
            )
        };
    }
    for link in &applied.links {
        out += &if global.json {
            format!(
                "{}\n",
                json!({"event": if args.remove {"disabled"} else {"enabled"}, "file": link})
            )
        } else {
            format!(
                "{} {}\n",
                if plan.unlink.contains(link) {
                    "disabled"
                } else {
                    "enabled"
                },
                link.display()
            )
        };
    }
    if !global.json {
        for note in &plan.notes {
            out += &format!("note: {note}\n");
        }
        out += "Apache finds the change in order. To take it into use: systemctl reload apache2\n";
    }
    let _ = std::io::stdout().lock().write_all(out.as_bytes());
}

/// This command line again, and `--write`.
fn the_same_with_write(args: &Args, global: &Global) -> String {
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
    let mut out = String::new();
    for edit in &plan.edits {
        out += &if global.json {
            format!(
                "{}\n",
                json!({"event": "edit", "file": edit.place.file, "line": edit.place.line, "directive": edit.directive, "new": edit.new})
            )
        } else {
            match &edit.new {
                Some(new) => format!("{}: {} becomes\n    {new}\n", edit.place, edit.directive),
                None => format!("{}: {} goes\n", edit.place, edit.directive),
            }
        };
    }
    let links = plan.link.iter().map(|(link, _)| ("enable", link));
    for (event, link) in links.chain(plan.unlink.iter().map(|link| ("disable", link))) {
        out += &if global.json {
            format!("{}\n", json!({"event": event, "file": link}))
        } else {
            format!("{event} {}\n", link.display())
        };
    }
    for note in plan.notes.iter().chain(&scan.layout.notes) {
        out += &if global.json {
            format!("{}\n", json!({"event": "note", "text": note}))
        } else {
            format!("note: {note}\n")
        };
    }
    if !global.json {
        out += &match (plan.is_empty(), args.remove) {
            (true, true) => "No directive of Apache names pipeban.\n".to_owned(),
            (true, false) => "Every log that can be piped is piped: nothing to do.\n".to_owned(),
            (false, _) => format!("To change it: {}\n", the_same_with_write(args, global)),
        };
    }
    let _ = std::io::stdout().lock().write_all(out.as_bytes());
}
