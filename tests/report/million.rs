//! A report of a million bans: how long it takes, and in how much memory.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::resource::{UsageWho, getrusage};

use super::Place;
use crate::support::{history, median};

#[test]
fn measure_a_report_of_a_million_bans() {
    let place = Place::new();
    let mut database = history::database(place.state());
    history::fill(&mut database, 1_000_000, 90, Timestamp::now());
    for words in [
        &["--since", "all"][..],
        &["--since", "7d"],
        &["--since", "all", "--format", "html"],
        &["--since", "all", "--format", "csv"],
    ] {
        let times = (0..5).map(|_| {
            let begin = Instant::now();
            place.report(words);
            begin.elapsed()
        });
        let time: Duration = median(times.collect());
        println!("{words:?}: {time:.2?} (median of 5)");
    }
    let memory = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    println!("memory at most: {} MB", memory / 1_024);
}
