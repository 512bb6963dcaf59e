//! fail2ban's own filters on fail2ban's own sample lines, from the installed package; nothing of
//! it is kept here.
//!
//! A line that is Apache's is judged with its record, as behind Apache; any other as text.

mod differential;
mod lints;
mod oracle;
mod own_text;
mod samples;
mod side_by_side;
mod spoofing;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use pipeban::filter::{Dates, Filter, Moment, Outcome, Sequence, Subject, read};
use pipeban::record::{Kind, Parser};
use samples::Sample;

const FILTERS: &str = "/etc/fail2ban/filter.d";
const SAMPLES: &str = "/usr/lib/python3/dist-packages/fail2ban/tests/files/logs";

/// Filters of what stands behind Apache and its kind: every case must agree.
const WEB: [&str; 10] = [
    "php-url-fopen",
    "nginx-botsearch",
    "nginx-bad-request",
    "nginx-http-auth",
    "zoneminder",
    "traefik-auth",
    "suhosin",
    "roundcube-auth",
    "drupal-auth",
    "haproxy-http-auth",
];

fn is_web(filter: &str) -> bool {
    filter.starts_with("apache-") || WEB.contains(&filter)
}

/// Why the others may disagree: the front of what is reported, and the reason.
const KNOWN: [(&str, &str); 1] = [("monit:", "names of time zones (PDT) are not read")];
/// The reason why a sample whose host is no address does not match.
const NAME: &str = "name: ";

/// Whether the package is there; says loudly when it is not.
fn installed() -> bool {
    let there = Path::new(FILTERS).is_dir() && Path::new(SAMPLES).is_dir();
    if !there {
        // Not eprintln: the harness would swallow it.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED fail2ban: the package is not installed, its filters are not compared"
        );
    }
    there
}

/// A filter with one set of options, and what its earlier lines left behind.
struct Tried {
    filter: Filter,
    dates: Dates,
    sequence: Sequence,
    /// The last time that a line stated.
    last: Option<Moment>,
}

impl Tried {
    fn new(name: &str, options: &BTreeMap<String, String>) -> Result<Tried, String> {
        let file = Path::new(FILTERS).join(format!("{name}.conf"));
        let definition = read(name, &file, options, &|path| std::fs::read_to_string(path));
        let compiled = definition.and_then(|d| Ok((Filter::compile(&d)?, d)));
        let (filter, definition) = compiled.map_err(|p| {
            p.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        })?;
        Ok(Tried {
            filter,
            dates: Dates::of(&definition),
            sequence: Sequence::default(),
            last: None,
        })
    }

    /// What comes of a sample, and what is wrong with that.
    fn compare(&mut self, sample: &Sample) -> Option<String> {
        let line = sample.line.as_bytes();
        let (cut, moment) = match sample.journal {
            true => None,
            false => self.dates.find(line),
        }
        .unzip();
        let stated = cut.as_ref().is_some_and(|cut| !cut.is_empty());
        self.last = moment.filter(|_| stated).or(self.last);
        let text = Subject::raw(line, cut);
        let mut outcome = self.sequence.examine(&self.filter, &text);
        if let Some(of_record) = of_record(&self.filter, line) {
            outcome = of_record;
        }
        let hit = match outcome {
            Outcome::Match { host, .. } => Some(host),
            _ => None,
        };
        let Some(host) = hit else {
            return sample.matches.then(|| match sample.host.as_deref() {
                Some(host) if host.parse::<IpAddr>().is_err() => format!("{NAME}`{host}`"),
                host => format!("not matched ({outcome:?}), host {host:?}"),
            });
        };
        if !sample.matches {
            return Some(format!("matched for {host}"));
        }
        if let Some(wanted) = &sample.host
            && wanted.parse::<IpAddr>().map(|a| a.to_canonical()) != Ok(host)
        {
            return Some(format!("host {host} instead of {wanted}"));
        }
        let (Some(wanted), false) = (&sample.time, sample.journal) else {
            return None;
        };
        let found = self.last.and_then(local);
        let (whole, _) = wanted.split_once('.').unwrap_or((wanted, ""));
        let wanted = DateTime::strptime("%Y-%m-%dT%H:%M:%S", whole).unwrap();
        (found != Some(wanted)).then(|| format!("time {found:?} instead of {wanted}"))
    }
}

/// What comes of a line of Apache's, judged as behind Apache.
fn of_record(filter: &Filter, line: &[u8]) -> Option<Outcome> {
    [Kind::Error, Kind::Access].into_iter().find_map(|kind| {
        let parser = Parser::new(kind, "auto").unwrap();
        let record = parser.parse(line)?;
        record.client?;
        Some(filter.examine(&Subject::of(line, &record)))
    })
}

/// The time in the zone of the samples, as seen on 14 August 2005 at noon there.
fn local(moment: Moment) -> Option<DateTime> {
    let zone = TimeZone::posix("CET-01CEST-02,M3.5.0,M10.5.0").unwrap();
    let now: DateTime = "2005-08-14T12:00:00".parse().unwrap();
    if let Some(epoch) = moment.epoch {
        let timestamp = jiff::Timestamp::from_second(epoch).ok()?;
        return Some(timestamp.to_zoned(zone).datetime());
    }
    let time = jiff::civil::time(moment.hour, moment.minute, moment.second.min(59), 0);
    let (Some(month), Some(day)) = (moment.month, moment.day) else {
        let today = now.date().to_datetime(time);
        return Some(if today > now {
            now.date().yesterday().ok()?.to_datetime(time)
        } else {
            today
        });
    };
    let in_year = |year| Some(Date::new(year, month, day).ok()?.to_datetime(time));
    let Some(year) = moment.year else {
        let this = in_year(2005)?;
        return if this.date() > now.date().tomorrow().ok()? {
            in_year(2004)
        } else {
            Some(this)
        };
    };
    let stated = in_year(year)?;
    Some(match moment.offset {
        Some(seconds) => {
            let offset = jiff::tz::Offset::from_seconds(seconds).ok()?;
            let timestamp = offset.to_timestamp(stated).ok()?;
            timestamp.to_zoned(zone).datetime()
        }
        None => stated,
    })
}

/// Cases of one filter and those that disagree.
#[derive(Default)]
struct Row {
    cases: usize,
    wrong: Vec<String>,
}

fn compare(filter: &str) -> Row {
    let mut row = Row::default();
    let mut tried: BTreeMap<String, Result<Tried, String>> = BTreeMap::new();
    for sample in samples::of(filter, Path::new(SAMPLES)) {
        row.cases += 1;
        let key = format!("{:?}", sample.options);
        let tried = tried
            .entry(key)
            .or_insert_with(|| Tried::new(filter, &sample.options));
        let wrong = match tried {
            Ok(tried) => tried.compare(&sample),
            Err(message) => Some(message.clone()),
        };
        if let Some(wrong) = wrong {
            let (number, options) = (sample.number, &sample.options);
            row.wrong
                .push(format!("{filter}:{number} {options:?}: {wrong}"));
        }
    }
    row
}

/// Every filter of the package that has samples.
fn filters() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(FILTERS)
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().ok()?;
            Some(name.strip_suffix(".conf")?.to_owned())
        })
        .filter(|name| Path::new(SAMPLES).join(name).is_file())
        .collect();
    names.sort();
    names
}

#[test]
fn web_filters_agree_with_every_sample() {
    if !installed() {
        return;
    }
    let mut cases = 0;
    let mut wrong = Vec::new();
    for filter in filters().iter().filter(|name| is_web(name)) {
        let row = compare(filter);
        assert!(row.cases > 0, "{filter} has no samples");
        cases += row.cases;
        wrong.extend(row.wrong);
    }
    println!("{cases} cases");
    assert!(cases > 150, "{cases}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_other_filters_agree_but_for_known_reasons() {
    if !installed() {
        return;
    }
    let (mut cases, mut agreed) = (0, 0);
    let mut unexplained = Vec::new();
    for filter in filters().iter().filter(|name| !is_web(name)) {
        let row = compare(filter);
        let good = row.cases - row.wrong.len();
        println!("{filter:24} {good:4} of {:4}", row.cases);
        cases += row.cases;
        agreed += good;
        for text in &row.wrong {
            let known = KNOWN.iter().find(|(front, _)| text.starts_with(front));
            let by_name = text
                .contains(NAME)
                .then_some("a name, or a number no address is written with, never becomes a ban");
            match known.map(|(_, reason)| *reason).or(by_name) {
                Some(reason) => println!("    {text}: {reason}"),
                None => unexplained.push(text.clone()),
            }
        }
    }
    println!("{agreed} of {cases}");
    assert!(agreed * 100 >= cases * 95, "{agreed} of {cases}");
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
}
