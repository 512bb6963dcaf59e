//! Translates the command line of fail2ban-regex to `pipeban test`.

use crate::cli::fail2ban::quoted;

/// Its options with a value.
const VALUED: &str = "-c --config -d --datepattern --timezone --TZ -e --encoding --usedns -L \
    --maxlines -m --journalmatch -l --log-level --verbosity -o --out";

/// `LOG REGEX [IGNOREREGEX]` and options; `None` for any other command line.
pub(in crate::cli) fn meant(words: &[&str]) -> Option<String> {
    let mut options = String::new();
    let mut plain = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--print-all-matched" => options.push_str(" --show matched"),
            "--print-all-missed" => options.push_str(" --show missed"),
            "--print-all-ignored" => options.push_str(" --show ignored"),
            option @ ("--kind" | "--format" | "--show" | "--near") => {
                options.push_str(&format!(" {option} {}", quoted(words.next()?)));
            }
            // With one of these it is a command line of `pipeban test`.
            "--jail" | "--filter" | "--pattern" | "--ignore" | "--line" => return None,
            option if VALUED.split(' ').any(|valued| valued == option) => {
                words.next()?;
            }
            option if option.len() > 1 && option.starts_with('-') => {}
            word => plain.push(word),
        }
    }
    let (log, tested, ignore) = match plain.as_slice() {
        [log, tested] => (*log, *tested, None),
        [log, tested, ignore] => (*log, *tested, Some(*ignore)),
        _ => return None,
    };
    let how = if is_filter(tested) {
        "--filter"
    } else {
        "--pattern"
    };
    let ignore = ignore.map_or(String::new(), |regex| {
        format!(" --ignore {}", quoted(regex))
    });
    let (before, log) = if log.starts_with("systemd-journal") {
        ("journalctl -o short-iso | ", "-".to_owned())
    } else if log.contains(char::is_whitespace) {
        ("", format!("--line {}", quoted(log)))
    } else {
        ("", quoted(log))
    };
    let tested = quoted(tested);
    Some(format!(
        "{before}pipeban test {how} {tested}{ignore}{options} {log}"
    ))
}

/// Whether it is a name or a file, perhaps with options, and no regex.
fn is_filter(text: &str) -> bool {
    let name = text.split_once('[').map_or(text, |(name, _)| name);
    let of_name = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
    !name.is_empty() && name.bytes().all(of_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_lines_filters_and_patterns_are_distinguished() {
        for (typed, answer) in [
            (
                &["a.log", "apache-auth"][..],
                Some("pipeban test --filter apache-auth a.log"),
            ),
            (
                &["-v", "--print-all-missed", "a.log", "f.d/x.conf[mode=a]"],
                Some("pipeban test --filter 'f.d/x.conf[mode=a]' --show missed a.log"),
            ),
            (
                &["-d", "%Y", "a b 192.0.2.1", "^a b <HOST>", "x y"],
                Some("pipeban test --pattern '^a b <HOST>' --ignore 'x y' --line 'a b 192.0.2.1'"),
            ),
            (
                &["systemd-journal[journalflags=1]", "sshd"],
                Some("journalctl -o short-iso | pipeban test --filter sshd -"),
            ),
            (
                &["--kind", "raw", "-", "sshd"],
                Some("pipeban test --filter sshd --kind raw -"),
            ),
            (&["a.log"], None),
            (&["--filter", "a", "b", "c"], None),
            (&["a", "b", "c", "d"], None),
        ] {
            assert_eq!(meant(typed).as_deref(), answer, "{typed:?}");
        }
    }
}
