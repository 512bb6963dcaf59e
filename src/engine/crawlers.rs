//! Clients whose user agent names a search engine, and what reverse DNS says about them.
//!
//! A hit with such a user agent makes a look-up. While there is no verdict a hit counts, and the
//! ban that it leads to waits, for [`PATIENCE`] at most. Such bans are not made and lifted again: that
//! would cut a crawler's connections and run hooks that report it to others. The error log has no user
//! agents: a ban from it waits for nothing, makes a look-up and is lifted if that confirms the client.
//! The count is stored
//! before the hit is acknowledged, so an engine that is killed meanwhile bans at the next hit.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::crawler_check::{CrawlerCheck, Engines, Verdict};
use crate::config::{Config, JailName, SearchEngine, SearchEngines};
use crate::control::{KnownCrawler, LineHit};
use crate::jail::{BanId, Claim, Moment, Now, household, unmap};

/// A jail waits so long for a verdict.
const PATIENCE: Duration = Duration::from_secs(5);

/// A verdict lasts so long.
const LIFE: Duration = Duration::from_secs(86_400);

/// A client without a verdict is looked up again each minute for so long.
const TRIES: Duration = Duration::from_secs(3_600);

/// Clients known at most.
const MAX_CLIENTS: usize = 10_000;

/// Clients known at most of one IPv6 /64.
const MAX_OF_HOUSEHOLD: usize = 16;

/// Bans, and hits that wait, remembered at most of one client.
const MAX_KEPT: usize = 8;

/// A hit that was counted and waits for a verdict.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) stream: u64,
    pub(super) unproven: bool,
    pub(super) line: LineHit,
    /// The jail, the pattern and the weight.
    pub(super) rule: (JailName, u32, u32),
}

#[derive(Debug)]
struct Client {
    /// The search engine that its user agent named, or that it is; `None`: no user agent named one.
    engine: Option<String>,
    /// `None`: the first look-up is not over.
    verdict: Option<Verdict>,
    /// When it was looked up first, and when the verdict came.
    asked: Moment,
    answered: Now,
    held: Vec<Held>,
    /// Bans that would not exist had it been confirmed before.
    bans: Vec<BanId>,
}

impl Client {
    fn is_stale(&self, now: Moment) -> bool {
        match self.verdict {
            Some(Verdict::Yes(..) | Verdict::No(_)) => now.since(self.answered.boot) >= LIFE,
            Some(Verdict::Unknown(_)) | None => now.since(self.asked) >= TRIES,
        }
    }

    fn is_confirmed(&self) -> bool {
        matches!(self.verdict, Some(Verdict::Yes(..)))
    }
}

#[derive(Debug)]
pub(super) struct Crawlers {
    check: CrawlerCheck,
    /// Empty: no look-up is made.
    engines: Engines,
    clients: BTreeMap<IpAddr, Client>,
    /// When the patience with each look-up ends.
    due: VecDeque<(Moment, IpAddr)>,
}

impl Crawlers {
    pub(super) fn new(check: CrawlerCheck) -> Crawlers {
        Crawlers {
            check,
            engines: Engines::from([]),
            clients: BTreeMap::new(),
            due: VecDeque::new(),
        }
    }

    /// Takes a configuration into use. `search_engines = "ban"` in `[defaults]` is the switch.
    pub(super) fn configure(&mut self, config: &Config) {
        let engines = match config.defaults.search_engines {
            SearchEngines::Ban => Engines::from([]),
            _ => config.search_engines.clone().into(),
        };
        if engines != self.engines {
            self.engines = engines;
            self.clients.clear();
        }
    }

    /// Looks the client of a line up if its user agent names a search engine and no verdict is known.
    pub(super) fn note(&mut self, line: &LineHit, now: Now) {
        let (addr, boot) = (unmap(line.client), now.boot);
        let named = |engine: &&SearchEngine| {
            let claim = line.claim.as_ref();
            claim.is_some_and(|claim| claim.eq_ignore_ascii_case(&engine.name))
        };
        let Some(engine) = self.engines.iter().find(named) else {
            return;
        };
        let name = Some(engine.name.clone());
        if let Some(known) = self.clients.get_mut(&addr)
            && !known.is_stale(boot)
        {
            known.engine = known.engine.take().or(name);
            return;
        }
        self.look_up(addr, name, now);
    }

    fn look_up(&mut self, addr: IpAddr, engine: Option<String>, now: Now) {
        let boot = now.boot;
        let home = household(addr);
        let neighbours = self.clients.range(home.network()..=home.broadcast());
        if !self.clients.contains_key(&addr) && neighbours.count() >= MAX_OF_HOUSEHOLD
            || !self.check.ask(addr, &self.engines)
        {
            return;
        }
        let client = Client {
            engine,
            verdict: None,
            asked: boot,
            answered: now,
            held: Vec::new(),
            bans: Vec::new(),
        };
        self.clients.insert(addr, client);
        self.due.push_back((boot.plus(PATIENCE), addr));
        if self.clients.len() > MAX_CLIENTS {
            // No attacker can be confirmed.
            let clients = self.clients.iter().filter(|(other, _)| **other != addr);
            let oldest = clients.min_by_key(|(_, client)| (client.is_confirmed(), client.asked));
            let oldest = oldest.map(|(addr, _)| *addr);
            oldest.and_then(|addr| self.clients.remove(&addr));
        }
    }

    /// What a jail makes of a hit of this client. `certain`: no honest client sends it.
    pub(super) fn claim(
        &self,
        client: IpAddr,
        policy: SearchEngines,
        certain: bool,
        now: Moment,
    ) -> Claim {
        let known = self.clients.get(&unmap(client));
        let known = known.filter(|client| client.engine.is_some() && !client.is_stale(now));
        let patient = known
            .is_some_and(|client| client.verdict.is_none() && now.since(client.asked) < PATIENCE);
        match (policy, known.and_then(|client| client.verdict.as_ref())) {
            (SearchEngines::Ban, _) => Claim::None,
            (SearchEngines::Spare, _) if certain => Claim::None,
            (_, Some(Verdict::Yes(..))) => Claim::Confirmed,
            (_, Some(Verdict::No(_))) => Claim::None,
            (SearchEngines::Spare, _) if !patient => Claim::None,
            (SearchEngines::Spare | SearchEngines::BanFake, _) => Claim::Open,
        }
    }

    /// Keeps a hit that waits: the last one of each jail.
    pub(super) fn hold(&mut self, held: Held) {
        if let Some(client) = self.clients.get_mut(&unmap(held.line.client)) {
            client.held.retain(|other| other.rule.0 != held.rule.0);
            if client.held.len() < MAX_KEPT {
                client.held.push(held);
            }
        }
    }

    /// Notes a ban of a client that may be a search engine. `unnamed`: it is from the error log.
    pub(super) fn note_ban(&mut self, client: IpAddr, ban: BanId, unnamed: bool, now: Now) {
        let addr = unmap(client);
        let known = self.clients.get(&addr);
        if unnamed
            && !self.engines.is_empty()
            && known.is_none_or(|client| client.is_stale(now.boot))
        {
            self.look_up(addr, None, now);
        }
        let client = self.clients.get_mut(&addr);
        let open = |client: &&mut Client| {
            !matches!(client.verdict, Some(Verdict::Yes(..) | Verdict::No(_)))
        };
        if let Some(client) = client.filter(open)
            && client.bans.len() < MAX_KEPT
        {
            client.bans.push(ban);
        }
    }

    /// The hits to be decided now, and the bans of confirmed search engines.
    pub(super) fn poll(&mut self, now: Now) -> (Vec<Held>, Vec<(IpAddr, BanId)>) {
        let (mut decided, mut bans) = (Vec::new(), Vec::new());
        while let Some((addr, verdict)) = self.check.next() {
            let Some(client) = self.clients.get_mut(&addr) else {
                continue;
            };
            if let Verdict::Yes(engine, _) = &verdict {
                client.engine = Some(engine.clone());
            }
            client.verdict = Some(verdict);
            client.answered = now;
            if client.is_confirmed() {
                bans.extend(client.bans.drain(..).map(|ban| (addr, ban)));
            }
            decided.append(&mut client.held);
        }
        while let Some((_, addr)) = self.due.pop_front_if(|(due, _)| *due <= now.boot) {
            if let Some(client) = self.clients.get_mut(&addr) {
                decided.append(&mut client.held);
            }
        }
        (decided, bans)
    }

    /// Forgets what is too old, and asks again where there was no answer.
    pub(super) fn each_minute(&mut self, now: Moment) {
        self.clients.retain(|_, client| !client.is_stale(now));
        for (addr, client) in &self.clients {
            let unknown = matches!(client.verdict, Some(Verdict::Unknown(_)));
            if unknown && !self.check.ask(*addr, &self.engines) {
                break;
            }
        }
    }

    /// For `pipeban explain`.
    pub(super) fn known(&self, client: IpAddr) -> Option<KnownCrawler> {
        let known = self.clients.get(&unmap(client))?;
        let engine = known.engine.clone()?;
        let (confirmed, text) = match &known.verdict {
            Some(Verdict::Yes(_, name)) => (Some(true), name.clone()),
            Some(Verdict::No(why)) => (Some(false), why.clone()),
            Some(Verdict::Unknown(why)) => (None, why.clone()),
            None => (None, "the look-up has no answer yet".to_owned()),
        };
        Some(KnownCrawler {
            engine,
            confirmed,
            text,
            at: known.answered.wall,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::evidence::tests::hit;
    use crate::engine::run::now;

    const CLIENT: &str = "203.0.113.9";

    fn line(client: &str, claim: Option<&str>) -> LineHit {
        LineHit {
            client: client.parse().unwrap(),
            claim: claim.map(str::to_owned),
            ..hit("")
        }
    }

    fn held(jail: &str) -> Held {
        Held {
            stream: 1,
            unproven: false,
            line: line(CLIENT, None),
            rule: (jail.parse().unwrap(), 1, 1),
        }
    }

    fn crawlers() -> (Crawlers, super::super::crawler_check::tests::Dns) {
        let (check, dns) = CrawlerCheck::by_hand();
        let mut crawlers = Crawlers::new(check);
        crawlers.configure(&Config {
            search_engines: vec![SearchEngine {
                name: "Googlebot".to_owned(),
                domains: vec!["googlebot.com".to_owned()],
            }],
            ..Config::default()
        });
        (crawlers, dns)
    }

    fn later(now: Now, seconds: u64) -> Now {
        Now {
            boot: now.boot.plus(Duration::from_secs(seconds)),
            ..now
        }
    }

    fn yes() -> Verdict {
        Verdict::Yes("Googlebot".to_owned(), "crawl.googlebot.com".to_owned())
    }

    #[test]
    fn each_verdict_decides_what_a_jail_does() {
        use SearchEngines::{Ban, BanFake, Spare};
        let (unknown, no) = (Verdict::Unknown(String::new()), Verdict::No(String::new()));
        // verdict, seconds since the claim, and what follows for: spare, spare and certain, ban, fake
        for (verdict, seconds, expected) in [
            (
                None,
                0,
                [Claim::Open, Claim::None, Claim::None, Claim::Open],
            ),
            (
                None,
                5,
                [Claim::None, Claim::None, Claim::None, Claim::Open],
            ),
            (
                Some(unknown),
                1,
                [Claim::None, Claim::None, Claim::None, Claim::Open],
            ),
            (Some(no), 1, [Claim::None; 4]),
            (
                Some(yes()),
                1,
                [Claim::Confirmed, Claim::None, Claim::None, Claim::Confirmed],
            ),
            (
                Some(yes()),
                86_399,
                [Claim::Confirmed, Claim::None, Claim::None, Claim::Confirmed],
            ),
            (
                Some(yes()),
                86_400,
                [Claim::None, Claim::None, Claim::None, Claim::Open],
            ),
        ] {
            let ((mut crawlers, dns), start) = (crawlers(), now());
            crawlers.note(&line(CLIENT, Some("googlebot")), start);
            let client = dns.asked().unwrap();
            if let Some(verdict) = verdict.clone() {
                dns.answer(client, verdict);
                let _ = crawlers.poll(start);
            }
            let at = later(start, seconds).boot;
            let found = [
                (Spare, false),
                (Spare, true),
                (Ban, false),
                (BanFake, false),
            ]
            .map(|(policy, certain)| crawlers.claim(client, policy, certain, at));
            assert_eq!(found, expected, "{verdict:?} after {seconds} s");
        }
    }

    #[test]
    fn only_a_claim_makes_a_look_up_and_one_client_only_one() {
        let ((mut crawlers, dns), start) = (crawlers(), now());
        crawlers.note(&line(CLIENT, None), start);
        crawlers.note(&line(CLIENT, Some("bingbot")), start);
        assert_eq!(dns.asked(), None);
        for _ in 0..3 {
            crawlers.note(&line(CLIENT, Some("Googlebot")), start);
        }
        assert_eq!((dns.asked(), dns.asked()), (CLIENT.parse().ok(), None));
        for n in 0..100 {
            crawlers.note(&line(&format!("2001:db8::{n}"), Some("Googlebot")), start);
        }
        let asked = std::iter::from_fn(|| dns.asked()).count();
        assert_eq!(asked, MAX_OF_HOUSEHOLD);
        // a day later
        crawlers.note(&line(CLIENT, Some("Googlebot")), later(start, 90_000));
        assert_eq!(dns.asked(), CLIENT.parse().ok());
        // the switch
        let mut off = Config::default();
        off.defaults.search_engines = SearchEngines::Ban;
        crawlers.configure(&off);
        crawlers.note(&line("192.0.2.77", Some("Googlebot")), start);
        assert_eq!(dns.asked(), None);
    }

    #[test]
    fn a_full_table_loses_the_oldest_client_that_is_not_confirmed() {
        let ((mut crawlers, dns), start) = (crawlers(), now());
        crawlers.note(&line(CLIENT, Some("Googlebot")), start);
        dns.answer(dns.asked().unwrap(), yes());
        let _ = crawlers.poll(start);
        for n in 0..=u32::try_from(MAX_CLIENTS).unwrap() {
            let client = std::net::Ipv4Addr::from(0x0100_0000 + n).to_string();
            crawlers.note(&line(&client, Some("Googlebot")), later(start, 1));
            assert!(dns.asked().is_some());
        }
        assert_eq!(crawlers.clients.len(), MAX_CLIENTS);
        assert!(crawlers.known(CLIENT.parse().unwrap()).is_some());
    }

    #[test]
    fn a_hit_waits_for_the_verdict_or_for_five_seconds() {
        let ((mut crawlers, dns), start) = (crawlers(), now());
        crawlers.note(&line(CLIENT, Some("Googlebot")), start);
        for jail in ["a", "b", "a"] {
            crawlers.hold(held(jail));
        }
        let jails = |held: Vec<Held>| -> Vec<String> {
            held.into_iter()
                .map(|held| held.rule.0.to_string())
                .collect()
        };
        assert!(jails(crawlers.poll(later(start, 4)).0).is_empty());
        assert_eq!(jails(crawlers.poll(later(start, 5)).0), ["b", "a"]);
        crawlers.hold(held("a"));
        assert!(jails(crawlers.poll(later(start, 6)).0).is_empty());
        dns.answer(CLIENT.parse().unwrap(), Verdict::No(String::new()));
        assert_eq!(jails(crawlers.poll(later(start, 7)).0), ["a"]);
    }

    #[test]
    fn a_ban_without_a_verdict_ends_when_a_later_look_up_confirms_the_client() {
        let ((mut crawlers, dns), start) = (crawlers(), now());
        let client: IpAddr = CLIENT.parse().unwrap();
        crawlers.note(&line(CLIENT, Some("Googlebot")), start);
        let unknown = Verdict::Unknown("time-out".to_owned());
        dns.answer(dns.asked().unwrap(), unknown);
        let _ = crawlers.poll(start);
        crawlers.note_ban(client, BanId::new(7), false, start);
        for minute in 1..60 {
            crawlers.each_minute(later(start, minute * 60).boot);
            assert_eq!(dns.asked(), Some(client), "{minute}");
        }
        dns.answer(client, yes());
        let (_, bans) = crawlers.poll(later(start, 3_590));
        assert_eq!(bans, [(client, BanId::new(7))]);
        let known = crawlers.known(client).unwrap();
        assert_eq!(
            (known.confirmed, known.text.as_str()),
            (Some(true), "crawl.googlebot.com")
        );
    }

    #[test]
    fn a_ban_from_the_error_log_makes_a_look_up_that_delays_nothing() {
        let ((mut crawlers, dns), start) = (crawlers(), now());
        let client: IpAddr = CLIENT.parse().unwrap();
        crawlers.note_ban(client, BanId::new(6), false, start);
        assert_eq!(dns.asked(), None, "the access log names a search engine");
        crawlers.note_ban(client, BanId::new(7), true, start);
        crawlers.note_ban(client, BanId::new(8), true, start);
        assert_eq!((dns.asked(), dns.asked()), (Some(client), None));
        let claim = |crawlers: &Crawlers, policy| crawlers.claim(client, policy, false, start.boot);
        assert_eq!(claim(&crawlers, SearchEngines::Spare), Claim::None);
        assert!(crawlers.known(client).is_none());
        dns.answer(client, yes());
        let (_, bans) = crawlers.poll(start);
        assert_eq!(bans, [7, 8].map(|ban| (client, BanId::new(ban))));
        assert_eq!(claim(&crawlers, SearchEngines::Spare), Claim::Confirmed);
        // Who has claimed nothing is not false.
        let other: IpAddr = "203.0.113.10".parse().unwrap();
        crawlers.note_ban(other, BanId::new(9), true, start);
        dns.answer(other, Verdict::No(String::new()));
        let _ = crawlers.poll(start);
        let fake =
            |crawlers: &Crawlers| crawlers.claim(other, SearchEngines::BanFake, false, start.boot);
        assert_eq!(fake(&crawlers), Claim::Open);
        crawlers.note(&line("203.0.113.10", Some("googlebot")), start);
        assert_eq!(fake(&crawlers), Claim::None);
    }
}
