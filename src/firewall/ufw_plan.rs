//! Which ufw rules there should be, and the one thing to do next. No input or output.
//!
//! What is wanted and what is there are compared anew after each step, so a ban that is lifted
//! before its turn costs no call, and one rule that two bans share goes with the last of them.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ipnet::IpNet;
use jiff::Timestamp;

use super::cut::Target;
use super::ufw_rules::{self, Existing, Rule};
use super::{Entry, Mirror};
use crate::config::Ports;

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
    rules: BTreeMap<Rule, String>,
}

pub(super) struct Plan {
    max_rules: usize,
    wanted: HashMap<Key, Wanted>,
    /// `wanted`, the latest end first, then the oldest ban.
    order: BTreeMap<(Reverse<End>, u64), Key>,
    next_number: u64,
    /// Our rules that ufw has, with their comments.
    present: BTreeMap<Rule, String>,
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
    pub(super) fn new(max_rules: usize) -> Plan {
        Plan {
            max_rules,
            wanted: HashMap::new(),
            order: BTreeMap::new(),
            next_number: 0,
            present: BTreeMap::new(),
            foreign: HashMap::new(),
            lifted: BTreeSet::new(),
            settled: false,
            chosen: None,
            ipv6: true,
            active: true,
        }
    }

    /// A ban; one that is known gets the new end.
    pub(super) fn want(&mut self, entry: &Entry, ssh: &BTreeSet<u16>) {
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

    /// What ufw has now.
    pub(super) fn found(&mut self, added: &[Existing]) {
        self.present.clear();
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
    }

    /// A step has been done.
    pub(super) fn done(&mut self, step: Step) {
        match step {
            Step::Delete(rule) => {
                self.present.remove(&rule);
            }
            Step::Prepend(rule, comment) | Step::Update(rule, comment) => {
                self.present.insert(rule, comment);
            }
        }
    }

    /// The next call of ufw: what goes before what comes. Rules in `aside` are left for later.
    pub(super) fn next(&mut self, aside: impl Fn(&Rule) -> bool) -> Option<Step> {
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
        let (rule, comment) = self.in_order(chosen).find(|(rule, comment)| {
            possible(rule)
                && (!full || self.present.contains_key(*rule))
                && !self.foreign.contains_key(rule)
                && self.present.get(rule) != Some(comment)
        })?;
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
    fn in_order<'a>(&'a self, chosen: &'a Chosen) -> impl Iterator<Item = (&'a Rule, &'a String)> {
        let there = |(rule, _): &(&Rule, &String)| self.present.contains_key(*rule);
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
                chosen
                    .rules
                    .entry(rule.clone())
                    .or_insert_with(|| wanted.comment.clone());
            }
            chosen.keys.insert(key.clone());
        }
        self.chosen = Some(chosen);
    }

    /// Where an entry stands; `None`: it is not among the bans, or ufw cannot express it.
    pub(super) fn mirror(&mut self, entry: &Entry) -> Option<Mirror> {
        self.choose();
        let key = (entry.net, entry.ports.clone());
        let rules = &self.wanted.get(&key)?.rules;
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
        while let Some(step) = plan.next(|_| false) {
            let argv = step.argv().join(" ");
            calls.push(argv.split(" comment ").next().unwrap().to_owned());
            plan.done(step);
            assert!(calls.len() < 1000, "no end: {calls:?}");
        }
        calls
    }

    fn want(plan: &mut Plan, entry: &Entry) {
        plan.want(entry, &BTreeSet::new());
    }

    fn lift(plan: &mut Plan, entry: &Entry) {
        plan.lift(entry, &BTreeSet::new());
    }

    #[test]
    fn a_ban_lifted_before_its_turn_costs_no_call() {
        let mut plan = Plan::new(10);
        let one = entry("192.0.2.1/32", &[80], &[], None);
        want(&mut plan, &one);
        assert_eq!(plan.mirror(&one), Some(Mirror::Queued));
        lift(&mut plan, &one);
        assert_eq!(work(&mut plan), [""; 0]);
        assert_eq!(plan.mirror(&one), None);
    }

    #[test]
    fn unbans_come_before_bans() {
        let mut plan = Plan::new(10);
        let (one, two) = (
            entry("192.0.2.1/32", &[80], &[443], None),
            entry("192.0.2.2/32", &[80], &[], None),
        );
        want(&mut plan, &one);
        assert_eq!(work(&mut plan).len(), 2);
        assert_eq!(plan.mirror(&one), Some(Mirror::Present));
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
        let mut plan = Plan::new(10);
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
        let mut plan = Plan::new(10);
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
        let mut plan = Plan::new(2);
        plan.settle();
        let bans: Vec<Entry> = (1..=3)
            .map(|n| entry(&format!("192.0.2.{n}/32"), &[80], &[], Some(n * 100)))
            .collect();
        for ban in &bans {
            want(&mut plan, ban);
            work(&mut plan);
        }
        let states: Vec<_> = bans.iter().map(|ban| plan.mirror(ban).unwrap()).collect();
        assert_eq!(states, [Mirror::Capped, Mirror::Present, Mirror::Present]);
        assert_eq!(plan.present.len(), 2);
        lift(&mut plan, &bans[2]);
        work(&mut plan);
        assert_eq!(plan.mirror(&bans[0]), Some(Mirror::Present));
    }

    #[test]
    fn after_a_restart_nothing_is_added_twice_and_what_is_stale_goes_when_settled() {
        let mut plan = Plan::new(10);
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
        let mut plan = Plan::new(10);
        plan.found(&parse_added(
            "ufw deny from 192.0.2.1 to any port 80 proto tcp comment 'pipeban:j until x'\n",
        ));
        lift(&mut plan, &entry("192.0.2.1/32", &[80], &[], None));
        assert_eq!(work(&mut plan).len(), 1);
    }

    #[test]
    fn the_administrators_own_rules_are_left_alone() {
        let mut plan = Plan::new(10);
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
        assert_eq!(plan.mirror(&denied), Some(Mirror::Present));
        assert_eq!(plan.mirror(&allowed), Some(Mirror::Queued));
        assert!(plan.blocked().is_some());
        lift(&mut plan, &denied);
        assert_eq!(work(&mut plan), [""; 0]);
    }

    #[test]
    fn without_ipv6_only_ipv4_rules_are_tried() {
        let mut plan = Plan::new(10);
        plan.ipv6 = false;
        let six = entry("2001:db8::1/128", &[80], &[], None);
        want(&mut plan, &six);
        want(&mut plan, &entry("192.0.2.1/32", &[80], &[], None));
        assert_eq!(work(&mut plan).len(), 1);
        assert!(plan.wants_refused_ipv6());
        assert_eq!(plan.mirror(&six), Some(Mirror::Inactive));
    }

    proptest::proptest! {
        /// Whatever is banned and lifted in whatever order: in the end ufw has exactly the rules
        /// of the latest ends, never more than allowed on the way.
        #[test]
        fn what_ufw_has_ends_as_what_is_wanted(
            ops in proptest::collection::vec((0u8..8, 0i64..50, proptest::bool::ANY, 0usize..3), 0..40),
            max in 0usize..6,
        ) {
            let mut plan = Plan::new(max);
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
                    if let Some(step) = plan.next(|_| false) {
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
