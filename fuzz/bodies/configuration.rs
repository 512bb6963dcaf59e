//! `pipeban.toml` and the files beside it.

use std::path::Path;

use pipeban::config;

use super::files::Files;

pub(super) fn check(data: &[u8]) {
    let file = Path::new("/etc/pipeban/pipeban.toml");
    let files = Files::of("/etc/pipeban/pipeban.toml", data);
    let read = || config::load(file, &files).map(|(config, _)| config);
    let first = read();
    if let Err(problems) = &first {
        assert!(!problems.is_empty());
        for problem in problems {
            assert!(!problem.message.is_empty());
            if let Some((line, column)) = problem.place {
                files.assert_place(&problem.file, line, column);
            }
        }
    }
    assert!(first == read(), "read twice");
    let _ = config::paths_of(&files.texts[file]);
}
