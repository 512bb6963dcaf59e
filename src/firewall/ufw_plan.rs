//! Which ufw rules there should be, and the one thing to do next. No input or output.
//!
//! What is wanted and what is there are compared anew after each step, so a ban that is lifted
//! before its turn costs no call, and one rule that two bans share goes with the last of them.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::Timestamp;

use super::cut::Target;
use super::ufw_rules::{self, Existing, Rule};
use super::{Entry, Mirror};
use crate::config::Ports;

/// A ban with less time left gets no rule of a mirror: it would cost two calls of ufw.
const WORTH_A_RULE: Duration = Duration::from_secs(600);
/// So many bans in so much time are a surge, and a mirror makes no rule until it has been over for
/// `QUIET`.
const SURGE: usize = 30;
const SURGE_WITHIN: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_secs(30);
/// Nor for so long after somebody else's call of ufw has written over one of ours.
const GIVE_WAY: Duration = Duration::from_secs(3);
/// A rule that so many times was written and not seen afterwards is not put back any more: that is
/// no chance meeting of two calls.
const OVERWRITTEN: u32 = 5;

type Key = (IpNet, Ports);

/// Later is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    At(Timestamp),
    Never,
}

struct Wanted {
    rules: Vec<Rule>,
    comment: String,
    /// From then on no rule is made for it; `None`: always.
    worth_until: Option<Instant>,
    order: (Reverse<End>, u64),
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
            Step::Delete(rule) => rule.delete(),
            Step::Prepend(rule, comment) => rule.prepend(comment),
            Step::Update(rule, comment) => rule.update(comment),
        }
    }
}

/// The bans that have a place among the mirrored.
#[derive(Default)]
struct Chosen {
    keys: HashSet<Key>,
    rules: BTreeMap<Rule, Place>,
}

/// What the ban with the latest end, of those that a rule is part of, says.
struct Place {
    comment: String,
    worth_until: Option<Instant>,
}

/// Rules that somebody has deleted with his own hands.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ByHand {
    /// For the first time: they are put back.
    pub(super) once: Vec<Rule>,
    /// Again: they are left out.
    pub(super) again: Vec<Rule>,
}

pub(super) struct Plan {
    max_rules: usize,
    /// Somebody else enforces: not every ban needs a rule, nor at once.
    mirrors: bool,
    /// The last bans, for a surge.
    recent: VecDeque<Instant>,
    quiet_until: Option<Instant>,
    /// Wanted rules that were deleted by hand; true: more than once.
    by_hand: BTreeMap<Rule, bool>,
    /// Rules of ours that no ban wants were counted.
    counted: bool,
    /// ufw's rules were read.
    read: bool,
    wanted: HashMap<Key, Wanted>,
    /// `wanted`, the latest end first, then the oldest ban.
    order: BTreeMap<(Reverse<End>, u64), Key>,
    next_number: u64,
    /// Our rules that ufw has, with their comments.
    present: BTreeMap<Rule, String>,
    /// Of `present`, what ufw has not been seen to have since it was written.
    unseen: BTreeSet<Rule>,
    /// Wanted rules that were not seen after they were written, and how many times in a row.
    vain: BTreeMap<Rule, u32>,
    /// Somebody's call of ufw has just written over one of ours.
    overwritten: bool,
    /// Rules that differ from one of ours at most in the action, and are not ours; true: deny.
    foreign: HashMap<Rule, bool>,
    /// Of `present`, what has been lifted.
    lifted: BTreeSet<Rule>,
    settled: bool,
    chosen: Option<Chosen>,
    /// False: ufw refuses IPv6 rules.
    pub(super) ipv6: bool,
    /// False: ufw enforces nothing.
    pub(super) active: bool,
}

impl Plan {
    pub(super) fn new(max_rules: usize, mirrors: bool) -> Plan {
        Plan {
            max_rules,
            mirrors,
            recent: VecDeque::with_capacity(SURGE),
            quiet_until: None,
            by_hand: BTreeMap::new(),
            counted: false,
            read: false,
            wanted: HashMap::new(),
            order: BTreeMap::new(),
            next_number: 0,
            present: BTreeMap::new(),
            unseen: BTreeSet::new(),
            vain: BTreeMap::new(),
            overwritten: false,
            foreign: HashMap::new(),
            lifted: BTreeSet::new(),
            settled: false,
            chosen: None,
            ipv6: true,
            active: true,
        }
    }

    /// A ban that has just been made, or got a new end.
    pub(super) fn ban(&mut self, entry: &Entry, ssh: &BTreeSet<u16>, now: Instant) {
        if self.recent.len() >= SURGE {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        let first = self.recent.front().filter(|_| self.recent.len() >= SURGE);
        if first.is_some_and(|first| now.duration_since(*first) < SURGE_WITHIN) {
            self.quiet_until = Some(now + QUIET);
        }
        self.want(entry, ssh, now);
    }

    /// A ban; one that is known gets the new end.
    pub(super) fn want(&mut self, entry: &Entry, ssh: &BTreeSet<u16>, now: Instant) {
        let worth_until = |left: Duration| {
            let left = left.saturating_sub(WORTH_A_RULE);
            now.checked_add(left)
        };
        let key = (entry.net, entry.ports.clone());
        self.forget(&key);
        let order = (
            Reverse(entry.until.map_or(End::Never, End::At)),
            self.next_number,
        );
        self.next_number += 1;
        self.order.insert(order, key.clone());
        self.wanted.insert(
            key,
            Wanted {
                rules: ufw_rules::rules(entry.net, &entry.ports, ssh),
                comment: ufw_rules::comment(&entry.jail, entry.until),
                worth_until: entry.remaining.and_then(worth_until),
                order,
            },
        );
        self.chosen = None;
    }

    /// A ban is over; also one of a process before this one.
    pub(super) fn lift(&mut self, entry: &Entry, ssh: &BTreeSet<u16>) {
        let rules = match self.forget(&(entry.net, entry.ports.clone())) {
            Some(wanted) => wanted.rules,
            None => ufw_rules::rules(entry.net, &entry.ports, ssh),
        };
        self.lifted.extend(rules);
        self.chosen = None;
    }

    /// No ban is wanted any more.
    pub(super) fn forget_all(&mut self) {
        self.wanted.clear();
        self.order.clear();
        self.chosen = None;
    }

    fn forget(&mut self, key: &Key) -> Option<Wanted> {
        let wanted = self.wanted.remove(key)?;
        self.order.remove(&wanted.order);
        Some(wanted)
    }

    /// All bans have been given: rules of ours that no ban wants may go.
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }

    /// What ufw has now; what of it somebody has deleted since we looked last.
    pub(super) fn found(&mut self, added: &[Existing]) -> ByHand {
        let before = std::mem::take(&mut self.present);
        let unseen = std::mem::take(&mut self.unseen);
        self.foreign.clear();
        for existing in added {
            let Some(rule) = existing.rule() else {
                continue;
            };
            match &existing.comment {
                Some(comment) if existing.is_ours() && existing.is_deny() => {
                    self.present.insert(rule, comment.clone());
                }
                _ => {
                    self.foreign.insert(rule, existing.is_deny());
                }
            }
        }
        self.read = true;
        // All at once is `ufw reset`, which is not meant for us.
        let reset = !self.active || (before.len() > 1 && self.present.is_empty());
        let gone = before.into_keys();
        let gone = gone.filter(|rule| !reset && !self.present.contains_key(rule));
        // What never was seen there nobody has deleted: ufw's calls write over each other.
        let (overwritten, gone): (Vec<Rule>, _) = gone.partition(|rule| unseen.contains(rule));
        self.overwritten |= !overwritten.is_empty();
        self.vain.retain(|rule, _| !self.present.contains_key(rule));
        let mut found = self.deleted_by_hand(gone);
        found.again.extend(self.written_in_vain(overwritten));
        found
    }

    /// Those of them that are left out from now on.
    fn written_in_vain(&mut self, overwritten: Vec<Rule>) -> Vec<Rule> {
        let mut given_up = Vec::new();
        for rule in overwritten {
            if !self.is_missed(&rule) {
                continue;
            }
            let times = self.vain.entry(rule.clone()).or_default();
            *times += 1;
            if *times >= OVERWRITTEN {
                self.by_hand.insert(rule.clone(), true);
                given_up.push(rule);
            }
        }
        given_up
    }

    /// It is wanted, and nothing else has its place. Call after [`Plan::choose`].
    fn is_missed(&self, rule: &Rule) -> bool {
        let chosen = self.chosen.as_ref();
        chosen.is_some_and(|chosen| chosen.rules.contains_key(rule))
            && !self.foreign.contains_key(rule)
    }

    fn deleted_by_hand(&mut self, gone: Vec<Rule>) -> ByHand {
        self.choose();
        let mut found = ByHand::default();
        for rule in gone {
            if !self.is_missed(&rule) {
                continue;
            }
            match self.by_hand.insert(rule.clone(), false) {
                None => found.once.push(rule),
                Some(_) => {
                    self.by_hand.insert(rule.clone(), true);
                    found.again.push(rule);
                }
            }
        }
        found
    }

    fn is_left_out(&self, rule: &Rule) -> bool {
        self.by_hand.get(rule) == Some(&true)
    }

    /// Told once, when all bans and ufw's rules are known: how many of ours no ban wants.
    pub(super) fn strangers(&mut self) -> usize {
        if self.counted || !self.settled || !self.read {
            return 0;
        }
        self.counted = true;
        self.leaving().len()
    }

    /// A step has been done.
    pub(super) fn done(&mut self, step: Step) {
        match step {
            Step::Delete(rule) => {
                self.present.remove(&rule);
                self.unseen.remove(&rule);
            }
            Step::Prepend(rule, comment) => {
                self.unseen.insert(rule.clone());
                self.present.insert(rule, comment);
            }
            Step::Update(rule, comment) => {
                self.present.insert(rule, comment);
            }
        }
    }

    /// The next call of ufw: what goes before what comes. Rules in `aside` are left for later.
    pub(super) fn next(&mut self, aside: impl Fn(&Rule) -> bool, now: Instant) -> Option<Step> {
        if std::mem::take(&mut self.overwritten) {
            self.quiet_until = self.quiet_until.max(Some(now + GIVE_WAY));
        }
        self.choose();
        let chosen = self.chosen.as_ref()?;
        let wanted = &chosen.rules;
        let (present, settled) = (&self.present, self.settled);
        self.lifted
            .retain(|rule| !settled && present.contains_key(rule) && !wanted.contains_key(rule));
        let possible = |rule: &&Rule| (self.ipv6 || is_ipv4(rule)) && !aside(rule);
        if let Some(rule) = self.stale(chosen).find(possible) {
            return Some(Step::Delete(rule.clone()));
        }
        // Rules of a process before this one keep their places until all bans are known.
        let full = self.present.len() >= self.max_rules;
        let quiet = self.mirrors && self.quiet_until.is_some_and(|until| now < until);
        let worth = |place: &Place| !self.mirrors || place.worth_until.is_none_or(|end| now < end);
        let (rule, place) = self.in_order(chosen).find(|(rule, place)| {
            possible(rule)
                && (self.present.contains_key(*rule) || (!full && !quiet && worth(place)))
                // ufw reads its rules before it takes its lock: `ufw enable` would write over ours.
                && (self.active || !self.mirrors)
                && !self.foreign.contains_key(rule)
                && !self.is_left_out(rule)
                && self.present.get(rule) != Some(&place.comment)
        })?;
        let comment = &place.comment;
        Some(match self.present.contains_key(rule) {
            true => Step::Update(rule.clone(), comment.clone()),
            false => Step::Prepend(rule.clone(), comment.clone()),
        })
    }

    /// Every rule that ufw has and that is to go.
    pub(super) fn leaving(&mut self) -> HashSet<Rule> {
        self.choose();
        let chosen = self.chosen.as_ref();
        let stale = chosen.map(|chosen| self.stale(chosen));
        stale.into_iter().flatten().cloned().collect()
    }

    fn stale<'a>(&'a self, chosen: &'a Chosen) -> impl Iterator<Item = &'a Rule> {
        self.present
            .keys()
            .filter(|rule| !chosen.rules.contains_key(rule))
            .filter(|rule| self.settled || self.lifted.contains(rule))
    }

    /// The chosen rules, what is not there yet first.
    fn in_order<'a>(&'a self, chosen: &'a Chosen) -> impl Iterator<Item = (&'a Rule, &'a Place)> {
        let there = |(rule, _): &(&Rule, &Place)| self.present.contains_key(*rule);
        chosen
            .rules
            .iter()
            .filter(move |one| !there(one))
            .chain(chosen.rules.iter().filter(move |one| there(one)))
    }

    fn choose(&mut self) {
        if self.chosen.is_some() {
            return;
        }
        let mut chosen = Chosen::default();
        for key in self.order.values() {
            let Some(wanted) = self.wanted.get(key) else {
                continue;
            };
            let new = wanted
                .rules
                .iter()
                .filter(|rule| !chosen.rules.contains_key(rule));
            if wanted.rules.is_empty() {
                continue;
            }
            if chosen.rules.len() + new.count() > self.max_rules {
                break;
            }
            for rule in &wanted.rules {
                // The first has the latest end.
                chosen.rules.entry(rule.clone()).or_insert_with(|| Place {
                    comment: wanted.comment.clone(),
                    worth_until: wanted.worth_until,
                });
            }
            chosen.keys.insert(key.clone());
        }
        // A ban that is over takes what is known of its rules with it.
        self.by_hand
            .retain(|rule, _| chosen.rules.contains_key(rule));
        self.vain.retain(|rule, _| chosen.rules.contains_key(rule));
        self.chosen = Some(chosen);
    }

    /// Where an entry stands; `None`: it is not among the bans, or ufw cannot express it.
    pub(super) fn mirror(&mut self, entry: &Entry, now: Instant) -> Option<Mirror> {
        self.choose();
        let key = (entry.net, entry.ports.clone());
        let wanted = self.wanted.get(&key)?;
        let short = self.mirrors && wanted.worth_until.is_some_and(|end| end <= now);
        let rules = &wanted.rules;
        if rules.is_empty() {
            return None;
        }
        let chosen = self.chosen.as_ref()?;
        let there =
            |rule: &Rule| self.present.contains_key(rule) || self.foreign.get(rule) == Some(&true);
        Some(if !chosen.keys.contains(&key) {
            Mirror::Capped
        } else if !self.active || !(self.ipv6 || matches!(entry.net, IpNet::V4(_))) {
            Mirror::Inactive
        } else if rules.iter().all(there) {
            Mirror::Present
        } else if rules.iter().any(|rule| self.is_left_out(rule)) {
            Mirror::Removed
        } else if short {
            Mirror::Short
        } else {
            Mirror::Queued
        })
    }

    /// The bans that a rule is part of.
    pub(super) fn bans_of(&self, rule: &Rule) -> Vec<Target> {
        self.wanted
            .iter()
            .filter(|((net, _), wanted)| *net == rule.net && wanted.rules.contains(rule))
            .map(|((net, ports), _)| Target {
                net: *net,
                ports: ports.clone(),
            })
            .collect()
    }

    /// A wanted rule whose place a rule with another action has.
    pub(super) fn blocked(&mut self) -> Option<&Rule> {
        self.choose();
        let rules = &self.chosen.as_ref()?.rules;
        rules
            .keys()
            .find(|rule| self.foreign.get(rule) == Some(&false))
    }

    /// Whether IPv6 rules are wanted that ufw refuses.
    pub(super) fn wants_refused_ipv6(&self) -> bool {
        !self.ipv6
            && self
                .wanted
                .keys()
                .any(|(net, _)| matches!(net, IpNet::V6(_)))
    }
}

fn is_ipv4(rule: &Rule) -> bool {
    matches!(rule.net, IpNet::V4(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::ufw_rules::parse_added;

    fn entry(net: &str, tcp: &[u16], udp: &[u16], until: Option<i64>) -> Entry {
        Entry {
            net: net.parse().unwrap(),
            ports: Ports::List {
                tcp: tcp.iter().copied().collect(),
                udp: udp.iter().copied().collect(),
            },
            jail: "j".into(),
            until: until.map(|s| Timestamp::from_second(s).unwrap()),
            remaining: None,
            behind: false,
        }
    }

    /// Does all there is to do; the calls, in their order.
    fn work(plan: &mut Plan) -> Vec<String> {
        let mut calls = Vec::new();
        while let Some(step) = plan.next(|_| false, Instant::now()) {
            let argv = step.argv().join(" ");
            calls.push(argv.split(" comment ").next().unwrap().to_owned());
            plan.done(step);
            assert!(calls.len() < 1000, "no end: {calls:?}");
        }
        calls
    }

    fn want(plan: &mut Plan, entry: &Entry) {
        plan.want(entry, &BTreeSet::new(), Instant::now());
    }

    fn lift(plan: &mut Plan, entry: &Entry) {
        plan.lift(entry, &BTreeSet::new());
    }

    #[test]
    fn a_ban_lifted_before_its_turn_costs_no_call() {
        let mut plan = Plan::new(10, true);
        let one = entry("192.0.2.1/32", &[80], &[], None);
        want(&mut plan, &one);
        assert_eq!(plan.mirror(&one, Instant::now()), Some(Mirror::Queued));
        lift(&mut plan, &one);
        assert_eq!(work(&mut plan), [""; 0]);
        assert_eq!(plan.mirror(&one, Instant::now()), None);
    }

    #[test]
    fn unbans_come_before_bans() {
        let mut plan = Plan::new(10, true);
        let (one, two) = (
            entry("192.0.2.1/32", &[80], &[443], None),
            entry("192.0.2.2/32", &[80], &[], None),
        );
        want(&mut plan, &one);
        assert_eq!(work(&mut plan).len(), 2);
        assert_eq!(plan.mirror(&one, Instant::now()), Some(Mirror::Present));
        want(&mut plan, &two);
        lift(&mut plan, &one);
        assert_eq!(
            work(&mut plan),
            [
                "delete deny proto tcp from 192.0.2.1 to any port 80",
                "delete deny proto udp from 192.0.2.1 to any port 443",
                "prepend deny proto tcp from 192.0.2.2 to any port 80",
            ]
        );
    }

    #[test]
    fn a_rule_that_two_bans_share_goes_with_the_last() {
        let mut plan = Plan::new(10, true);
        let (one, two) = (
            entry("192.0.2.1/32", &[80], &[443], Some(10)),
            entry("192.0.2.1/32", &[], &[443], Some(20)),
        );
        want(&mut plan, &one);
        want(&mut plan, &two);
        assert_eq!(work(&mut plan).len(), 2);
        lift(&mut plan, &two);
        // The shared rule's comment gets the other ban's end.
        assert_eq!(
            work(&mut plan),
            ["deny proto udp from 192.0.2.1 to any port 443"]
        );
        lift(&mut plan, &one);
        assert_eq!(work(&mut plan).len(), 2);
    }

    #[test]
    fn a_new_end_changes_the_comment_where_the_rule_stands() {
        let mut plan = Plan::new(10, true);
        want(&mut plan, &entry("192.0.2.1/32", &[80], &[], Some(10)));
        work(&mut plan);
        want(&mut plan, &entry("192.0.2.1/32", &[80], &[], Some(20)));
        assert_eq!(
            work(&mut plan),
            ["deny proto tcp from 192.0.2.1 to any port 80"]
        );
    }

    #[test]
    fn the_latest_ends_have_the_places() {
        let mut plan = Plan::new(2, true);
        plan.settle();
        let bans: Vec<Entry> = (1..=3)
            .map(|n| entry(&format!("192.0.2.{n}/32"), &[80], &[], Some(n * 100)))
            .collect();
        for ban in &bans {
            want(&mut plan, ban);
            work(&mut plan);
        }
        let states: Vec<_> = bans
            .iter()
            .map(|ban| plan.mirror(ban, Instant::now()).unwrap())
            .collect();
        assert_eq!(states, [Mirror::Capped, Mirror::Present, Mirror::Present]);
        assert_eq!(plan.present.len(), 2);
        lift(&mut plan, &bans[2]);
        work(&mut plan);
        assert_eq!(plan.mirror(&bans[0], Instant::now()), Some(Mirror::Present));
    }

    #[test]
    fn after_a_restart_nothing_is_added_twice_and_what_is_stale_goes_when_settled() {
        let mut plan = Plan::new(10, true);
        plan.found(&parse_added(
            "ufw deny from 192.0.2.1 to any port 80 proto tcp comment 'pipeban:j until 1970-01-01T00:00:10Z'\n\
             ufw deny from 192.0.2.2 to any port 80 proto tcp comment 'pipeban:j until 1970-01-01T00:00:10Z'\n\
             ufw deny from 192.0.2.3 to any port 80 proto tcp\n",
        ));
        want(&mut plan, &entry("192.0.2.1/32", &[80], &[], Some(10)));
        assert_eq!(work(&mut plan), [""; 0]);
        plan.settle();
        assert_eq!(
            work(&mut plan),
            ["delete deny proto tcp from 192.0.2.2 to any port 80"]
        );
    }

    #[test]
    fn a_rule_of_a_process_before_can_be_lifted_before_settled() {
        let mut plan = Plan::new(10, true);
        plan.found(&parse_added(
            "ufw deny from 192.0.2.1 to any port 80 proto tcp comment 'pipeban:j until x'\n",
        ));
        lift(&mut plan, &entry("192.0.2.1/32", &[80], &[], None));
        assert_eq!(work(&mut plan).len(), 1);
    }

    #[test]
    fn the_administrators_own_rules_are_left_alone() {
        let mut plan = Plan::new(10, true);
        plan.found(&parse_added(
            "ufw deny from 192.0.2.1 to any port 80 proto tcp\n\
             ufw allow from 192.0.2.2 to any port 80 proto tcp\n",
        ));
        let (denied, allowed) = (
            entry("192.0.2.1/32", &[80], &[], None),
            entry("192.0.2.2/32", &[80], &[], None),
        );
        want(&mut plan, &denied);
        want(&mut plan, &allowed);
        plan.settle();
        assert_eq!(work(&mut plan), [""; 0]);
        assert_eq!(plan.mirror(&denied, Instant::now()), Some(Mirror::Present));
        assert_eq!(plan.mirror(&allowed, Instant::now()), Some(Mirror::Queued));
        assert!(plan.blocked().is_some());
        lift(&mut plan, &denied);
        assert_eq!(work(&mut plan), [""; 0]);
    }

    #[test]
    fn what_is_deleted_by_hand_comes_back_once() {
        let mut plan = Plan::new(10, true);
        let bans = [1, 2].map(|n| entry(&format!("192.0.2.{n}/32"), &[80], &[], None));
        for ban in &bans {
            want(&mut plan, ban);
        }
        work(&mut plan);
        let line = |n| {
            format!(
                "ufw deny from 192.0.2.{n} to any port 80 proto tcp comment 'pipeban:j until further notice'\n"
            )
        };
        let both = line(1) + &line(2);
        assert_eq!(plan.found(&parse_added(&both)), ByHand::default());
        // `ufw reset` deletes nothing of ours.
        assert_eq!(plan.found(&[]), ByHand::default());
        assert_eq!(work(&mut plan).len(), 2);
        assert_eq!(plan.found(&parse_added(&both)), ByHand::default());
        let found = plan.found(&parse_added(&line(2)));
        assert_eq!((found.once.len(), found.again.len()), (1, 0));
        assert_eq!(
            work(&mut plan),
            ["prepend deny proto tcp from 192.0.2.1 to any port 80"]
        );
        assert_eq!(plan.found(&parse_added(&both)), ByHand::default());
        let found = plan.found(&parse_added(&line(2)));
        assert_eq!((found.once.len(), found.again.len()), (0, 1));
        assert_eq!(work(&mut plan), [""; 0]);
        assert_eq!(plan.mirror(&bans[0], Instant::now()), Some(Mirror::Removed));
        // A new ban of the same client is a new matter.
        lift(&mut plan, &bans[0]);
        assert_eq!(work(&mut plan), [""; 0]);
        want(&mut plan, &bans[0]);
        assert_eq!(work(&mut plan).len(), 1);
    }

    #[test]
    fn what_another_call_wrote_over_is_put_back_as_often_and_nobody_is_blamed() {
        for mirrors in [true, false] {
            let mut plan = Plan::new(10, mirrors);
            let ban = entry("192.0.2.1/32", &[80], &[], None);
            want(&mut plan, &ban);
            for _ in 0..3 {
                let now = Instant::now();
                let step = plan.next(|_| false, now + GIVE_WAY).unwrap();
                assert!(matches!(step, Step::Prepend(..)));
                plan.done(step);
                assert_eq!(plan.found(&[]), ByHand::default());
                // Whoever is at work comes first.
                assert_eq!(plan.next(|_| false, now).is_some(), !mirrors);
            }
        }
    }

    #[test]
    fn a_rule_that_never_shows_is_given_up_and_one_that_does_is_counted_anew() {
        let mut plan = Plan::new(10, false);
        let ban = entry("192.0.2.1/32", &[80], &[], None);
        want(&mut plan, &ban);
        let line = "ufw deny from 192.0.2.1 to any port 80 proto tcp comment \
                    'pipeban:j until further notice'\n";
        for times in [4, 5] {
            for n in 1..=times {
                let step = plan.next(|_| false, Instant::now()).unwrap();
                assert!(matches!(step, Step::Prepend(..)), "{n}");
                plan.done(step);
                let left_out = plan.found(&[]).again.len();
                assert_eq!(left_out, usize::from(n == OVERWRITTEN), "{n}");
            }
            if times < OVERWRITTEN {
                // It shows once, and is gone when everything is.
                let step = plan.next(|_| false, Instant::now()).unwrap();
                plan.done(step);
                assert_eq!(plan.found(&parse_added(line)), ByHand::default());
                plan.present.clear();
            }
        }
        assert_eq!(plan.next(|_| false, Instant::now()), None);
        assert_eq!(plan.mirror(&ban, Instant::now()), Some(Mirror::Removed));
    }

    #[test]
    fn a_mirror_makes_no_rule_for_the_last_minutes_of_a_ban() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut ban = entry("192.0.2.1/32", &[80], &[], Some(10));
        ban.remaining = Some(Duration::from_secs(700));
        for (mirrors, at, makes) in [(true, 0, true), (true, 101, false), (false, 101, true)] {
            let mut plan = Plan::new(10, mirrors);
            plan.want(&ban, &BTreeSet::new(), now);
            assert_eq!(
                plan.next(|_| false, after(at)).is_some(),
                makes,
                "{mirrors} {at}"
            );
            let expected = if makes { Mirror::Queued } else { Mirror::Short };
            assert_eq!(
                plan.mirror(&ban, after(at)),
                Some(expected),
                "{mirrors} {at}"
            );
        }
        // What is there stays until the ban ends.
        let mut plan = Plan::new(10, true);
        plan.want(&ban, &BTreeSet::new(), now);
        plan.settle();
        work(&mut plan);
        assert_eq!(plan.next(|_| false, after(650)), None);
        assert_eq!(plan.mirror(&ban, after(650)), Some(Mirror::Present));
    }

    #[test]
    fn a_mirror_makes_no_rule_while_ufw_is_off() {
        let ban = entry("192.0.2.1/32", &[80], &[], None);
        for (mirrors, calls) in [(true, 0), (false, 1)] {
            let mut plan = Plan::new(10, mirrors);
            plan.active = false;
            want(&mut plan, &ban);
            assert_eq!(work(&mut plan).len(), calls, "{mirrors}");
            plan.active = true;
            assert_eq!(work(&mut plan).len(), 1 - calls, "{mirrors}");
            plan.active = false;
            lift(&mut plan, &ban);
            assert_eq!(work(&mut plan).len(), 1, "what is over goes");
        }
    }

    #[test]
    fn a_mirror_makes_no_rule_until_a_surge_is_long_over() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let ban = |n: u64| entry(&format!("192.0.2.{n}/32"), &[80], &[], None);
        let mut plan = Plan::new(1000, true);
        for n in 0..29 {
            plan.ban(&ban(n), &BTreeSet::new(), after(0));
        }
        assert!(plan.next(|_| false, after(0)).is_some());
        plan.ban(&ban(29), &BTreeSet::new(), after(5));
        for (at, makes) in [(5, false), (34, false), (35, true)] {
            assert_eq!(plan.next(|_| false, after(at)).is_some(), makes, "{at}");
        }
        // Rules that are to go do not wait.
        let step = plan.next(|_| false, after(40)).unwrap();
        let net = step.rule().net;
        plan.done(step);
        plan.ban(&ban(99), &BTreeSet::new(), after(5));
        lift(&mut plan, &Entry { net, ..ban(0) });
        assert!(matches!(
            plan.next(|_| false, after(6)),
            Some(Step::Delete(_))
        ));
        // One ban each second is none.
        let mut plan = Plan::new(1000, true);
        for n in 0..200 {
            plan.ban(&ban(n), &BTreeSet::new(), after(n));
            assert!(plan.next(|_| false, after(n)).is_some(), "{n}");
        }
    }

    #[test]
    fn rules_of_ours_that_no_ban_wants_are_counted_once() {
        let mut plan = Plan::new(10, true);
        want(&mut plan, &entry("192.0.2.1/32", &[80], &[], None));
        plan.settle();
        assert_eq!(plan.strangers(), 0);
        let line = |n| {
            format!(
                "ufw deny from 192.0.2.{n} to any port 80 proto tcp comment 'pipeban:j until x'\n"
            )
        };
        plan.found(&parse_added(&(line(1) + &line(2) + &line(3))));
        assert_eq!(plan.strangers(), 2);
        assert_eq!(plan.strangers(), 0);
    }

    #[test]
    fn without_ipv6_only_ipv4_rules_are_tried() {
        let mut plan = Plan::new(10, true);
        plan.ipv6 = false;
        let six = entry("2001:db8::1/128", &[80], &[], None);
        want(&mut plan, &six);
        want(&mut plan, &entry("192.0.2.1/32", &[80], &[], None));
        assert_eq!(work(&mut plan).len(), 1);
        assert!(plan.wants_refused_ipv6());
        assert_eq!(plan.mirror(&six, Instant::now()), Some(Mirror::Inactive));
    }

    proptest::proptest! {
        /// Whatever is banned and lifted in whatever order: in the end ufw has exactly the rules
        /// of the latest ends, never more than allowed on the way.
        #[test]
        fn what_ufw_has_ends_as_what_is_wanted(
            ops in proptest::collection::vec((0u8..8, 0i64..50, proptest::bool::ANY, 0usize..3), 0..40),
            max in 0usize..6,
        ) {
            let mut plan = Plan::new(max, true);
            plan.settle();
            let mut bans = HashMap::new();
            for (host, end, ban, steps) in ops {
                let e = entry(&format!("192.0.2.{host}/32"), &[80], &[], Some(end));
                if ban {
                    want(&mut plan, &e);
                    bans.insert(host, end);
                } else {
                    lift(&mut plan, &e);
                    bans.remove(&host);
                }
                for _ in 0..steps {
                    if let Some(step) = plan.next(|_| false, Instant::now()) {
                        plan.done(step);
                    }
                    proptest::prop_assert!(plan.present.len() <= max);
                }
            }
            work(&mut plan);
            proptest::prop_assert_eq!(plan.present.len(), bans.len().min(max));
            let lowest = plan.present.keys().map(|rule| {
                let host = rule.net.to_string();
                bans.iter().find(|(h, _)| host == format!("192.0.2.{h}/32")).map(|(_, e)| *e).unwrap()
            }).min();
            let mut ends: Vec<i64> = bans.values().copied().collect();
            ends.sort_unstable_by_key(|end| Reverse(*end));
            proptest::prop_assert_eq!(lowest, ends.iter().take(max).min().copied());
        }
    }
}
