//! A pattern with look-around gives up on a line: that is no hit, is logged once, and `status` shows
//! it.

use std::io::Write as _;
use std::process::Stdio;

use pipeban::control::{Request, Undecided};
use pipeban::filter::PatternAt;

use super::{Lab, Line, until};

/// Its second pattern looks around.
const FILTER: &str = "[Definition]
failregex = ^\\[\\] \\[\\S+\\] \\[pid \\d+\\] \\[client <HOST>:\\d+\\] plain
            ^\\[\\] \\[\\S+\\] \\[pid \\d+\\] \\[client <HOST>:\\d+\\] (?!good)\\w+ seeks
ignoreregex =
";

fn lab() -> Lab {
    let lab = Lab::new();
    std::fs::write(lab.path("filters.d/f.conf"), FILTER).unwrap();
    lab
}

fn logged(lab: &Lab) -> usize {
    lab.log().matches("gave up on a line").count()
}

fn undecided(filter: &str, pattern: PatternAt) -> Undecided {
    Undecided {
        filter: filter.to_owned(),
        pattern,
        times: 3,
    }
}

#[test]
fn a_line_too_long_for_a_pattern_with_look_around_is_no_hit_and_is_logged_once() {
    let mut lab = lab();
    lab.start();
    let mut logger = lab
        .command(&["log", "error"])
        .arg(lab.path("error.log"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = logger.stdin.take().unwrap();
    let front = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 9] [client 203.0.113.66:1] ";
    let long = format!("{front}bad seeks {}\n", "x".repeat(9000));
    for _ in 0..50 {
        pipe.write_all(long.as_bytes()).unwrap();
    }
    until("the engine has the report", || {
        let warnings = lab.status()["warnings"].to_string();
        warnings.contains("filter `f`: pattern 2 (")
            && warnings.contains("filters.d/f.conf:3) gave up on lines 50 times")
    });
    assert_eq!(lab.status()["workers"][0]["undecided"], 50);
    // A line that is short enough still hits.
    assert_eq!(lab.jail("count")["total_failed"], 0);
    pipe.write_all(format!("{front}bad seeks\n").as_bytes())
        .unwrap();
    until("hit", || lab.jail("count")["total_failed"] == 1);
    assert_eq!(logged(&lab), 1, "{}", lab.log());
    let (_, text) = lab.say(&["status"]);
    assert!(text.contains("pattern 2"), "{text}");
    drop(pipe);
    assert!(logger.wait().unwrap().success());
    lab.stop();
}

#[test]
fn however_much_a_worker_reports_one_line_is_logged_for_each_filter() {
    let mut lab = lab();
    lab.start();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    for number in 0..200 {
        let patterns = vec![
            undecided("f", PatternAt::Fail(2)),
            undecided("f", PatternAt::Fail(1)),
            undecided("f", PatternAt::Fail(number + 3)),
            undecided(&format!("other{number}"), PatternAt::Prefix),
        ];
        worker.send(&Request::Undecided(patterns)).unwrap();
    }
    until("counted", || {
        let warnings = lab.status()["warnings"].to_string();
        warnings.matches("gave up on lines 600 times").count() == 2
    });
    assert_eq!(
        lab.status()["warnings"]
            .to_string()
            .matches("gave up")
            .count(),
        2
    );
    assert_eq!(logged(&lab), 1, "{}", lab.log());
    // A reload may have corrected the patterns; the same filter is not logged again.
    assert_eq!(lab.say(&["reload"]).0, 0);
    assert!(!lab.status()["warnings"].to_string().contains("gave up"));
    let again = vec![undecided("f", PatternAt::Fail(2))];
    worker.send(&Request::Undecided(again)).unwrap();
    until("counted again", || {
        lab.status()["warnings"].to_string().contains("3 times")
    });
    assert_eq!(logged(&lab), 1);
    lab.stop();
}
