//! Decides: jails, exemptions, streams and the emergency stop in, a [`Decision`] out. Performs
//! nothing but reads of the host's addresses and of the emergency stop's file.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::alarms::Check;
use super::answered::Answered;
use super::client_naming::ClientNamings;
use super::confirmations::Unlogged;
use super::crawlers::{Crawlers, Held};
use super::decision::Decision;
use super::evidence::Evidence;
use super::exemptions::Exemptions;
use super::new_bans::NewBans;
use super::off::EmergencyStop;
use super::shared_address_alarm::SharedAddressAlarm;
use super::streams::Streams;
use crate::alert::{Severity, words};
use crate::config::{Config, JailName, SearchEngines};
use crate::control::LineHit;
use crate::filter::PatternAt;
use crate::filter::rules::ANSWERED;
use crate::jail::{Action, Bans, Claim, End, Exempt, Hit, Jails, Moment, Now, Reason, Why, single};
use crate::record::Kind;
use crate::store::Op;

/// Log lines sent back with one acknowledgement: enough for a rehearsal by hand.
const MAX_LINES: usize = 100;

pub(super) struct Decider {
    pub(super) config: Arc<Config>,
    pub(super) jails: Jails,
    pub(super) exemptions: Exemptions,
    pub(super) streams: Streams,
    pub(super) stop: EmergencyStop,
    /// Who may name a client.
    pub(super) namings: ClientNamings,
    /// Bans that are logged when it is known whether their clients are confirmed.
    pub(super) unlogged: Unlogged,
    /// Clients whose user agents name a search engine.
    pub(super) crawlers: Crawlers,
    evidence: Evidence,
    answered: Answered,
    shared_addresses: SharedAddressAlarm,
    /// Hits for jails that are not configured.
    unknown_jails: u64,
    new_bans: NewBans,
}

/// Where a hit is from.
#[derive(Clone, Copy)]
struct Source {
    stream: u64,
    /// See [`Hit::unproven`].
    unproven: bool,
    /// It was counted before, and waited for a verdict of `crawlers`.
    is_held: bool,
}

/// What came of hits of one stream.
pub(super) struct Decided {
    pub(super) decision: Decision,
    /// Acknowledged when the decision is committed; `None`: there were no hits.
    pub(super) offset: Option<u64>,
    /// For the worker: what the hits led to.
    pub(super) log_lines: Vec<String>,
}

impl Decider {
    pub(super) fn new(
        config: Arc<Config>,
        exemptions: Exemptions,
        crawlers: Crawlers,
        stop: EmergencyStop,
    ) -> Decider {
        let mut decider = Decider {
            jails: Jails::new(&config),
            config,
            exemptions,
            crawlers,
            streams: Streams::default(),
            stop,
            namings: ClientNamings::default(),
            unlogged: Unlogged::default(),
            evidence: Evidence::default(),
            answered: Answered::default(),
            shared_addresses: SharedAddressAlarm::default(),
            unknown_jails: 0,
            new_bans: NewBans::default(),
        };
        decider.exemptions.configure(&decider.config);
        decider.crawlers.configure(&decider.config);
        decider
    }

    /// Takes a configuration into use.
    pub(super) fn configure(&mut self, config: Arc<Config>) -> Decision {
        self.jails.configure(&config);
        self.exemptions.configure(&config);
        self.crawlers.configure(&config);
        self.namings.reload();
        self.config = config;
        let mut decision = Decision::default();
        let exempt = self.exemptions.current();
        decision.add(self.jails.release(&exempt));
        decision
    }

    /// What the firewall is to hold: nothing while the emergency stop is on.
    pub(super) fn in_force(&self) -> Option<&Bans> {
        (!self.stop.is_on()).then(|| self.jails.bans())
    }

    /// Decides about hits of one stream, in order; what was decided before is skipped.
    /// `confirmable`: access records reach pipeban.
    pub(super) fn hits(
        &mut self,
        (stream, kind): (u64, Kind),
        hits: &[LineHit],
        confirmable: bool,
        now: Now,
    ) -> Decided {
        // An access line is a record of its client; scripts can imitate error lines.
        let unproven = confirmable && kind == Kind::Error;
        let exempt = self.exemptions.current();
        let mut decided = Decided {
            decision: Decision::default(),
            offset: hits.iter().map(|hit| hit.offset).max(),
            log_lines: Vec::new(),
        };
        let known = self.streams.decided(stream);
        let mut last = known;
        let mut counted: HashMap<JailName, HashSet<IpNet>> = HashMap::new();
        for line in hits {
            if last.is_some_and(|last| line.offset <= last) {
                continue;
            }
            last = Some(line.offset);
            self.crawlers.note(line, now);
            for (jail, pattern, weight) in &line.jails {
                let settings = self.jails.settings(jail);
                if settings.is_none_or(|settings| settings.log != kind) {
                    self.unknown_jails += 1;
                    continue;
                }
                if *weight == 0 {
                    for (jail, net) in self.succeed((jail, *pattern), line, &exempt) {
                        counted.entry(jail).or_default().insert(net);
                    }
                    continue;
                }
                // The jail's totals change whatever is decided.
                counted.entry(jail.clone()).or_default();
                if self.stop.is_on() {
                    self.jails.count_only(jail);
                    if decided.log_lines.is_empty() {
                        decided.log_lines.extend(self.stop.warning());
                    }
                    continue;
                }
                let rule = (jail, *pattern, *weight);
                let from = Source {
                    stream,
                    unproven,
                    is_held: false,
                };
                for (jail, net) in self.hit(from, line, rule, &exempt, now, &mut decided) {
                    counted.entry(jail).or_default().insert(net);
                }
            }
        }
        for (jail, changed) in counted {
            self.store_counters(&mut decided.decision, jail, changed);
        }
        if let Some(offset) = last
            && last != known
        {
            self.streams.decide(stream, offset, now);
            decided.decision.ops.push(Op::Stream { stream, offset });
        }
        decided
    }

    /// A success of a client; returns the counters that are cleared.
    fn succeed(
        &mut self,
        (jail, pattern): (&JailName, u32),
        line: &LineHit,
        exempt: &Exempt,
    ) -> Vec<(JailName, IpNet)> {
        let config = Arc::clone(&self.config);
        let mut cleared = Vec::new();
        for jail in config.cleared(jail, pattern) {
            if let Some(net) = self.jails.succeed(jail, line.client, exempt) {
                self.evidence.take(jail, net);
                cleared.push((jail.clone(), net));
            }
        }
        cleared
    }

    /// Decides about a hit of one jail; returns the counters that changed.
    fn hit(
        &mut self,
        from: Source,
        line: &LineHit,
        (jail, pattern, weight): (&JailName, u32, u32),
        exempt: &Exempt,
        now: Now,
        decided: &mut Decided,
    ) -> Vec<(JailName, IpNet)> {
        let rule = self.config.rule(jail, pattern);
        let class = rule.and_then(|rule| rule.class.clone());
        let settings = self.jails.settings(jail);
        let unnamed = settings.is_some_and(|jail| jail.log == Kind::Error);
        let spares = settings.map_or(SearchEngines::Ban, |jail| jail.search_engines);
        let certain = rule.is_some_and(|rule| rule.certain.is_some_and(|least| weight >= least));
        let claim = match from.is_held {
            true => Claim::Decided,
            false => self.crawlers.claim(line.client, spares, certain, now.boot),
        };
        let proxies = &self.config.trusted_proxies;
        let hit = Hit {
            forgeable: self.namings.is_forgeable(line, proxies),
            jail,
            client: line.client,
            peer: self.namings.peer(line, exempt, &self.config.firewall),
            unproven: from.unproven,
            claim,
            weight,
            spoofable: rule.is_some_and(|rule| rule.spoofable),
            surge: self.new_bans.are_too_many(from.stream, now.boot),
            arrived: Moment::from_nanos(i64::try_from(line.arrived).unwrap_or(i64::MAX)),
        };
        let observed = self.jails.observe(&hit, now, exempt);
        let mut classes: Vec<&str> = class.as_deref().into_iter().collect();
        if !from.is_held && Answered::is_one(line, class.as_deref(), weight) {
            self.answered
                .note(line, class.as_deref().unwrap_or_default(), now.boot);
            classes.push(ANSWERED);
        }
        if claim == Claim::Open {
            self.crawlers.hold(Held {
                stream: from.stream,
                unproven: from.unproven,
                line: line.clone(),
                rule: (jail.clone(), pattern, weight),
            });
        }
        let noted = observed.changed.iter().filter(|_| !from.is_held);
        for (jail, net) in noted {
            // Another jail than the hit's counts its bans.
            let pattern = if *jail == *hit.jail { pattern } else { 0 };
            let rule = (pattern, classes.as_slice());
            self.evidence.note(jail, *net, now.wall, line, rule);
        }
        let evidence_of_bans = self.evidence_of(&observed.actions);
        for action in &observed.actions {
            let is_shared = || self.jails.is_shared(&single(line.client), now);
            let bans = (!self.stop.is_on()).then(|| self.jails.bans());
            self.shared_addresses
                .note(action, line, bans, is_shared, now.boot);
            self.unknown_jails += u64::from(*action == Action::NoSuchJail);
            if decided.log_lines.len() < MAX_LINES {
                decided
                    .log_lines
                    .extend(words(action).map(|(_, line)| line));
            }
            if let Action::Ban(ban) = action {
                self.new_bans.note(from.stream, ban, now.boot);
                if spares == SearchEngines::Spare && !certain {
                    self.crawlers.note_ban(line.client, ban.id, unnamed, now);
                }
            }
        }
        decided.decision.add(observed.actions);
        // Behind the bans: it adds to their rows.
        decided.decision.ops.extend(evidence_of_bans);
        observed.changed
    }

    /// Decides what waited to know whether a client is a search engine.
    fn decide_claims(&mut self, now: Now) -> Decision {
        let (held, bans) = self.crawlers.poll(now);
        let mut decided = Decided {
            decision: Decision::default(),
            offset: None,
            log_lines: Vec::new(),
        };
        for (client, ban) in bans {
            let (why, entry) = (Why::SearchEngine, single(client));
            let end = End::Exempt(Reason { why, entry });
            let Some((action, (jail, net))) = self.jails.unban_named(ban, end) else {
                continue;
            };
            if let Action::Unban { ban, .. } = &action {
                self.jails.forget_one(ban);
            }
            decided.decision.add([action]);
            self.store_counters(&mut decided.decision, jail, [net]);
        }
        if held.is_empty() || self.stop.is_on() {
            return decided.decision;
        }
        let exempt = self.exemptions.current();
        for held in held {
            let (jail, pattern, weight) = &held.rule;
            let Some(settings) = self.jails.settings(jail) else {
                continue;
            };
            let policy = settings.search_engines;
            let from = Source {
                stream: held.stream,
                unproven: held.unproven,
                is_held: true,
            };
            let rule = (jail, *pattern, *weight);
            match self
                .crawlers
                .claim(held.line.client, policy, false, now.boot)
            {
                Claim::Open => self.crawlers.hold(held),
                Claim::Confirmed => {}
                Claim::None | Claim::Decided => {
                    for (jail, net) in self.hit(from, &held.line, rule, &exempt, now, &mut decided)
                    {
                        self.store_counters(&mut decided.decision, jail, [net]);
                    }
                }
            }
        }
        decided.decision
    }

    /// Has the store keep what led to these bans.
    pub(super) fn evidence_of(&mut self, actions: &[Action]) -> Vec<Op> {
        let mut ops = Vec::new();
        for action in actions {
            if let Action::Ban(ban) = action {
                let evidence = self.evidence.take(&ban.jail, ban.net);
                let rule = self.rule_name(&ban.jail, evidence.pattern);
                ops.push(evidence.of_ban(ban.id, rule));
            }
        }
        ops
    }

    fn rule_name(&self, jail: &JailName, pattern: u32) -> Option<String> {
        let filter = &self.config.jails.get(jail)?.filter;
        let filter = self.config.filters.get(filter)?;
        filter.rule_name(PatternAt::Fail(pattern))
    }

    /// Forgets the evidence against clients that are not banned.
    pub(super) fn forget_evidence(&mut self, net: &IpNet) {
        self.evidence.forget(net);
    }

    /// A worker saw that many browsers use an address.
    pub(super) fn learn_shared(&mut self, addr: IpAddr, now: Now) {
        self.jails.learn_shared(addr, now);
        self.shared_addresses.learn_shared(addr);
    }

    /// Has the store keep what a jail counts now.
    pub(super) fn store_counters(
        &self,
        decision: &mut Decision,
        jail: JailName,
        changed: impl IntoIterator<Item = IpNet>,
    ) {
        let findtime = self.jails.settings(&jail).map(|jail| jail.findtime);
        for net in changed {
            decision.ops.push(Op::Counter {
                jail: jail.clone(),
                net,
                hits: self.jails.counted(&jail, &net),
                findtime: findtime.unwrap_or_default(),
            });
        }
        let totals = self.jails.totals(&jail);
        decision.ops.push(Op::Totals { jail, totals });
    }

    /// What time and other processes have changed since the last turn.
    pub(super) fn turn(&mut self, now: Now) -> Decision {
        let mut decision = self.decide_claims(now);
        let next_end = self.jails.bans().next_end();
        if next_end.is_some_and(|end| end <= now.boot) {
            decision.add(self.jails.expire(now));
        }
        for net in self.exemptions.expire(now.boot) {
            decision.ops.push(Op::Disallow(net));
            let text = format!("{net} is off the allow-list: its time is over");
            decision.log(Severity::Notice, text);
        }
        self.log_unconfirmed(Some(now), &mut decision);
        if self.stop.is_over(now) {
            self.switch_on(&mut decision);
        }
        decision
    }

    /// Ends bans of addresses that have become exempt; notices `pipeban off` and `on` of processes
    /// that could not reach the engine.
    pub(super) fn each_second(&mut self, now: Now, decision: &mut Decision) {
        if let Some(exempt) = self.exemptions.poll() {
            decision.add(self.jails.release(&exempt));
        }
        if self.stop.changed_by_file(now) {
            match self.stop.is_on() {
                true => self.stopped(decision),
                false => self.switch_on(decision),
            }
        }
    }

    /// Forgets what no longer counts.
    pub(super) fn each_minute(&mut self, now: Now, decision: &mut Decision) {
        self.jails.sweep(now);
        self.crawlers.each_minute(now.boot);
        decision.ops.push(self.prune());
    }

    /// Deletes what `[store]` does not keep.
    pub(super) fn prune(&self) -> Op {
        let keep = self.config.store.keep;
        Op::Prune { keep }
    }

    /// Switches the emergency stop on; returns an error text if that ends with this engine.
    pub(super) fn switch_off(
        &mut self,
        length: Option<Duration>,
        now: Now,
        decision: &mut Decision,
    ) -> Option<String> {
        let error = self.stop.begin(length, now).map(str::to_owned);
        self.stopped(decision);
        error
    }

    /// The emergency stop was switched on: bans leave the firewall, and their time goes on.
    pub(super) fn stopped(&mut self, decision: &mut Decision) {
        decision.replace = true;
        if let Some(text) = self.stop.warning() {
            decision.log(Severity::Err, text);
        }
    }

    /// Ends the emergency stop.
    pub(super) fn switch_on(&mut self, decision: &mut Decision) {
        self.stop.end();
        decision.replace = true;
        let text = "banning again: the emergency stop is over";
        decision.log(Severity::Notice, text.to_owned());
    }

    /// Whether each ban also gets a rule of ufw's.
    pub(super) fn has_ufw_rules(&self) -> bool {
        let firewall = &self.config.firewall;
        firewall.mirrors_to_ufw() && firewall.max_rules > 0
    }

    pub(super) fn checks(&mut self, now: Now) -> Vec<Check> {
        let (clients, bans) = self.jails.dropped();
        let dropped = (clients + bans > 0).then(|| {
            format!(
                "too many clients: {clients} counters and {bans} bans were dropped, the oldest \
                 first"
            )
        });
        let shared = self.shared_addresses.text(now.boot);
        let near = self.shared_addresses.near_text(now.boot);
        let behind = self.shared_addresses.behind_text(now.boot);
        let mut checks = vec![
            ("bounds", Severity::Warning, dropped),
            ("shared", Severity::Warning, shared),
            ("near", Severity::Warning, near),
            ("answered", Severity::Warning, self.answered.text(now.boot)),
            ("behind", Severity::Warning, behind),
            ("new-bans", Severity::Err, self.new_bans.alarm(now.boot)),
            self.stop.check(),
        ];
        checks.extend(self.exemptions.checks());
        checks.extend(self.namings.checks());
        checks
    }

    /// Hits for jails that are not configured, since the start.
    pub(super) fn unknown_jails(&self) -> u64 {
        self.unknown_jails
    }
}
