use std::path::Path;
use std::process::Command;

use crate::support::skip_without;

#[test]
fn acceptance_the_unit_and_its_drop_in_under_a_real_systemd() {
    if !Path::new("/lib/systemd/systemd").exists() {
        return skip_without("systemd");
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/systemd.sh");
    let output = Command::new(script)
        .arg(env!("CARGO_BIN_EXE_pipeban"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
