//! What an administrator may want to do after the engine's answers to lines sent by hand.

use std::collections::BTreeSet;

use crate::jail::Why;

/// Lines below the answers: how to lift bans, and why a client is not banned.
pub(super) fn of(answers: &str) -> String {
    let mut advice = BTreeSet::new();
    for answer in answers.lines() {
        let Some((_, event)) = answer.split_once("] ") else {
            continue;
        };
        let mut words = event.split(' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("Ban"), Some(client), ..) => {
                advice.insert(format!("to lift this ban: pipeban unban {client}"));
            }
            (Some("Ignore"), Some(client), Some("by"), Some(word)) => {
                advice.extend(why(word).map(|why| format!("{client} is not banned: {why}")));
            }
            _ => {}
        }
    }
    advice.into_iter().map(|line| line + "\n").collect()
}

fn why(word: &str) -> Option<&'static str> {
    const ELSEWHERE: &str = "it is this host, so test from another one, or with an address such as \
                             198.51.100.10";
    let of = |why: Why| why.word() == word;
    Some(match word {
        _ if of(Why::Own) => ELSEWHERE,
        _ if of(Why::Private) => {
            "it is in a private or carrier range, which no jail bans without `ban_private = true`"
        }
        _ if of(Why::Gateway) => "it is a gateway of this host",
        _ if of(Why::NameServer) => "it is a name server of this host",
        _ if of(Why::AllowList) => "it is on the allow-list (`pipeban allow --list`)",
        _ if of(Why::IgnoreIp) => {
            "`ignoreip` exempts it, as it does 127.0.0.1 and ::1 by default; `pipeban explain` \
             names the entry"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bans_and_exempt_clients_get_a_line_each() {
        let answers = "[a] Found 203.0.113.9 (1/1 in 10m)\n[a] Ban 203.0.113.9 for 1h (1 in 1s)\n\
                       [b] Ban 203.0.113.9 for 1h (1 in 1s)\n[a] Would Ban 203.0.113.8 for 1h\n\
                       [a] Ignore 192.168.1.2 by private-range\n[b] Ignore 192.168.1.2 by \
                       private-range\n[a] Ignore 192.0.2.1 by own-address\nthe engine refuses: x\n";
        let advice = of(answers);
        let lines: Vec<&str> = advice.lines().collect();
        let [private, own, unban] = [lines[1], lines[0], lines[2]];
        assert_eq!(lines.len(), 3, "{advice}");
        assert_eq!(unban, "to lift this ban: pipeban unban 203.0.113.9");
        assert!(
            private.starts_with("192.168.1.2 is not banned: it is in a private"),
            "{private}"
        );
        assert!(
            own.starts_with("192.0.2.1 is not banned: it is this host"),
            "{own}"
        );
    }
}
