//! What one user can make the engine keep.

use super::*;
use crate::support::process::kilobytes;

fn memory(lab: &Lab) -> u64 {
    let pid = lab.engine.as_ref().unwrap().id();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    kilobytes(&status, "VmRSS:")
}

#[test]
fn connections_that_read_no_answer_and_messages_without_an_end_cost_little() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root (processes of other users)");
    }
    let lab = Lab::started();
    let adm = nix::unistd::Group::from_name("adm").unwrap().unwrap();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    // An export of about a megabyte.
    for part in 0..50 {
        let hits = (0..100u64).map(|n| {
            let client = format!("11.0.{part}.{}", n + 1);
            hit(part * 100 + n + 1, &client, &["at-once"])
        });
        worker.send(&Request::Hits(hits.collect())).unwrap();
        worker.ack().unwrap();
    }
    let mut line = Line::connect(&lab.socket()).unwrap();
    line.send(&Request::Command(pipeban::control::Command::Status {
        jail: None,
        newest: usize::MAX,
    }))
    .unwrap();
    let Ok(Reply::Status(status)) = line.receive() else {
        panic!()
    };
    let listed = status.jails.iter().map(|jail| jail.banned.len());
    assert_eq!(listed.sum::<usize>(), 1_000);
    let before = memory(&lab);
    let hoards = (0..3).map(|_| spawn_helper(&lab, "hoards", 54_321, adm.gid.as_raw()));
    let _hoards = Ended(hoards.collect());
    until("most are refused", || {
        let warnings = lab.status()["warnings"].to_string();
        let refused = warnings.split("connections refused: too many: ").nth(1);
        let refused = refused.and_then(|text| text.split('"').next()?.parse::<u64>().ok());
        refused.is_some_and(|refused| refused >= 100)
    });
    let more = memory(&lab).saturating_sub(before);
    assert!(more < 200_000, "{more} kB");
    let hits = Request::Hits(vec![hit(9_999, "11.9.9.9", &["at-once"])]);
    worker.send(&hits).unwrap();
    assert_eq!(worker.ack().unwrap().0, 9_999);
}
