//! The alarm about attacks that Apache answered with status 200: perhaps they got what they asked for.
//! A site that answers 200 to everything causes one line an hour.

use std::time::Duration;

use crate::control::LineHit;
use crate::filter::rules::Confidence;
use crate::jail::Moment;
use crate::record::display;

/// Classes of attacks that succeed where they are answered.
const CLASSES: [&str; 7] = [
    "traversal",
    "lfi",
    "secrets",
    "webshell",
    "php-rce",
    "java-rce",
    "command-injection",
];

/// The alarm of a virtual host names another attack after this time at the earliest.
const NEXT: Duration = Duration::from_secs(3_600);

/// How long the alarm lasts after the last one.
const REMEMBERED: Duration = Duration::from_secs(86_400);

/// Virtual hosts remembered; further ones count as one.
const MAX_VHOSTS: usize = 100;

/// Attacks named, and bytes of the line of each.
const NAMED: usize = 3;
const LINE: usize = 150;

#[derive(Debug, Default)]
pub(super) struct Answered {
    attacks: Vec<Attack>,
}

/// The attack on one virtual host that the alarm names.
#[derive(Debug)]
struct Attack {
    vhost: Option<String>,
    named: Moment,
    text: String,
    last: Moment,
    /// Offset of the last line: several jails can have hits of one.
    line: u64,
    /// Since it is named.
    more: u64,
}

impl Answered {
    /// Whether a hit is such an attack.
    pub(super) fn is_one(line: &LineHit, class: Option<&str>, weight: u32) -> bool {
        let is_serious = class.is_some_and(|class| CLASSES.contains(&class));
        line.answered && is_serious && weight >= Confidence::Likely.weight()
    }

    pub(super) fn note(&mut self, line: &LineHit, class: &str, now: Moment) {
        let of = |vhosts: usize| line.vhost.clone().filter(|_| vhosts < MAX_VHOSTS);
        let known = |vhost: &Option<String>, attacks: &[Attack]| {
            attacks.iter().position(|attack| attack.vhost == *vhost)
        };
        let vhost = match known(&line.vhost, &self.attacks) {
            Some(_) => line.vhost.clone(),
            None => of(self.attacks.len()),
        };
        let at = known(&vhost, &self.attacks);
        let mut before = String::new();
        if let Some(attack) = at.and_then(|at| self.attacks.get_mut(at)) {
            attack.last = now;
            let known = std::mem::replace(&mut attack.line, line.offset) == line.offset;
            if known || now.since(attack.named) < NEXT {
                attack.more += u64::from(!known);
                return;
            }
            if attack.more > 0 {
                before = format!(", and {} more since the last one named", attack.more);
            }
        }
        if let Some(at) = at {
            self.attacks.remove(at);
        }
        let shown = display(line.evidence.as_bytes(), LINE);
        let text = format!("{class}: {shown}{before}");
        self.attacks.push(Attack {
            vhost,
            named: now,
            text,
            last: now,
            line: line.offset,
            more: 0,
        });
    }

    pub(super) fn text(&mut self, now: Moment) -> Option<String> {
        self.attacks
            .retain(|attack| now.since(attack.last) < REMEMBERED);
        let newest = self.attacks.iter().rev().take(NAMED);
        let newest: Vec<&str> = newest.map(|attack| attack.text.as_str()).collect();
        (!newest.is_empty()).then(|| {
            format!(
                "attacks were answered with status 200: check whether Apache gave out what they asked \
                 for, or answers 200 to everything ({})",
                newest.join("; ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::evidence::tests::hit;

    fn at(minutes: i64) -> Moment {
        Moment::from_nanos(minutes * 60_000_000_000)
    }

    #[test]
    fn a_site_that_answers_everything_changes_the_text_once_an_hour() {
        let mut answered = Answered::default();
        assert_eq!(answered.text(at(0)), None);
        let mut texts = Vec::new();
        for minute in 0..180 {
            let mut line = hit(&format!("GET /{minute}/.env"));
            line.offset = u64::try_from(minute).unwrap();
            for _ in ["one jail", "another"] {
                answered.note(&line, "secrets", at(minute));
            }
            texts.extend(answered.text(at(minute)));
        }
        texts.dedup();
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(texts[0].contains("(secrets: GET /0/.env)"), "{texts:?}");
        assert!(
            texts[1].contains("/60/.env, and 59 more since"),
            "{texts:?}"
        );
        let end = 179 + 24 * 60;
        assert!(answered.text(at(end - 1)).is_some());
        assert_eq!(answered.text(at(end)), None);
    }

    #[test]
    fn each_virtual_host_is_named_and_memory_is_bounded() {
        let mut answered = Answered::default();
        for n in 0..2 * MAX_VHOSTS {
            let mut line = hit(&format!("GET /{n}"));
            line.vhost = Some(n.to_string());
            answered.note(&line, "webshell", at(0));
        }
        assert_eq!(answered.attacks.len(), MAX_VHOSTS + 1);
        let text = answered.text(at(0)).unwrap();
        assert!(
            text.contains("(webshell: GET /100; webshell: GET /99; "),
            "{text}"
        );
    }

    #[test]
    fn only_serious_classes_and_sure_rules_count() {
        let mut line = hit("x");
        for (was_answered, class, weight, expected) in [
            (true, Some("traversal"), 10, true),
            (true, Some("secrets"), 4, true),
            (true, Some("secrets"), 2, false),
            (true, Some("sql-injection"), 10, false),
            (true, None, 10, false),
            (false, Some("traversal"), 10, false),
        ] {
            line.answered = was_answered;
            let found = Answered::is_one(&line, class, weight);
            assert_eq!(found, expected, "{class:?} {weight}");
        }
    }
}
