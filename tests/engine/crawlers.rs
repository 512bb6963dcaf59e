//! Search engines, confirmed by a real name server in namespaces of the test.

use std::fs;

use super::exemptions::start_apart;
use super::*;
use crate::support::skip_without;

const CRAWLER_JAILS: &str = "
[jails.spare]
log = \"error\"
filter = \"f\"
maxretry = 1
[jails.late]
log = \"error\"
filter = \"f\"
maxretry = 1
[jails.fake]
log = \"error\"
filter = \"f\"
maxretry = 1
search_engines = \"ban-fake\"
[jails.sure]
log = \"error\"
filter = \"sure\"
maxretry = 10
";

/// dnsmasq answers at 127.0.0.1. At .3 each answer is SERVFAIL, at .4 there is none.
const NAMES: &str = r#"ip link set lo up && mount --bind resolv.conf /etc/resolv.conf
setpriv --pdeathsig KILL perl -MSocket -e '
    for (3, 4) { socket($s[$_], AF_INET, SOCK_DGRAM, 17) and bind($s[$_], sockaddr_in(53, inet_aton("127.0.0.$_"))) or die $! }
    open(my $ready, ">", "perl.ready"); close($ready);
    while (my $from = recv($s[3], my $query, 512, 0)) { substr($query, 2, 2) = "\x81\x82"; send($s[3], $query, 0, $from) }
' </dev/null >/dev/null 2>&1 &
setpriv --pdeathsig KILL dnsmasq --no-daemon --no-hosts --no-resolv --listen-address=127.0.0.1 \
    --bind-interfaces --cache-size=0 --local=/googlebot.com/evil.example/113.0.203.in-addr.arpa/ \
    --host-record=crawl-1.googlebot.com,203.0.113.1 --host-record=crawl-10.googlebot.com,203.0.113.10 \
    --ptr-record=2.113.0.203.in-addr.arpa,host.evil.example --host-record=host.evil.example,203.0.113.2 \
    --ptr-record=3.113.0.203.in-addr.arpa,crawl-3.googlebot.com --address=/crawl-3.googlebot.com/203.0.113.99 \
    --ptr-record=4.113.0.203.in-addr.arpa,crawl-4.googlebot.com \
    --host-record=crawl.googlebot.com.evil.example,203.0.113.5 \
    --server=/8.113.0.203.in-addr.arpa/127.0.0.3 --server=/9.113.0.203.in-addr.arpa/127.0.0.4 \
    </dev/null >dnsmasq.log 2>&1 &
dnsmasq=$!
while [ ! -e perl.ready ] || ! grep -q 0100007F:0035 /proc/net/udp; do kill -0 $dnsmasq || exit 1; sleep 0.02; done
exec "$@""#;

/// `None`: it cannot run here.
fn lab(resolver: &str) -> Option<Lab> {
    let mut lab = Lab::new();
    lab.configure(CRAWLER_JAILS);
    let sure = "[[match]]\nmessage = 'sure'\nconfidence = \"certain\"\n";
    fs::write(lab.path("filters.d/sure.toml"), sure).unwrap();
    fs::write(lab.path("search-engines.txt"), "Googlebot googlebot.com\n").unwrap();
    fs::write(lab.path("resolv.conf"), resolver).unwrap();
    let dnsmasq = Command::new("dnsmasq").arg("--version").output();
    if dnsmasq.is_err() {
        skip_without("dnsmasq");
        return None;
    }
    start_apart(&mut lab, NAMES).then_some(lab)
}

/// Sends a hit of a client that says that it is Googlebot; returns what the log says of it.
fn claim(worker: &mut Line, offset: u64, client: &str, jails: &[&str]) -> String {
    let hit = LineHit {
        claim: Some("googlebot".to_owned()),
        ..hit(offset, client, jails)
    };
    worker.send(&Request::Hits(vec![hit])).unwrap();
    worker.ack().unwrap().1.join("\n")
}

fn good_bot(lab: &Lab, client: &str) -> String {
    let answer = lab.run(&["--json", "explain", client]);
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let reasons = answer["reasons"].as_array().unwrap().iter();
    let mut of_bot = reasons.filter(|reason| reason["code"] == "good-bot");
    let text = of_bot
        .next()
        .map(|reason| reason["text"].as_str().unwrap().to_owned());
    text.unwrap_or_default()
}

#[test]
fn reverse_dns_decides_who_is_a_search_engine() {
    let Some(lab) = lab("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n") else {
        return;
    };
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    // A name elsewhere, a name that has another address or none, a name that only looks right, no
    // name; and no answer: SERVFAIL, silence.
    let false_ones = [2, 3, 4, 5, 6];
    let unknown = [8, 9];
    for n in std::iter::once(1).chain(false_ones).chain(unknown) {
        let client = format!("203.0.113.{n}");
        let logged = claim(&mut worker, n, &client, &["spare", "fake"]);
        let expected =
            ["spare", "fake"].map(|jail| format!("[{jail}] Found {client} (1/1 in 10m)"));
        assert_eq!(logged, expected.join("\n"), "the ban waits");
    }
    until("each client of `spare` is decided", || {
        lab.jail("spare")["currently_banned"] == 7
            && good_bot(&lab, "203.0.113.1").contains("crawl-1.googlebot.com")
    });
    let banned = |jail| -> Vec<String> { lab.banned(jail).into_keys().collect() };
    assert_eq!(banned("fake"), false_ones.map(|n| format!("203.0.113.{n}")));
    assert!(!lab.log().contains("Ban 203.0.113.1 "), "{}", lab.log());
    for (client, says) in [
        ("203.0.113.2", "is not: its name is `host.evil.example`"),
        (
            "203.0.113.3",
            "is not: `crawl-3.googlebot.com` has another address",
        ),
        (
            "203.0.113.4",
            "is not: `crawl-4.googlebot.com` has another address",
        ),
        (
            "203.0.113.5",
            "is not: its name is `crawl.googlebot.com.evil.example`",
        ),
        ("203.0.113.6", "is not: it has no name"),
        ("203.0.113.8", "DNS does not say whether it is"),
        ("203.0.113.9", "DNS does not say whether it is"),
    ] {
        let text = good_bot(&lab, client);
        assert!(text.contains(says), "{client}: {text}");
    }
    // Also where a line has no user agent.
    worker
        .send(&Request::Hits(vec![hit(
            20,
            "203.0.113.1",
            &["spare", "fake"],
        )]))
        .unwrap();
    let logged = worker.ack().unwrap().1.join("\n");
    let ignored = "[spare] Ignore 203.0.113.1 by search-engine\n\
                   [fake] Ignore 203.0.113.1 by search-engine";
    assert_eq!(logged, ignored);
    // The error log names no search engine: a ban waits for nothing, and ends when DNS confirms one.
    let unnamed = ["203.0.113.10", "203.0.113.2"];
    for (offset, client) in (30..).zip(unnamed) {
        worker
            .send(&Request::Hits(vec![hit(offset, client, &["late"])]))
            .unwrap();
        let logged = worker.ack().unwrap().1.join("\n");
        assert!(
            logged.contains(&format!("[late] Ban {client} for 1h")),
            "{logged}"
        );
    }
    until("the search engine is unbanned", || {
        lab.log().contains("[late] Unban 203.0.113.10")
    });
    let banned: Vec<String> = lab.banned("late").into_keys().collect();
    assert_eq!(banned, unnamed[1..]);
    // What no honest client sends bans a search engine, too.
    let mut sure = hit(40, "203.0.113.1", &["sure"]);
    sure.jails[0].2 = 10;
    worker.send(&Request::Hits(vec![sure])).unwrap();
    let logged = worker.ack().unwrap().1.join("\n");
    assert!(logged.contains("[sure] Ban 203.0.113.1 for 1h"), "{logged}");
}

#[test]
fn a_jail_with_the_filter_and_the_ignorecommand_of_fail2ban_bans_false_googlebots_only() {
    let Some(lab) = lab("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n") else {
        return;
    };
    let filter = "[Definition]\nfailregex = ^<HOST> .*\\bGooglebot/\n";
    fs::write(lab.path("filters.d/apache-fakegooglebot.conf"), filter).unwrap();
    lab.configure(
        "[jails.apache-fakegooglebot]\nlog = \"access\"\nmaxretry = 1\n\
         ignorecommand = \"/etc/fail2ban/filter.d/ignorecommands/apache-fakegooglebot <ip>\"\n\
         [jails.fake-bot]\nlog = \"access\"\nmaxretry = 1\nsearch_engines = \"ban-fake\"\n",
    );
    let (exit, text) = lab.say(&["reload"]);
    assert_eq!(exit, 0, "{text}");
    let (exit, text) = lab.say(&["check"]);
    assert!(
        exit == 0 && text.contains("forward-confirmed reverse DNS"),
        "{text}"
    );
    let log = lab.path("access.log");
    let mut logger = lab
        .command(&["log", "access"])
        .arg(&log)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = logger.stdin.take().unwrap();
    let clients = [1, 2, 3, 8].map(|n| format!("203.0.113.{n}"));
    for client in &clients {
        writeln!(
            input,
            "{client} - - [22/Nov/2026:11:00:32 +0000] \"GET / HTTP/1.1\" 200 5 \"-\" \
             \"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)\""
        )
        .unwrap();
    }
    until("DNS has answered for each client", || {
        let said = clients.iter().map(|client| good_bot(&lab, client));
        let said: Vec<String> = said.collect();
        said[0].contains("is Googlebot")
            && said[1].contains("is not")
            && said[2].contains("is not")
            && said[3].contains("does not say")
    });
    for jail in ["apache-fakegooglebot", "fake-bot"] {
        until("the false ones are banned", || {
            lab.jail(jail)["currently_banned"] == 2
        });
        let banned: Vec<String> = lab.banned(jail).into_keys().collect();
        assert_eq!(banned, clients[1..3], "{jail}");
    }
    drop(input);
    logger.wait().unwrap();
}

#[test]
fn without_an_answer_a_jail_decides_as_for_every_client_and_no_claim_is_false() {
    for (resolver, what) in [
        (
            "nameserver 127.0.0.4\noptions timeout:30 attempts:1\n",
            "no answer in time",
        ),
        (
            "nameserver 127.0.0.5\noptions timeout:1 attempts:1\n",
            "no name server",
        ),
    ] {
        let Some(lab) = lab(resolver) else { return };
        let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
        let logged = claim(&mut worker, 1, "203.0.113.1", &["spare", "fake"]);
        assert!(!logged.contains("Ban"), "{what}: {logged}");
        until("it is banned", || {
            lab.jail("spare")["currently_banned"] == 1
        });
        assert_eq!(lab.jail("fake")["currently_banned"], 0, "{what}");
        // A hit without a claim waits for nothing.
        worker
            .send(&Request::Hits(vec![hit(2, "203.0.113.77", &["spare"])]))
            .unwrap();
        let logged = worker.ack().unwrap().1.join("\n");
        assert!(logged.contains("Ban 203.0.113.77"), "{what}: {logged}");
    }
}
