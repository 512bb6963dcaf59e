//! Queries the installed fail2ban: `oracle.py` in one Python process.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

const ORACLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fail2ban/oracle.py");
/// The interpreter that Debian's package is for.
const PYTHON: &str = "/usr/bin/python3";

/// The answer to each question, in order.
pub(super) fn ask(questions: &[Value]) -> Vec<Value> {
    let mut child = Command::new(PYTHON)
        .args(["-W", "ignore", ORACLE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut text = String::new();
    for question in questions {
        text.push_str(&question.to_string());
        text.push('\n');
    }
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), questions.len(), "fail2ban ended early");
    answers
}
