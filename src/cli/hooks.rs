//! Warnings about hooks: programs that cannot run, or that another user than root can change although
//! the engine runs them as root.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::{Config, Origins, Problem};

/// The problems of each hook, at its place in the configuration.
pub(super) fn warnings(config: &Config, origins: &Origins) -> Vec<Problem> {
    let jails = config.jails.iter();
    let jails = jails.map(|(name, jail)| (name.as_str(), jail));
    let mut warnings: Vec<Problem> = Vec::new();
    for (name, jail) in jails.chain([("", &config.defaults)]) {
        for (key, argv) in jail.hooks.all() {
            let (Some((file, place)), Some(program)) = (origins.of(name, key), argv.first()) else {
                continue;
            };
            let user = nix::unistd::geteuid().as_raw();
            let message = match (unfit(program), changeable(Path::new(program), user)) {
                (Some(unfit), _) => format!("`{key}` runs {program}, which {unfit}"),
                (None, Some(weak)) => format!(
                    "`{key}` runs {program} as root, and {weak}: `chown root:root` and `chmod \
                     go-w` it"
                ),
                (None, None) => continue,
            };
            let problem = Problem {
                file: file.clone(),
                place: Some(*place),
                message,
            };
            // Every jail repeats [defaults].
            if !warnings.contains(&problem) {
                warnings.push(problem);
            }
        }
    }
    warnings
}

/// Why it cannot run.
fn unfit(program: &str) -> Option<String> {
    match fs::metadata(program) {
        Ok(found) if !found.is_file() => Some("is not a file".into()),
        Ok(found) if found.mode() & 0o111 == 0 => {
            Some(format!("is not executable: `chmod 755 {program}`"))
        }
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("does not exist".into()),
        Err(error) => Some(format!("cannot be read: {error}")),
    }
}

/// The first of the file and the directories above it, also behind links, that another user than
/// root and `owner` can write.
fn changeable(program: &Path, owner: u32) -> Option<String> {
    let real = fs::canonicalize(program).ok()?;
    let named = program.parent().into_iter().flat_map(Path::ancestors);
    let all: BTreeSet<PathBuf> = named.chain(real.ancestors()).map(Path::to_owned).collect();
    all.into_iter().find_map(|path| {
        let found = fs::metadata(&path).ok()?;
        // The sticky bit protects the files of other users.
        let shared = found.is_dir() && found.mode() & 0o1000 != 0;
        let who = match (found.uid(), found.gid(), found.mode()) {
            (user, ..) if user != 0 && user != owner => format!("user {user} owns"),
            _ if shared => return None,
            (.., mode) if mode & 0o002 != 0 => "all users can write".into(),
            (_, group, mode) if mode & 0o020 != 0 && group != 0 => {
                format!("group {group} can write")
            }
            _ => return None,
        };
        Some(format!("{who} {}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_program_that_other_users_can_change_is_found_also_behind_links() {
        let directory = tempfile::tempdir().unwrap();
        let owner = nix::unistd::geteuid().as_raw();
        let path = |name: &str| directory.path().join(name);
        let mode = |name: &str, mode| {
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir_all(path("a/b")).unwrap();
        fs::write(path("a/b/hook"), "").unwrap();
        std::os::unix::fs::symlink(path("a/b/hook"), path("link")).unwrap();
        mode("a", 0o755);
        mode("a/b", 0o755);
        mode("a/b/hook", 0o755);
        assert_eq!(changeable(&path("link"), owner), None);
        for (name, bits, usual) in [("a/b/hook", 0o777, 0o755), ("a", 0o757, 0o755)] {
            mode(name, bits);
            let text = changeable(&path("link"), owner).unwrap();
            let expected = format!("all users can write {}", path(name).display());
            assert_eq!(text, expected);
            mode(name, usual);
        }
        mode("a", 0o1777);
        assert_eq!(changeable(&path("link"), owner), None);
        if owner == 0 {
            std::os::unix::fs::chown(path("a/b/hook"), Some(12_345), None).unwrap();
            let text = changeable(&path("link"), owner).unwrap();
            assert!(text.starts_with("user 12345 owns"), "{text}");
        }
    }
}
