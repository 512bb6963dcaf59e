//! Which ufw rules there should be, and the one call to make next. No input or output.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::super::desired::{BanKey, BanState};
use super::rules::{self, Existing, Rule};
use crate::jail::{Moment, Now};

/// Beside another back end a ban with less time left gets no rule: it would cost two calls of ufw.
const WORTH_A_RULE: Duration = Duration::from_secs(600);
/// That many bans within that time are a surge; beside another back end none gets a rule until
/// `QUIET` after it.
const SURGE: u64 = 30;
const SURGE_WITHIN: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_secs(30);
/// After a call of another ufw has written over one of pipeban's, it waits for so long.
const GIVE_WAY: Duration = Duration::from_secs(3);
/// A rule that was written that many times and not found afterwards is left out.
const MOST_OVERWRITTEN: u32 = 5;
/// A rule that is found so long after it was written has not been overwritten by a call of ufw
/// that had read its files before.
const CONFIRMED: Duration = Duration::from_secs(1);

/// What ufw does with a ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UfwState {
    /// ufw has the rule.
    Present,
    /// The rule is still to be added.
    Queued,
    /// Left out: `max_rules` is reached, or the ban has under 10 minutes left.
    Capped,
    /// Left out: its rule has been deleted by hand twice.
    Removed,
    /// ufw is not active.
    Inactive,
}

/// The bans that have a place in ufw, and their rules.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    rules: BTreeMap<Rule, Place>,
    /// Without rules: ufw cannot express the ban.
    bans: BTreeMap<BanKey, (BanState, Vec<Rule>)>,
    /// Bans that end no later have no place.
    pub(super) full: Option<Moment>,
}

/// Of the bans that need a rule, the one that ends last.
#[derive(Debug)]
struct Place {
    comment: String,
    end: Moment,
}

impl Chosen {
    /// From bans in the order of their ends, the last end first. `full`: there are more of them.
    pub(super) fn new(
        bans: impl Iterator<Item = (BanKey, BanState, Vec<Rule>, String)>,
        max_rules: usize,
        full: bool,
    ) -> Chosen {
        let mut chosen = Chosen::default();
        for (id, ban, rules, comment) in bans {
            let new = rules.iter().filter(|rule| !chosen.rules.contains_key(rule));
            let fits = chosen.rules.len() + new.count() <= max_rules;
            if full || !fits {
                chosen.full = Some(ban.end());
            }
            if !fits {
                break;
            }
            for rule in &rules {
                chosen.rules.entry(rule.clone()).or_insert_with(|| Place {
                    comment: comment.clone(),
                    end: ban.end(),
                });
            }
            chosen.bans.insert(id, (ban, rules));
        }
        if max_rules == 0 {
            chosen.full = Some(Moment::MAX);
        }
        chosen
    }

    pub(super) fn has_ipv6(&self) -> bool {
        self.rules.keys().any(|rule| !is_ipv4(rule))
    }

    /// The bans that a rule is part of.
    pub(super) fn bans_of(&self, rule: &Rule) -> impl Iterator<Item = BanKey> {
        let of = |(_, rules): &(BanState, Vec<Rule>)| rules.contains(rule);
        self.bans
            .iter()
            .filter(move |(_, ban)| of(ban))
            .map(|(id, _)| *id)
    }
}

/// What ufw can do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Host {
    /// False: it enforces nothing.
    pub(super) active: bool,
    /// False: it refuses IPv6 rules.
    pub(super) ipv6: bool,
}

/// One call of ufw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Delete(Rule),
    Prepend(Rule, String),
    /// Only the comment changes.
    Update(Rule, String),
}

impl Step {
    pub(super) fn rule(&self) -> &Rule {
        match self {
            Step::Delete(rule) | Step::Prepend(rule, _) | Step::Update(rule, _) => rule,
        }
    }

    pub(super) fn argv(&self) -> Vec<String> {
        match self {
            Step::Delete(rule) => rule.argv("delete", ""),
            Step::Prepend(rule, comment) => rule.argv("prepend", comment),
            Step::Update(rule, comment) => rule.argv("", comment),
        }
    }
}

/// Rules that an administrator deleted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ByHand {
    /// For the first time: they are restored.
    pub(super) once: Vec<Rule>,
    /// Again, or they never appeared: they are left out.
    pub(super) again: Vec<Rule>,
}

/// What ufw has, and what happened to pipeban's rules.
#[derive(Debug)]
pub(super) struct Mirror {
    max_rules: usize,
    /// Another back end enforces: not every ban needs a rule, nor at once.
    beside: bool,
    /// pipeban's rules that ufw has, with their comments.
    present: BTreeMap<Rule, String>,
    /// Other rules that differ from one of pipeban's at most in the action; true: deny.
    foreign: HashMap<Rule, bool>,
    /// Written, and not yet found in ufw's files afterwards.
    unconfirmed: HashMap<Rule, Instant>,
    /// How often a wanted rule did not last.
    deleted: BTreeMap<Rule, u32>,
    overwritten: BTreeMap<Rule, u32>,
    quiet_until: Option<Instant>,
    /// Counts of bans in the last seconds.
    recent: VecDeque<(Instant, u64)>,
    /// Every ban is known: rules that no ban wants go.
    complete: bool,
    /// Rules that were chosen before that.
    known: BTreeSet<Rule>,
    counted: bool,
}

impl Mirror {
    pub(super) fn new(max_rules: usize, beside: bool) -> Mirror {
        Mirror {
            max_rules,
            beside,
            present: BTreeMap::new(),
            foreign: HashMap::new(),
            unconfirmed: HashMap::new(),
            deleted: BTreeMap::new(),
            overwritten: BTreeMap::new(),
            quiet_until: None,
            recent: VecDeque::new(),
            complete: false,
            known: BTreeSet::new(),
            counted: false,
        }
    }

    /// The wanted bans have changed: `made` counts all bans so far.
    pub(super) fn changed(&mut self, complete: bool, made: u64, now: Instant) {
        self.complete = complete;
        self.recent.push_back((now, made));
        while let Some((at, _)) = self.recent.front()
            && now.duration_since(*at) > SURGE_WITHIN
        {
            self.recent.pop_front();
        }
        let first = self.recent.front().map_or(made, |(_, made)| *made);
        if made.saturating_sub(first) >= SURGE {
            self.quiet_until = self.quiet_until.max(Some(now + QUIET));
        }
    }

    /// Takes in what ufw has now, and finds out which rules did not last.
    pub(super) fn observe(
        &mut self,
        existing: Vec<Existing>,
        chosen: &Chosen,
        host: Host,
        now: Instant,
    ) -> ByHand {
        let before = std::mem::take(&mut self.present);
        self.foreign.clear();
        for existing in existing {
            match existing.is_ours() {
                true => _ = self.present.insert(existing.rule, existing.comment),
                false => _ = self.foreign.insert(existing.rule, existing.is_deny),
            }
        }
        // All at once is `ufw reset`, which is not about pipeban.
        let reset = !host.active || (before.len() > 1 && self.present.is_empty());
        // A ban that is over takes what is known of its rules with it.
        let wanted = |rule: &Rule| chosen.rules.contains_key(rule);
        self.deleted.retain(|rule, _| wanted(rule));
        self.overwritten.retain(|rule, _| wanted(rule));
        let mut found = ByHand::default();
        for rule in before.into_keys() {
            let is_foreign = self.foreign.contains_key(&rule);
            if reset || is_foreign || self.present.contains_key(&rule) || !wanted(&rule) {
                continue;
            }
            if self.unconfirmed.contains_key(&rule) {
                // Calls of ufw write over each other.
                self.quiet_until = self.quiet_until.max(Some(now + GIVE_WAY));
                let times = self.overwritten.entry(rule.clone()).or_default();
                *times += 1;
                if *times == MOST_OVERWRITTEN {
                    found.again.push(rule);
                }
                continue;
            }
            let times = self.deleted.entry(rule.clone()).or_default();
            *times += 1;
            match *times {
                1 => found.once.push(rule),
                _ => found.again.push(rule),
            }
        }
        let present = &self.present;
        self.unconfirmed.retain(|rule, written| {
            present.contains_key(rule) && now.duration_since(*written) < CONFIRMED
        });
        found
    }

    /// ufw's files must be read again, changed or not.
    pub(super) fn has_unconfirmed(&self, now: Instant) -> bool {
        let due = |written: &Instant| now.duration_since(*written) >= CONFIRMED;
        self.unconfirmed.values().any(due)
    }

    fn is_left_out(&self, rule: &Rule) -> bool {
        self.deleted.get(rule).is_some_and(|times| *times > 1)
            || self
                .overwritten
                .get(rule)
                .is_some_and(|times| *times >= MOST_OVERWRITTEN)
    }

    /// Once: how many rules of an earlier engine belong to no ban.
    pub(super) fn leftover(&mut self, chosen: &Chosen) -> Option<usize> {
        if self.counted || !self.complete {
            return None;
        }
        self.counted = true;
        let count = self.leaving(chosen).len();
        (count > 0).then_some(count)
    }

    /// A step has been done.
    pub(super) fn done(&mut self, step: &Step, now: Instant) {
        match step {
            Step::Delete(rule) => {
                self.present.remove(rule);
                self.unconfirmed.remove(rule);
            }
            Step::Prepend(rule, comment) => {
                self.unconfirmed.insert(rule.clone(), now);
                self.present.insert(rule.clone(), comment.clone());
            }
            Step::Update(rule, comment) => {
                self.present.insert(rule.clone(), comment.clone());
            }
        }
    }

    /// The next call of ufw: deletions first. Rules in `aside` are left for later.
    pub(super) fn next(
        &mut self,
        chosen: &Chosen,
        host: Host,
        aside: impl Fn(&Rule) -> bool,
        clocks: Now,
        now: Instant,
    ) -> Option<Step> {
        match self.complete {
            true => self.known.clear(),
            false => self.known.extend(chosen.rules.keys().cloned()),
        }
        let possible = |rule: &&Rule| (host.ipv6 || is_ipv4(rule)) && !aside(rule);
        let stale = self.present.iter().filter(|(rule, comment)| {
            !chosen.rules.contains_key(rule)
                && (self.complete
                    || self.known.contains(rule)
                    || rules::is_over(comment, clocks.wall))
        });
        if let Some(rule) = stale.map(|(rule, _)| rule).find(possible) {
            return Some(Step::Delete(rule.clone()));
        }
        // Beside another back end nothing is urgent, and `ufw enable`, which reads its rules
        // before it takes its lock, would write over pipeban's.
        let waits = self.beside && (!host.active || self.quiet_until.is_some_and(|end| now < end));
        let full = self.present.len() >= self.max_rules;
        let missing = chosen.rules.iter().find(|(rule, place)| {
            possible(rule)
                && !self.present.contains_key(rule)
                && !self.foreign.contains_key(rule)
                && !self.is_left_out(rule)
                && self.is_worth_it(place.end, clocks.boot)
        });
        if let Some((rule, place)) = missing.filter(|_| !waits && !full) {
            return Some(Step::Prepend(rule.clone(), place.comment.clone()));
        }
        let differs = |rule: &Rule, place: &Place| {
            let comment = self.present.get(rule);
            comment.is_some_and(|comment| !rules::is_same(comment, &place.comment))
        };
        let (rule, place) = chosen
            .rules
            .iter()
            .find(|(rule, place)| possible(rule) && differs(rule, place))
            .filter(|_| host.active || !self.beside)?;
        Some(Step::Update(rule.clone(), place.comment.clone()))
    }

    fn is_worth_it(&self, end: Moment, boot: Moment) -> bool {
        !self.beside || end.since(boot) >= WORTH_A_RULE
    }

    /// Every rule that ufw has and that is to go.
    pub(super) fn leaving(&self, chosen: &Chosen) -> HashSet<Rule> {
        self.present
            .keys()
            .filter(|rule| !chosen.rules.contains_key(rule))
            .filter(|rule| self.complete || self.known.contains(rule))
            .cloned()
            .collect()
    }

    /// The state of each chosen ban; `None`: ufw cannot express it.
    pub(super) fn states(
        &self,
        chosen: &Chosen,
        host: Host,
        boot: Moment,
    ) -> HashMap<BanKey, Option<UfwState>> {
        let there =
            |rule: &Rule| self.present.contains_key(rule) || self.foreign.get(rule) == Some(&true);
        let state = |id: &BanKey, ban: &BanState, rules: &[Rule]| {
            if rules.is_empty() {
                return None;
            }
            Some(
                if !host.active || !(host.ipv6 || matches!(id.net, IpNet::V4(_))) {
                    UfwState::Inactive
                } else if rules.iter().all(there) {
                    UfwState::Present
                } else if rules.iter().any(|rule| self.is_left_out(rule)) {
                    UfwState::Removed
                } else if !self.is_worth_it(ban.end(), boot) {
                    UfwState::Capped
                } else {
                    UfwState::Queued
                },
            )
        };
        let bans = chosen.bans.iter();
        bans.map(|(id, (ban, rules))| (*id, state(id, ban, rules)))
            .collect()
    }

    /// A wanted rule that ufw has with another action.
    pub(super) fn blocked<'a>(&self, chosen: &'a Chosen) -> Option<&'a Rule> {
        let mut rules = chosen.rules.keys();
        rules.find(|rule| self.foreign.get(*rule) == Some(&false))
    }
}

fn is_ipv4(rule: &Rule) -> bool {
    matches!(rule.net, IpNet::V4(_))
}

#[cfg(test)]
mod tests {
    use super::super::super::desired::Desired;
    use super::*;
    use crate::config::Ports;
    use crate::jail::{FirewallKey, FirewallState};

    const ACTIVE: Host = Host {
        active: true,
        ipv6: true,
    };

    /// A mirror, ufw's files, and the bans.
    struct Bench {
        mirror: Mirror,
        files: Vec<Existing>,
        desired: Desired,
        now: Now,
        at: Instant,
        host: Host,
    }

    impl Bench {
        fn new(max_rules: usize, beside: bool) -> Bench {
            let mut bench = Bench {
                mirror: Mirror::new(max_rules, beside),
                files: Vec::new(),
                desired: Desired::default(),
                now: Now {
                    boot: Moment::from_nanos(1_000_000_000),
                    wall: "2026-11-22T12:00:00Z".parse().unwrap(),
                },
                at: Instant::now(),
                host: ACTIVE,
            };
            bench.desired.complete = true;
            bench
        }

        fn key(net: &str) -> FirewallKey {
            FirewallKey {
                net: net.parse().unwrap(),
                ports: Ports::List {
                    tcp: [80].into(),
                    udp: [].into(),
                },
                behind: false,
            }
        }

        fn ban(&mut self, net: &str, minutes: Option<u64>) -> BanKey {
            let left = |minutes| self.now.boot.plus(Duration::from_secs(minutes * 60));
            let state = FirewallState {
                jail: "j".parse().unwrap(),
                until: minutes.map(left),
            };
            self.desired.set(&Bench::key(net), Some(state))
        }

        fn unban(&mut self, net: &str) {
            self.desired.set(&Bench::key(net), None);
        }

        fn chosen(&self) -> Chosen {
            let mut bans = self.desired.after(None, 1_000);
            bans.sort_by_key(|(id, ban)| std::cmp::Reverse((ban.end(), *id)));
            let bans = bans.into_iter().map(|(id, ban)| {
                let ports = &self.desired.group(id).unwrap().ports;
                let rules = rules::rules(id.net, ports, &BTreeSet::new());
                let until = ban.until.map(|until| self.now.wall_of(until));
                (id, ban, rules, rules::comment("j", until))
            });
            Chosen::new(bans, self.mirror.max_rules, false)
        }

        fn observe(&mut self) -> ByHand {
            let chosen = self.chosen();
            let files = self.files.clone();
            self.mirror.observe(files, &chosen, self.host, self.at)
        }

        /// One round; what ufw was called with.
        fn step(&mut self) -> Option<String> {
            let chosen = self.chosen();
            let complete = self.desired.complete;
            self.mirror.changed(complete, 0, self.at);
            let step = self
                .mirror
                .next(&chosen, self.host, |_| false, self.now, self.at)?;
            match &step {
                Step::Delete(rule) => self.files.retain(|one| one.rule != *rule),
                Step::Prepend(rule, comment) | Step::Update(rule, comment) => {
                    self.files.retain(|one| one.rule != *rule);
                    self.files.push(Existing {
                        rule: rule.clone(),
                        is_deny: true,
                        comment: comment.clone(),
                    });
                }
            }
            self.mirror.done(&step, self.at);
            Some(step.argv().join(" "))
        }

        fn steps(&mut self) -> Vec<String> {
            std::iter::from_fn(|| self.step()).take(100).collect()
        }

        fn state(&self, id: BanKey) -> Option<UfwState> {
            let chosen = self.chosen();
            let states = self.mirror.states(&chosen, self.host, self.now.boot);
            states.get(&id).copied().flatten()
        }

        fn pass(&mut self, seconds: u64) {
            self.at += Duration::from_secs(seconds);
        }
    }

    const ONE: &str = "192.0.2.1/32";
    const TWO: &str = "192.0.2.2/32";

    #[test]
    fn a_rule_comes_changes_and_goes_with_its_ban() {
        let mut bench = Bench::new(500, true);
        let id = bench.ban(ONE, Some(60));
        assert_eq!(bench.state(id), Some(UfwState::Queued));
        let rule = "deny proto tcp from 192.0.2.1 to any port 80";
        let until = |end| format!("comment pipeban:j until 2026-11-22T{end}:00Z");
        assert_eq!(
            bench.steps(),
            [format!("prepend {rule} {}", until("13:00"))]
        );
        assert_eq!(bench.state(id), Some(UfwState::Present));
        bench.ban(ONE, Some(120));
        assert_eq!(bench.steps(), [format!("{rule} {}", until("14:00"))]);
        bench.unban(ONE);
        assert_eq!(bench.steps(), [format!("delete {rule}")]);
        // Lifted before its turn: no call.
        bench.ban(TWO, Some(60));
        bench.unban(TWO);
        assert_eq!(bench.steps(), [""; 0]);
    }

    #[test]
    fn the_bans_that_end_last_have_a_place() {
        let mut bench = Bench::new(2, true);
        let first = bench.ban(ONE, Some(60));
        bench.ban(TWO, Some(120));
        assert_eq!(bench.steps().len(), 2);
        bench.ban("192.0.2.3/32", None);
        let steps = bench.steps();
        assert!(
            steps[0].contains("delete") && steps[0].contains("192.0.2.1"),
            "{steps:?}"
        );
        assert!(steps[1].contains("192.0.2.3"), "{steps:?}");
        let ban = bench.desired.get(first).unwrap();
        assert!(bench.chosen().full.is_some_and(|full| ban.end() <= full));
        assert_eq!(bench.mirror.present.len(), 2);
    }

    #[test]
    fn beside_another_back_end_a_short_ban_gets_no_rule() {
        for (beside, expected) in [(true, 0), (false, 1)] {
            let mut bench = Bench::new(500, beside);
            let id = bench.ban(ONE, Some(9));
            assert_eq!(bench.steps().len(), expected);
            assert_eq!(bench.state(id) == Some(UfwState::Capped), beside);
        }
    }

    #[test]
    fn a_surge_waits_and_deletions_do_not() {
        let mut bench = Bench::new(500, true);
        bench.ban(ONE, Some(60));
        assert_eq!(bench.steps().len(), 1);
        bench.unban(ONE);
        bench.ban(TWO, Some(60));
        bench.mirror.changed(true, SURGE, bench.at);
        let steps = bench.steps();
        assert!(
            matches!(&steps[..], [one] if one.contains("delete")),
            "{steps:?}"
        );
        bench.pass(QUIET.as_secs() + 1);
        assert_eq!(bench.steps().len(), 1);
    }

    #[test]
    fn a_rule_deleted_by_hand_is_restored_once() {
        let mut bench = Bench::new(500, true);
        let id = bench.ban(ONE, Some(60));
        bench.ban(TWO, Some(60));
        bench.steps();
        bench.pass(2);
        assert_eq!(bench.observe(), ByHand::default());
        for n in 0..2 {
            bench
                .files
                .retain(|one| !one.rule.net.to_string().contains(".1/"));
            let by_hand = bench.observe();
            assert_eq!((by_hand.once.len(), by_hand.again.len()), (1 - n, n));
            assert_eq!(bench.steps().len(), 1 - n);
            bench.pass(2);
            assert_eq!(bench.observe(), ByHand::default());
        }
        assert_eq!(bench.state(id), Some(UfwState::Removed));
        // A new ban of the same client begins again.
        bench.unban(ONE);
        bench.observe();
        bench.ban(ONE, Some(60));
        assert_eq!(bench.steps().len(), 1);
    }

    #[test]
    fn a_rule_that_another_call_overwrites_is_written_again_but_not_for_ever() {
        let mut bench = Bench::new(500, true);
        bench.ban(ONE, Some(60));
        for n in 1..=MOST_OVERWRITTEN {
            assert_eq!(bench.steps().len(), 1, "{n}");
            bench.files.clear();
            let by_hand = bench.observe();
            let given_up = usize::from(n == MOST_OVERWRITTEN);
            assert_eq!((by_hand.once.len(), by_hand.again.len()), (0, given_up));
            // It gives way first.
            assert_eq!(bench.steps(), [""; 0]);
            bench.pass(GIVE_WAY.as_secs());
        }
        assert_eq!(bench.steps(), [""; 0]);
    }

    #[test]
    fn after_a_reset_no_rule_counts_as_deleted_by_hand() {
        let mut bench = Bench::new(500, true);
        let id = bench.ban(ONE, Some(60));
        bench.ban(TWO, Some(60));
        bench.steps();
        bench.pass(2);
        bench.observe();
        bench.files.clear();
        bench.host.active = false;
        assert_eq!(bench.observe(), ByHand::default());
        assert_eq!(bench.state(id), Some(UfwState::Inactive));
        assert_eq!(bench.steps(), [""; 0]);
        bench.host.active = true;
        assert_eq!(bench.observe(), ByHand::default());
        assert_eq!(bench.steps().len(), 2);
    }

    fn existing(net: &str, is_deny: bool, comment: &str) -> Existing {
        let ports = Bench::key(net).ports;
        Existing {
            rule: rules::rules(net.parse().unwrap(), &ports, &BTreeSet::new()).remove(0),
            is_deny,
            comment: comment.into(),
        }
    }

    #[test]
    fn rules_of_an_earlier_engine_go_when_every_ban_is_known() {
        let mut bench = Bench::new(500, true);
        bench.desired.complete = false;
        let of = |net, end: &str| existing(net, true, &format!("pipeban:j until {end}"));
        bench.files = vec![
            of(ONE, "further notice"),
            of(TWO, "2020-01-01T00:00:00Z"),
            of("192.0.2.3/32", "2026-11-22T13:00:00Z"),
        ];
        bench.observe();
        let steps = bench.steps();
        assert!(
            matches!(&steps[..], [one] if one.contains("192.0.2.2")),
            "{steps:?}"
        );
        // What this engine made goes with its ban all the same.
        bench.ban("192.0.2.4/32", Some(60));
        bench.steps();
        bench.unban("192.0.2.4/32");
        assert_eq!(bench.steps().len(), 1);
        bench.ban("192.0.2.3/32", Some(60));
        bench.desired.complete = true;
        let steps = bench.steps();
        assert!(
            matches!(&steps[..], [one] if one.contains("192.0.2.1")),
            "{steps:?}"
        );
    }

    #[test]
    fn an_administrators_rule_of_the_same_words_stays() {
        for (is_deny, expected) in [(true, UfwState::Present), (false, UfwState::Queued)] {
            let mut bench = Bench::new(500, true);
            bench.files = vec![existing(ONE, is_deny, "")];
            let id = bench.ban(ONE, Some(60));
            bench.observe();
            assert_eq!(bench.steps(), [""; 0]);
            assert_eq!(bench.state(id), Some(expected));
            assert_eq!(bench.mirror.blocked(&bench.chosen()).is_some(), !is_deny);
            bench.unban(ONE);
            assert_eq!(bench.steps(), [""; 0]);
        }
    }

    #[test]
    fn without_ipv6_no_ipv6_rule_is_touched() {
        let mut bench = Bench::new(500, true);
        bench.host.ipv6 = false;
        let id = bench.ban("2001:db8::/64", Some(60));
        bench.ban(ONE, Some(60));
        assert_eq!(bench.steps().len(), 1);
        assert_eq!(bench.state(id), Some(UfwState::Inactive));
        assert!(bench.chosen().has_ipv6());
    }
}
