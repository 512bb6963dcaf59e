//! How a test says that it did not run. The library's unit tests include this file as well.

use std::io::Write as _;

/// Prints `SKIPPED test: reason` on stderr, past the harness, which keeps `eprintln!` of a passing
/// test for itself. The test then returns.
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {reason}\n", thread.name().unwrap_or("?"));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Skips for want of a program or package that tests/prepare.sh installs.
///
/// # Panics
/// As root with CI=true, where prepare.sh must have installed it, unless MAY_SKIP lists the name
/// (`MAY_SKIP=fail2ban,mandoc`).
pub(crate) fn skip_without(name: &str) {
    let set = |variable: &str| std::env::var(variable).unwrap_or_default();
    let permitted = set("MAY_SKIP").split(',').any(|listed| listed == name);
    assert!(
        permitted || set("CI") != "true" || !nix::unistd::geteuid().is_root(),
        "needs {name}, which tests/prepare.sh installs; to skip this test all the same, set MAY_SKIP={name}"
    );
    skip(&format!("needs {name} (`make test` as root installs it)"));
}
