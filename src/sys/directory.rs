//! A directory that several processes need, whoever comes first.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// Creates a directory with this mode, whatever the umask, and its parents, if missing. What exists
/// stays as it is.
///
/// # Errors
/// What the kernel said.
pub fn create(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)),
        // Another process was faster.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_create_the_same_directory_and_all_succeed() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..100 {
            let path = dir.path().join(format!("new-{n}"));
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| create(&path, 0o710).unwrap());
                }
            });
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o710);
        }
        fs::write(dir.path().join("file"), "").unwrap();
        let error = create(&dir.path().join("file"), 0o710).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }
}
