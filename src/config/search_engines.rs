//! Search engines: what their user agents hold, and the domains of their crawlers' names.

use serde::{Deserialize, Serialize};

use super::document::Place;
use super::networks::host_name;

/// Lines in the list at most.
const MOST: usize = 200;

/// A search engine whose crawlers can be confirmed by reverse DNS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchEngine {
    /// The word in its user agents, as in the list; case does not count.
    pub name: String,
    /// The names of its crawlers end in one of these.
    pub domains: Vec<String>,
}

impl SearchEngine {
    /// Whether a host with this name, in lower case, can be one of its crawlers.
    pub fn owns(&self, host: &str) -> bool {
        self.domains.iter().any(|domain| {
            let before = host.strip_suffix(domain.as_str());
            before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
        })
    }
}

/// One search engine per line: the word, then the domains; `#` begins a comment.
///
/// # Errors
/// The lines that are something else.
pub(super) fn list(text: &str) -> Result<Vec<SearchEngine>, Vec<(Place, String)>> {
    let (mut engines, mut wrong) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let Some(name) = words.next() else { continue };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let named = (3..=40).contains(&name.len()) && name.bytes().all(allowed);
        let domains: Option<Vec<String>> = words
            .map(|domain| host_name(domain).filter(|domain| domain.contains('.')))
            .collect();
        match domains.filter(|domains| named && !domains.is_empty()) {
            Some(domains) if engines.len() < MOST => engines.push(SearchEngine {
                name: name.to_owned(),
                domains,
            }),
            _ => {
                let message = "write a word of the user agent and the domains of its crawlers, like \
                               `Googlebot googlebot.com google.com`";
                wrong.push(((number, 1), message.to_owned()));
            }
        }
    }
    if wrong.is_empty() {
        Ok(engines)
    } else {
        wrong.truncate(20);
        Err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_an_engine_by_whole_labels_only() {
        let engines = list("# as of\nGooglebot GoogleBot.com. google.com # both\n").unwrap();
        let [google] = engines.as_slice() else {
            panic!("{engines:?}")
        };
        for (host, owned) in [
            ("crawl-66-249-66-1.googlebot.com", true),
            ("geo-crawl-1.geo.googlebot.com", true),
            ("rate-limited-proxy-66-249-90-77.google.com", true),
            ("google.com", true),
            ("googlebot.com.evil.example", false),
            ("crawl-66-249-66-1.googlebot.com.evil.example", false),
            ("evilgooglebot.com", false),
            ("crawl.evil-googlebot.com", false),
            ("googlebot.co", false),
            ("1.2.3.4.bc.googleusercontent.com", false),
            ("com", false),
            ("", false),
        ] {
            assert_eq!(google.owns(host), owned, "{host}");
        }
    }

    #[test]
    fn each_wrong_line_of_the_list_has_its_place() {
        let wrong = list("Googlebot\nBing com\n\nx y.example\nYeti naver.com\nA*bot a.example\n");
        let lines: Vec<usize> = wrong.unwrap_err().iter().map(|(at, _)| at.0).collect();
        assert_eq!(lines, [1, 2, 4, 6]);
        assert!(list(&"abc d.example\n".repeat(MOST + 1)).is_err());
    }
}
