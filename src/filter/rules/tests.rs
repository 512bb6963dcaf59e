use std::cell::RefCell;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;

use super::{Confidence, RuleSet, Scratch, read};
use crate::filter::matcher::{InputKind, Matcher, Rule};
use crate::record::{Kind, Parser};

const FILE: &str = "filters.d/x.toml";

fn set(text: &str) -> RuleSet {
    let rules = read(Path::new(FILE), text).unwrap_or_else(|found| panic!("{found:?}"));
    RuleSet::compile(&[vec![rules]])
}

/// Rules of `text` that hit this request, each with its weight.
fn hits(text: &str, request: &str) -> Vec<(u32, Confidence, u32)> {
    let line = format!(
        "192.0.2.9 - - [22/Nov/2026:11:00:32 +0000] \"{request}\" 404 196 \"http://ref.example/\" \
         \"Mozilla/5.0\""
    );
    of_line(Kind::Access, text, &line)
}

fn of_line(kind: Kind, text: &str, line: &str) -> Vec<(u32, Confidence, u32)> {
    let set = set(text);
    let parser = Parser::new(kind, "auto").unwrap();
    let record = parser.parse(line.as_bytes()).expect(line);
    let mut scratch = Scratch::default();
    let hits = set.evaluate(&record, &mut scratch);
    assert_eq!(hits, set.evaluate_each(&record), "{line}");
    // What is remembered of harmless texts changes nothing.
    assert_eq!(hits, set.evaluate(&record, &mut scratch), "{line}");
    hits.iter()
        .map(|hit| (hit.rule, hit.confidence, hit.weight))
        .collect()
}

fn numbers(text: &str, request: &str) -> Vec<u32> {
    hits(text, request)
        .into_iter()
        .map(|(rule, ..)| rule)
        .collect()
}

#[test]
fn a_claim_is_a_whole_word_of_the_user_agent() {
    let words = || ["Googlebot", "AdsBot-Google"].into_iter();
    let filter = super::claims("fake-bot", words());
    let rule = Rule {
        jail: Some("fake-bot".parse().unwrap()),
        filter: "fake-bot",
        definition: &filter,
        vhost: &[],
        not_vhost: &[],
        except: "",
        findtime: std::time::Duration::from_secs(600),
    };
    let parser = Parser::new(Kind::Access, "combined").unwrap();
    let matcher = Matcher::new(&[rule], InputKind::Apache(Kind::Access, parser));
    let matcher = matcher.with_claims(words());
    for (client, agent, claim) in [
        (
            1,
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            Some("Googlebot"),
        ),
        (2, "GOOGLEBOT", Some("GOOGLEBOT")),
        (3, "Googlebot-Image/1.0", Some("Googlebot")),
        (
            4,
            "AdsBot-Google (+http://www.google.com/adsbot.html)",
            Some("AdsBot-Google"),
        ),
        (5, "NotGooglebot/1.0", None),
        (6, "Googlebots", None),
        (7, "Mozilla/5.0 (X11; Linux x86_64)", None),
        // the same of the same client
        (
            1,
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            None,
        ),
    ] {
        let line = format!(
            "192.0.2.{client} - - [22/Nov/2026:11:00:32 +0000] \"GET /Googlebot HTTP/1.1\" 200 5 \"Googlebot\" \"{agent}\"\n"
        );
        let found = matcher.examine(line.as_bytes());
        let hits = found.hits.iter().map(|hit| hit.claim.as_deref());
        assert_eq!(hits.flatten().next(), claim, "{agent}");
        assert_eq!(found.hits.len(), usize::from(claim.is_some()), "{agent}");
    }
}

#[test]
fn an_except_and_a_distinct_field_are_checked() {
    for (text, message) in [
        (
            "[[match]]\npath = 'a'\n[[except]]\npath = 'b'\nweight = 2\n",
            "conditions and samples",
        ),
        (
            "[[match]]\npath = 'a'\n[[clear]]\npath = 'b'\nclass = 'x'\n",
            "`[[clear]]` holds conditions",
        ),
        ("[[clear]]\npath = 'b'\n", "no `[[match]]`"),
        (
            "[[except]]\nnot = { path = 'b' }\n[[match]]\npath = 'a'\n",
            "`[[except]]` needs",
        ),
        ("distinct = 'status'\n[[match]]\npath = 'a'\n", "one text"),
        (
            "log = 'error'\ndistinct = 'user'\n[[match]]\nlevel = 'a'\n",
            "no `user`",
        ),
        (
            "distinct = 'paths'\n[[match]]\npath = 'a'\n",
            "unknown variant",
        ),
    ] {
        let problems = read(Path::new(FILE), text).unwrap_err();
        assert!(
            problems[0].message.contains(message),
            "{text}: {problems:?}"
        );
    }
}

#[test]
fn every_field_can_be_a_condition() {
    for (condition, request, expected) in [
        ("method = ['POST', 'PUT']", "POST /x HTTP/1.1", true),
        ("method = ['POST', 'PUT']", "GET /x HTTP/1.1", false),
        (
            "path = '^/wp-login\\.php$'",
            "GET /WP-login.php?a HTTP/1.1",
            true,
        ),
        (
            "path = '^/wp-login\\.php$'",
            "GET /%77p-login.php HTTP/1.1",
            true,
        ),
        (
            "path = '^/wp-login\\.php$'",
            "GET /?/wp-login.php HTTP/1.1",
            false,
        ),
        (
            "path = { prefix = ['/a/', '/b/'], suffix = ['.php'] }",
            "GET /b/x.php HTTP/1.1",
            true,
        ),
        (
            "path = { prefix = ['/a/', '/b/'], suffix = ['.php'] }",
            "GET /b/x.png HTTP/1.1",
            false,
        ),
        (
            "path = { contains = ['.php'] }",
            "GET /aphp HTTP/1.1",
            false,
        ),
        ("query = 'abc'", "GET /abc?x HTTP/1.1", false),
        ("query = 'abc'", "GET /x?a%62c HTTP/1.1", true),
        ("url = 'abc'", "GET /abc?x HTTP/1.1", true),
        ("url = '^/a\\?b$'", "GET //a?b HTTP/1.1", true),
        ("url = '^/a/b\\?b$'", "GET /./a/x/..//b?b HTTP/1.1", true),
        ("url = '^/a\\?b$'", "GET http://host/a?b HTTP/1.1", true),
        ("url = '^/x/\\.\\./a'", "GET /x/../a?b HTTP/1.1", true),
        (
            "path = '^/a$'",
            "GET HTTPS://host/x/%2e%2e/a?b HTTP/1.1",
            true,
        ),
        ("path = '^/a$'", "GET /?u=http://host/a HTTP/1.1", false),
        ("url = 'cat /etc'", "GET /?x=c'a't+/e\\\\tc HTTP/1.1", true),
        ("payload = 'ref\\.example'", "GET / HTTP/1.1", false),
        ("referer = '^http://ref'", "GET / HTTP/1.1", true),
        ("user_agent = ['mozilla/5.0']", "GET / HTTP/1.1", true),
        ("protocol = ['HTTP/1.0']", "GET / HTTP/1.0", true),
        ("request = '^\\\\x16'", "\\x16\\x03\\x01", true),
        ("status = 404", "GET / HTTP/1.1", true),
        ("status = [200, '400-499']", "GET / HTTP/1.1", true),
        ("status = ['500-']", "GET / HTTP/1.1", false),
        ("bytes = '-195'", "GET / HTTP/1.1", false),
        ("port = 80", "GET / HTTP/1.1", false),
        (
            "path = '/a'\nnot = { path = '/ab' }",
            "GET /ab HTTP/1.1",
            false,
        ),
        (
            "path = '/a'\nnot = { path = '/ab', status = 200 }",
            "GET /ac HTTP/1.1",
            true,
        ),
    ] {
        let found = numbers(&format!("[[match]]\n{condition}"), request);
        assert_eq!(found == [1], expected, "{condition} on {request}");
    }
}

#[test]
fn not_spares_only_the_parameters_that_it_matches() {
    let in_query = "query = 'abc'\nnot = { query = 'ok' }";
    let whole = "query = 'abc'\nnot = { query = '^a=abc$' }";
    let in_payload = "payload = 'abc'\nnot = { payload = 'ok|^/wiki/' }";
    let of_request = "query = 'abc'\nnot = { path = '^/wiki/' }";
    let alone = "method = ['GET']\nnot = { query = 'ok' }";
    let of_path = "path = 'abc'\nnot = { path = '^/wiki/|/dav/' }";
    let of_page = "status = 404\nnot = { path = '\\.css$' }";
    for (conditions, request, expected) in [
        (in_query, "GET /?a=abc HTTP/1.1", true),
        (in_query, "GET /?a=abc+ok HTTP/1.1", false),
        (in_query, "GET /?a=abc%26ok HTTP/1.1", false),
        (in_query, "GET /?a=abc+o'k' HTTP/1.1", true),
        (in_query, "GET /?a=abc&b=ok HTTP/1.1", true),
        (whole, "GET /?a=abc HTTP/1.1", false),
        (whole, "GET /?a=abc&b=c HTTP/1.1", false),
        (whole, "GET /?a=abc&b=abcd HTTP/1.1", true),
        (in_query, "GET /?ok&a=abc HTTP/1.1", true),
        (in_query, "GET /?a=abc&b=ok+abc HTTP/1.1", true),
        (in_query, "GET /?a=abc+ok&b=ok+abc HTTP/1.1", false),
        (in_payload, "GET /?a=abc&b=ok HTTP/1.1", true),
        (in_payload, "GET /?a=abc+%6fk HTTP/1.1", false),
        (in_payload, "GET /wiki/abc?a=b HTTP/1.1", false),
        (in_payload, "GET /wiki/abc?a=abc HTTP/1.1", true),
        (of_request, "GET /wiki/?a=abc HTTP/1.1", false),
        (of_request, "GET /wiki/../?a=abc HTTP/1.1", true),
        (
            of_request,
            "GET /../x/..%2fwiki/b/../?a=abc HTTP/1.1",
            false,
        ),
        (of_request, "GET /wiki/x/?a=abc HTTP/1.1", false),
        (of_request, "GET http://host/wiki/?a=abc HTTP/1.1", false),
        (of_page, "GET /a.css HTTP/1.1", false),
        (of_page, "GET /index.php/a.css HTTP/1.1", true),
        (of_page, "GET /a.PHP/../a.css HTTP/1.1", false),
        (of_path, "GET /remote.php/dav/abc HTTP/1.1", false),
        (of_path, "GET http://dav/dav.php/abc HTTP/1.1", true),
        (alone, "GET /?a=b HTTP/1.1", true),
        (alone, "GET /?a=b&ok HTTP/1.1", false),
    ] {
        let found = numbers(&format!("[[match]]\n{conditions}"), request);
        assert_eq!(found == [1], expected, "{conditions} on {request}");
    }
    let text = format!("[[match]]\n{in_payload}");
    for (referer, agent, expected) in [
        ("abc", "ok", true),
        ("abc ok", "-", false),
        ("abc ok", "abc", true),
    ] {
        let line = format!(
            "192.0.2.9 - - [22/Nov/2026:11:00:32 +0000] \"GET /ok HTTP/1.1\" 404 196 \"{referer}\" \
             \"{agent}\""
        );
        let found = of_line(Kind::Access, &text, &line);
        assert_eq!(found.len() == 1, expected, "{line}");
    }
    let line = "[Sun Nov 22 11:00:33.366318 2026] [core:info] [pid 1:tid 2] [client 192.0.2.9:1] \
                AH00128: File does not exist: /a/abc/ok";
    assert!(of_line(Kind::Error, &text, line).is_empty());
}

#[test]
fn an_except_is_about_what_apache_serves() {
    for (except, request, expected) in [
        ("path = '^/intern/'", "GET /intern/?a=abc HTTP/1.1", false),
        ("path = '^/intern/'", "GET //intern/?a=abc HTTP/1.1", false),
        (
            "path = '^/intern/'",
            "GET /intern/../x?a=abc HTTP/1.1",
            true,
        ),
        (
            "path = '^/intern/'",
            "GET /intern/%2e%2e/x?a=abc HTTP/1.1",
            true,
        ),
        ("url = '^/intern/'", "GET /intern/../x?a=abc HTTP/1.1", true),
        ("url = '^/intern/'", "GET /intern/x?a=abc HTTP/1.1", false),
    ] {
        let text = format!("[[match]]\nquery = 'abc'\n[[except]]\n{except}\n");
        let set = set(&text);
        let line =
            format!("192.0.2.9 - - [22/Nov/2026:11:00:32 +0000] \"{request}\" 404 196 \"-\" \"-\"");
        let parser = Parser::new(Kind::Access, "combined").unwrap();
        let record = parser.parse(line.as_bytes()).unwrap();
        let hits = set.evaluate(&record, &mut Scratch::default());
        let excepted = hits.iter().any(|hit| hit.excepts);
        assert_eq!(!excepted, expected, "{except} on {request}");
    }
}

#[test]
fn a_payload_is_seen_in_headers_unless_a_browser_sends_such() {
    let text = "[[match]]\npayload = 'abc|; ?id'";
    for (referer, agent, expected) in [
        ("-", "Mozilla/5.0 (X11; Linux x86_64; de) Gecko", false),
        // A language.
        ("-", "Mozilla/5.0 (Linux; id) Gecko", false),
        ("-", "Mozilla/5.0 (X' ;id;) Gecko", true),
        ("-", "Mozilla/5.0 (X11; 1 abc; x) Gecko", true),
        ("-", "Mozilla/5.0 (<?abc) Gecko", true),
        ("-", "Mozilla/5.0 (X11) abc", true),
        ("https://ref.example/?q=abc", "-", false),
        ("https://ref.example/\\xc3\\xa9?q=abc", "-", false),
        ("https://ref.example/?q=abc <a>", "-", false),
        ("https://ref.example/?id=abc <a>&q=x", "-", true),
        ("https://ref.example/<?q=abc", "-", true),
        ("https://ref.example/ abc", "-", true),
        ("https://ref.example/${abc}", "-", true),
        ("https://ref.example/\\\"abc", "-", true),
        ("abc", "-", true),
    ] {
        let line = format!(
            "192.0.2.9 - - [22/Nov/2026:11:00:32 +0000] \"GET / HTTP/1.1\" 404 196 \"{referer}\" \
             \"{agent}\""
        );
        let found = of_line(Kind::Access, text, &line);
        assert_eq!(found.len() == 1, expected, "{line}");
    }
}

#[test]
fn the_error_log_has_fields_too() {
    let line = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 1:tid 2] [client \
                192.0.2.9:49108] AH10244: invalid URI path (/cgi-bin/.%2e/.%2e/bin/sh), referer: \
                http://ref.example/";
    for (condition, expected) in [
        ("code = ['AH10244']", true),
        ("code = ['AH10245']", false),
        ("module = ['core']\nlevel = ['error']", true),
        ("port = 49108", true),
        ("path = '^/cgi-bin/\\.\\./\\.\\./bin/sh$'", true),
        ("url = 'cgi-bin/\\.\\./\\.\\./bin'", true),
        ("referer = '^http://ref\\.example/$'", true),
        ("message = '^invalid URI path \\('", true),
        ("message = 'ref\\.example'", false),
        ("status = 404", false),
    ] {
        let found = of_line(Kind::Error, &format!("[[match]]\n{condition}"), line);
        assert_eq!(!found.is_empty(), expected, "{condition}");
    }
}

/// mod_qos knows a client before Apache does, and after.
#[test]
fn a_message_of_mod_qos_begins_with_its_name() {
    let rule = "[[match]]\nmodule = ['qos']\nmessage = '^mod_qos\\(\\d+\\): access denied'";
    for text in [
        "[client 192.0.2.9:1] mod_qos(010): access denied, QS_LocRequestLimit rule: /(2), c=192.0.2.9",
        "mod_qos(031): access denied, QS_SrvMaxConnPerIP rule: max=2, c=192.0.2.9",
        "mod_qos.c(2000): mod_qos(031): access denied, c=192.0.2.9",
    ] {
        let line = format!("[Sun Nov 22 11:00:33.366318 2026] [qos:error] [pid 1:tid 2] {text}");
        assert_eq!(of_line(Kind::Error, rule, &line).len(), 1, "{line}");
    }
}

/// Its jail hits nothing, and tells the others where the client is.
#[test]
fn a_file_may_have_clients_alone() {
    let text = "[[client]]\nmodule = 'mymod'\nbegins = 'My module: '";
    let rules = read(Path::new(FILE), text).unwrap();
    assert_eq!((rules.rules.len(), rules.clients.len()), (0, 1));
}

#[test]
fn a_not_spares_few_parameters_one_by_one() {
    let rule = "[[match]]\nquery = 'evil'\nnot = { query = '(?:^|&)a=evil(?:&|$)' }";
    for (before, hits) in [(0, false), (199, false), (200, true), (2_000, true)] {
        let request = format!("GET /?{}a=evil HTTP/1.1", "b=1&".repeat(before));
        assert_eq!(!numbers(rule, &request).is_empty(), hits, "{before}");
    }
}

#[test]
fn a_script_that_php_does_not_find_has_a_path_and_a_status() {
    let line = "[Sun Nov 22 11:00:33.366318 2026] [php:error] [pid 1:tid 2] [client \
                192.0.2.9:49108] script '/srv/a/x.php' not found or unable to stat, referer: \
                http://ref.example/";
    for (condition, expected) in [
        ("path = '^/srv/a/x\\.php$'", true),
        ("status = 404", true),
        ("referer = '^http://ref\\.example/$'", true),
        ("code = '.'", false),
    ] {
        let found = of_line(Kind::Error, &format!("[[match]]\n{condition}"), line);
        assert_eq!(!found.is_empty(), expected, "{condition}");
    }
    let printed = line.replace("script '", "a script '");
    assert!(of_line(Kind::Error, "[[match]]\npath = '/'", &printed).is_empty());
}

#[test]
fn weights_follow_the_confidence_and_a_search_is_never_certain() {
    let text = "confidence = 'certain'\n[[match]]\nurl = '<script'\n[[match]]\nconfidence = \
                'probe'\nurl = '<script'\n[[match]]\nweight = 7\nurl = '<script'\n";
    let certain = |weight| (Confidence::Certain, weight);
    for (request, first, third) in [
        ("GET /?id=%3Cscript HTTP/1.1", certain(10), certain(7)),
        ("GET /%3Cscript?q=x HTTP/1.1", certain(10), certain(7)),
        (
            "GET /?a=1&q=%3Cscript HTTP/1.1",
            (Confidence::Probe, 1),
            (Confidence::Probe, 1),
        ),
        (
            "GET /?draw=1&Search%5Bvalue%5D=%3Cscript HTTP/1.1",
            (Confidence::Probe, 1),
            (Confidence::Probe, 1),
        ),
        (
            "GET /suche?begriff=%3Cscript HTTP/1.1",
            (Confidence::Probe, 1),
            (Confidence::Probe, 1),
        ),
        (
            "GET /odata/Orders?$top=3&$filter=%3Cscript HTTP/1.1",
            (Confidence::Probe, 1),
            (Confidence::Probe, 1),
        ),
        ("GET /?password=%3Cscript HTTP/1.1", certain(10), certain(7)),
        (
            "GET /t.php?url=https%3A%2F%2Fwww.example.org%2F%3Fs%3D%253Cscript HTTP/1.1",
            (Confidence::Probe, 1),
            (Confidence::Probe, 1),
        ),
        (
            "GET /go?url=https://www.example.org/?s=%3Cscript HTTP/1.1",
            (Confidence::Probe, 1),
            (Confidence::Probe, 1),
        ),
        (
            "GET /blog/search/%3Cscript/ HTTP/1.1",
            (Confidence::Probe, 1),
            (Confidence::Probe, 1),
        ),
        (
            "GET /search/node?keys=%3Cscript HTTP/1.1",
            (Confidence::Probe, 1),
            (Confidence::Probe, 1),
        ),
        (
            "GET /log?v=3&errorMessage=%3Cscript HTTP/1.1",
            (Confidence::Probe, 1),
            (Confidence::Probe, 1),
        ),
        (
            "GET /hledat?Hledat=%3Cscript HTTP/1.1",
            (Confidence::Probe, 1),
            (Confidence::Probe, 1),
        ),
        ("GET /tag/x/%3Cscript HTTP/1.1", certain(10), certain(7)),
        (
            "GET /search/a%2Fb+%3Cscript HTTP/1.1",
            (Confidence::Probe, 1),
            (Confidence::Probe, 1),
        ),
        ("GET /tag/%2e%3Cscript HTTP/1.1", certain(10), certain(7)),
        ("GET /tag/a%2f..%3Cscript HTTP/1.1", certain(10), certain(7)),
        ("GET /tag/%24%7B%3Cscript HTTP/1.1", certain(10), certain(7)),
        // No address of a page has these in its query.
        (
            "GET /?u=https%3A%2F%2Fx%3Fa%3D%3Cscript HTTP/1.1",
            certain(10),
            certain(7),
        ),
        (
            "GET /?u=https%3A%2F%2Fx%3F%253Cscript HTTP/1.1",
            certain(10),
            certain(7),
        ),
        (
            "GET /?u=https://x?a='%3Cscript HTTP/1.1",
            certain(10),
            certain(7),
        ),
        (
            "GET /tag/%3Cscript?title=%3Cscript HTTP/1.1",
            (Confidence::Probe, 1),
            (Confidence::Probe, 1),
        ),
        (
            "GET /search/x?id=%3Cscript HTTP/1.1",
            certain(10),
            certain(7),
        ),
        (
            "GET /?url=https%3A%2F%2Fwww.example.org%2F%3Cscript HTTP/1.1",
            certain(10),
            certain(7),
        ),
        (
            "GET /?url=https://www.example.org/%3Fs=<script HTTP/1.1",
            certain(10),
            certain(7),
        ),
    ] {
        let mut expected = vec![(1, first.0, first.1)];
        if first.0 == Confidence::Certain {
            expected.push((2, Confidence::Probe, 2));
        }
        expected.push((3, third.0, third.1));
        assert_eq!(hits(text, request), expected, "{request}");
    }
    assert_eq!(hits("[[match]]\npath = '/a'", "GET /a HTTP/1.1")[0].2, 1);
    let text = "class = 'shellshock'\nconfidence = 'certain'\n[[match]]\nquery = 'abc'";
    assert_eq!(hits(text, "GET /?q=abc HTTP/1.1")[0].2, 10);
    // A filter that states no confidence is about searches, if anything.
    assert_eq!(
        hits("[[match]]\nquery = 'ab'", "GET /?q=ab HTTP/1.1")[0].2,
        1
    );
}

#[test]
fn what_is_sql_by_design_is_not_seen_by_rules_about_sql() {
    let sql = "class = 'sql-injection'\nconfidence = 'certain'\n[[match]]\nquery = 'union'";
    let other = "confidence = 'certain'\n[[match]]\nquery = 'union'";
    for (query, about_sql, others) in [
        ("where_clause=union", None, Some(1)),
        ("a=1&sql_query=union&SQL=union", None, Some(1)),
        ("sql_query=union&id=union", Some(10), Some(10)),
        ("q=SELECT+union", None, Some(1)),
        ("q=union", Some(1), Some(1)),
        // A `;` ends a parameter; no browser leaves one, or a quote, as it is.
        ("sql=1;file=union", Some(10), Some(10)),
        ("sql=1%3Bfile%3Dunion", None, Some(1)),
        ("q=1;file=union", Some(10), Some(10)),
        ("where=%22union", None, Some(1)),
        ("where=\\\"union", Some(10), Some(10)),
    ] {
        let request = format!("GET /?{query} HTTP/1.1");
        let weight = |text| hits(text, &request).first().map(|hit| hit.2);
        assert_eq!(weight(sql), about_sql, "{query}");
        assert_eq!(weight(other), others, "{query}");
    }
}

/// A page's parameter for the error of a script is what a script calls it.
#[test]
fn free_text_has_one_of_a_few_names() {
    let text = "confidence = 'certain'\n[[match]]\nquery = 'abc'";
    for (name, weight) in [
        ("error_description", 1),
        ("errorMsg", 1),
        ("_q", 1),
        ("searchword", 1),
        ("error_page", 10),
        ("terror", 10),
        ("search_page", 10),
        ("searchFile", 10),
    ] {
        let found = hits(text, &format!("GET /?{name}=abc HTTP/1.1"));
        assert_eq!(found[0].2, weight, "{name}");
    }
}

#[test]
fn a_rule_of_several_filters_is_tried_once_and_numbered_in_each() {
    let file = |name: &str, text| read(Path::new(name), text).unwrap();
    let (a, b) = (
        file("a", "[[match]]\npath = '/abc'"),
        file("b", "[[match]]\npath = '/a'"),
    );
    let error = file("c", "log = 'error'\n[[match]]\npath = '/a'");
    let set = RuleSet::compile(&[vec![a.clone()], vec![error, b, a]]);
    let line = "192.0.2.9 - - [22/Nov/2026:11:00:32 +0000] \"GET /abc HTTP/1.1\" 404 196";
    let parser = Parser::new(Kind::Access, "common").unwrap();
    let hits = set.evaluate(
        &parser.parse(line.as_bytes()).unwrap(),
        &mut Scratch::default(),
    );
    let found: Vec<_> = hits.iter().map(|hit| (hit.filter, hit.rule)).collect();
    assert_eq!(found, [(0, 1), (1, 3), (1, 2)]);
}

#[test]
fn every_error_has_its_place() {
    for (text, expected) in [
        ("", ": the filter has no `[[match]]` and no `include`"),
        (
            "[[match]]\nstatus = 404\npaht = 'x'",
            ":3:1: unknown field `paht`",
        ),
        (
            "[[match]]\npath = 5",
            ":2:8: expected a regex, a list of words",
        ),
        (
            "[[match]]\npath = { sufix = ['x'] }",
            ":2:8: expected a regex, a list",
        ),
        (
            "[[match]]\npath = '(x'",
            ":2:8: the pattern is not valid: unclosed group",
        ),
        (
            "[[match]]\npath = 'x*'",
            ":2:8: the pattern matches every text",
        ),
        (
            "[[match]]\nquery = '(?:a{1000}){1000}'",
            ":2:9: the pattern is too large",
        ),
        ("[[match]]\nstatus = '5xx'", ":2:10: `5xx` is not a range"),
        ("[[match]]\nstatus = ['9-5']", ":2:10: `9-5` is not a range"),
        (
            "[[match]]\nnot = { path = '/x' }",
            ":1:1: `[[match]]` needs a condition",
        ),
        (
            "[[match]]\npath = '/x'\nnot = { weight = 5 }",
            ":3:7: `not` holds conditions only",
        ),
        (
            "weight = 0\n[[match]]\npath = '/x'",
            ":1:10: `weight` must be 1 to 1000",
        ),
        ("confidence = 'sure'", ":1:14: unknown variant `sure`"),
        (
            "[[match]]\npath = '/x'\nnot = 3",
            ":3:7: invalid type: integer `3`, expected a table of conditions",
        ),
        ("[[match]]\nstatus = 200-300", ":2:10: not valid TOML: "),
        (
            "[[match]]\npath = '/x'\nhit = 3",
            ":3:7: expected a text, or a list of texts",
        ),
        (
            "log = 'error'\n[[match]]\nuser_agent = 'x'",
            ":3:14: an error log has no `user_agent`",
        ),
        (
            "log = 'access'\n[[match]]\npath = 'x'\nnot = { code = 'AH1' }",
            ":4:16: an access log has no `code`",
        ),
        (
            "[[match]]\ncode = 'A'\n[[client]]\nmodule = 'core'\nbegins = 'x'",
            ":4:10: the messages of `core` can hold text of clients",
        ),
        (
            "[[match]]\ncode = 'A'\n[[client]]\nmodule = 'mod_x'\nbegins = 'x'",
            ":4:10: the log has the name without `mod_`: `x`",
        ),
        (
            "[[match]]\ncode = 'A'\n[[client]]\nmodule = 'x'\nbegins = ' '",
            ":5:10: `begins` is empty",
        ),
        (
            "[[match]]\ncode = 'A'\n[[client]]\nmodule = 'x'\nbegins = 'x'\nbefore = ''",
            ":6:10: `before` is empty",
        ),
        (
            "[[match]]\ncode = 'A'\n[[client]]\nmodule = 'x'\nbegins = '[client '",
            ":5:10: `begins` is the text behind",
        ),
        (
            "log = 'access'\n[[match]]\npath = 'x'\n[[client]]\nmodule = 'x'\nbegins = 'x'",
            ":4:1: `[[client]]` is for the error log",
        ),
        (
            "[[match]]\ncode = 'A'\n[[client]]\nmodule = 'x'\nbefore = 'x'",
            ":3:1: missing field `begins`",
        ),
    ] {
        let read = read(Path::new(FILE), text);
        let problems = read.and_then(|rules| rules.compile()).unwrap_err();
        let found = problems[0].to_string();
        assert!(
            found.starts_with(&format!("{FILE}{expected}")),
            "{text}: {found}"
        );
    }
}

proptest! {
    #[test]
    fn the_search_for_literals_changes_no_verdict(
        patterns in proptest::collection::vec(
            (
                select(vec!["path", "query", "url", "payload", "referer", "user_agent", "request"]),
                select(vec![
                    "abc", "/a.c", "(abc|cba)", "a+b", "[ab]{3}", "\\.\\./", "c ba", "ab.*ca",
                    "^/abc",
                    "^[ab]",
                    "[b-c]$", "bca$",
                ]),
                proptest::option::of(select(vec!["abc", "/b"])),
            ),
            1..8,
        ),
        fields in proptest::collection::vec(
            proptest::collection::vec(
                select(vec!["a", "b", "c", "/", ".", "%61", "%2562", "+", "?", "&", "\\\\", "'", "A", "%2f"]),
                0..20,
            ),
            3,
        ),
    ) {
        let mut text = String::new();
        for (field, pattern, not) in patterns {
            text += &format!("[[match]]\n{field} = '{pattern}'\n");
            if let Some(not) = not {
                text += &format!("not = {{ {field} = '{not}' }}\n");
            }
        }
        let [target, referer, agent] = &fields[..] else { unreachable!() };
        let line = format!(
            "192.0.2.9 - - [22/Nov/2026:11:00:32 +0000] \"GET /{} HTTP/1.1\" 404 196 \"{}\" \"{}\"",
            target.concat(), referer.concat(), agent.concat()
        );
        // Compares the two ways.
        of_line(Kind::Access, &text, &line);
    }
}

/// The shipped filters, and the lines of their samples.
fn shipped() -> (RuleSet, Vec<String>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/filters.d");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let filters: Vec<_> = files
        .iter()
        .map(|file| vec![read(file, &std::fs::read_to_string(file).unwrap()).unwrap()])
        .collect();
    let rules = filters.iter().flatten().flat_map(|file| &file.rules);
    let samples = rules.flat_map(|rule| &rule.samples);
    let lines = samples.map(|sample| sample.line.clone()).collect();
    (RuleSet::compile(&filters), lines)
}

/// `text` with one byte changed or encoded.
fn edited(text: &str, (at, how): (usize, usize)) -> String {
    let mut at = at % (text.len() + 1);
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let (before, rest) = text.split_at(at);
    let Some(c) = rest.chars().next().filter(char::is_ascii) else {
        return text.to_owned();
    };
    let after = &rest[1..];
    let byte = u32::from(c);
    let new = match how {
        0 => format!("%{byte:02x}"),
        1 => format!("%25{byte:02X}"),
        2 => format!("%u00{byte:02x}"),
        3 => format!("&#{byte};"),
        4 => format!("\\\\x{byte:02x}"),
        5 => c.to_ascii_uppercase().to_string(),
        6 => format!("'{c}'"),
        7 => format!("/*x*/{c}"),
        8 => format!("+{c}"),
        _ => String::new(),
    };
    format!("{before}{new}{after}")
}

#[test]
fn the_search_for_literals_changes_no_verdict_of_the_shipped_filters() {
    let (set, lines) = shipped();
    let (errors, accesses): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.starts_with('['));
    let accesses: Vec<Vec<&str>> = accesses
        .iter()
        .map(|line| line.split('"').collect::<Vec<_>>())
        .filter(|parts| parts.len() == 7)
        .collect();
    let one = |kind, format: &str| Parser::new(kind, format).unwrap();
    let (access, error) = (one(Kind::Access, "combined"), one(Kind::Error, "auto"));
    let edit = || (any::<usize>(), 0..10usize);
    let some = proptest::collection::vec(
        (
            [any::<usize>(), any::<usize>(), any::<usize>()],
            proptest::collection::vec((1..4usize, edit()), 0..4),
        ),
        1..8,
    );
    let scratch = RefCell::new(Scratch::default());
    let mut runner = proptest::test_runner::TestRunner::default();
    let checked = runner.run(&some, |some| {
        for ([request, referer, agent], edits) in some {
            let of = |index: usize, part: usize| accesses[index % accesses.len()][part];
            let mut parts = [of(request, 1), of(referer, 3), of(agent, 5)].map(str::to_owned);
            let mut broken = errors[request % errors.len()].clone();
            for (part, edit) in edits {
                parts[part - 1] = edited(&parts[part - 1], edit);
                broken = edited(&broken, edit);
            }
            let [request, referer, agent] = parts;
            let status = of(referer.len(), 2);
            let whole = format!(
                "192.0.2.9 - - [22/Nov/2026:11:00:32 +0000] \"{request}\"{status}\"{referer}\" \
                 \"{agent}\""
            );
            for (parser, line) in [(&access, &whole), (&error, &broken)] {
                if let Some(record) = parser.parse(line.as_bytes()) {
                    let found = set.evaluate(&record, &mut scratch.borrow_mut());
                    prop_assert_eq!(found, set.evaluate_each(&record), "{}", line);
                }
            }
        }
        Ok(())
    });
    checked.unwrap();
}
