//! The report as one HTML page: no script, no network, charts as SVG in the page.

mod charts;

use askama::Template;
use jiff::Timestamp;
use jiff::civil::DateTime;

use super::detail::Detail;
use super::summary::Summary;
use super::table::period;
use super::words::{count, in_force, minute, number, percent, remarks};
use crate::jail::show_net;
use crate::record::meaning;
use charts::{Axis, Bar, Columns};

/// Clients in the page at most, in the order of the summary; CSV and JSON have all.
pub const CLIENTS: usize = 250;

/// Clients with a time line at most; of them those that were banned more than once.
pub const TIMELINES: usize = 25;

/// Bans in a time line at most, the latest.
pub const SPELLS: usize = 100;

/// Rows of a chart with a bar per name.
const NAMES: usize = 12;

#[derive(Template)]
#[template(path = "report.html")]
struct Page {
    title: String,
    period: String,
    made: String,
    version: &'static str,
    observed: bool,
    remarks: Vec<String>,
    bans: String,
    clients: String,
    repeat: String,
    in_force: String,
    share: String,
    clients_in_force: String,
    times: Columns,
    hours: Columns,
    offenders: Vec<Bar>,
    jails: Vec<Bar>,
    classes: Vec<Bar>,
    networks: Vec<Bar>,
    axis: Vec<String>,
    timelines: Vec<Timeline>,
    rows: Vec<Row>,
    more_clients: String,
    days: Vec<(String, String)>,
    hour_rows: Vec<(String, String)>,
}

/// A client's bans in time.
struct Timeline {
    host: String,
    bans: String,
    spells: Vec<charts::Spell>,
}

/// A client in the table.
struct Row {
    host: String,
    bans: String,
    first: String,
    last: String,
    in_force: String,
    jails: String,
    classes: String,
    evidence: Vec<String>,
}

/// The page. `details`: of the first clients, at least the first [`CLIENTS`] of them.
///
/// # Errors
/// None that occurs: text is written to memory.
pub fn page(summary: &Summary, details: &[Detail]) -> Result<String, std::fmt::Error> {
    let (from, to) = span(summary);
    let axis = Axis::new(from, to);
    let colours = charts::Colours::of(summary);
    let named = |counted: &[(&str, u64)], tint: &dyn Fn(&str) -> &'static str| {
        let most = counted.first().map_or(0, |(_, bans)| *bans);
        let bars = counted.iter().take(NAMES).map(|(name, bans)| {
            Bar::new(name, tint(name), *bans, most, percent(*bans, summary.bans))
        });
        bars.collect::<Vec<_>>()
    };
    let most = summary.clients.first().map_or(0, |client| client.bans);
    let offenders = summary.clients.iter().take(NAMES).map(|client| {
        let jails = match *summary.jails_of(client) {
            [jail] => jail.to_owned(),
            [one, other] => format!("{one}, {other}"),
            ref several => count(several.len() as u64, "jail"),
        };
        Bar::new(
            &show_net(&client.net),
            "c0",
            client.bans.into(),
            most.into(),
            jails,
        )
    });
    let widest = summary.networks.first().map_or(0, |network| network.bans);
    let networks = summary.networks.iter().take(NAMES).map(|network| {
        let clients = count(network.clients, "client");
        Bar::new(&show_net(&network.net), "c0", network.bans, widest, clients)
    });
    let shown = || summary.clients.iter().zip(details).take(CLIENTS);
    let repeated = shown().filter(|(client, _)| client.bans > 1);
    let timelines = repeated.take(TIMELINES).map(|(client, detail)| Timeline {
        host: show_net(&client.net),
        bans: count(client.bans.into(), "ban"),
        spells: charts::spells(summary, &axis, &colours, &detail.bans),
    });
    let rows = shown().map(|(client, detail)| Row {
        host: show_net(&client.net),
        bans: number(client.bans.into()),
        first: minute(summary.local(client.first())),
        last: minute(summary.local(client.last())),
        in_force: in_force(summary, client),
        jails: summary.jails_of(client).join(" "),
        classes: summary.classes_of(client).join(" "),
        evidence: detail
            .evidence
            .iter()
            .flat_map(|(_, line)| [Some(line.clone()), meaning(line)])
            .flatten()
            .collect(),
    });
    let days = summary.days().into_iter();
    let hours = (0..).zip(summary.hours);
    let hour_rows = hours.map(|(hour, bans)| (format!("{hour:02}"), number(bans)));
    let rows: Vec<Row> = rows.collect();
    let more = summary.clients.len().saturating_sub(rows.len()) as u64;
    let page = Page {
        title: if summary.query.observed {
            "Observed bans"
        } else {
            "Bans"
        }
        .to_owned(),
        period: period(summary),
        made: minute(summary.local(summary.now)),
        version: env!("CARGO_PKG_VERSION"),
        observed: summary.query.observed,
        remarks: remarks(summary)
            .into_iter()
            .map(|remark| remark.replace('`', ""))
            .collect(),
        bans: number(summary.bans),
        clients: number(summary.clients.len() as u64),
        repeat: number(summary.repeat),
        in_force: number(summary.in_force),
        share: percent(summary.in_force, summary.bans),
        clients_in_force: number(summary.clients_in_force()),
        times: charts::times(summary, &axis, &colours),
        hours: charts::hours_of_day(&summary.hours),
        offenders: offenders.collect(),
        jails: named(&summary.jails(), &|jail| colours.of_jail(jail)),
        classes: named(&summary.classes(), &|_| "c0"),
        networks: networks.collect(),
        axis: axis.labels(),
        timelines: timelines.collect(),
        more_clients: if more > 0 {
            number(more)
        } else {
            String::new()
        },
        rows,
        days: days
            .map(|(day, bans)| (day.to_string(), number(bans)))
            .collect(),
        hour_rows: hour_rows.collect(),
    };
    page.render().map_err(|_| std::fmt::Error)
}

/// From the first to the last time in the charts.
fn span(summary: &Summary) -> (DateTime, DateTime) {
    let query = &summary.query;
    let first = summary.clients.iter().map(|client| client.first()).min();
    let from = match query.since == Timestamp::MIN {
        true => first.unwrap_or(summary.now),
        false => query.since,
    };
    let to = query.until.min(summary.now).max(from);
    (summary.local(from), summary.local(to))
}
