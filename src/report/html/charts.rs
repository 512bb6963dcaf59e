//! Places and sizes of what the charts show. Widths are percents of the chart, heights are pixels,
//! so that a chart fits any page and its text keeps its size.

use std::collections::BTreeMap;

use jiff::civil::DateTime;
use jiff::{RoundMode, SpanRound, ToSpan, Unit};

use crate::report::detail;
use crate::report::summary::Summary;
use crate::report::words::{count, minute, number};

/// Height of a chart with columns.
const HEIGHT: f64 = 170.0;

/// Jails with a colour each; the others share the last one.
const COLOURS: [&str; 6] = ["c0", "c1", "c2", "c3", "c4", "c5"];

/// A bar beside a name.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) colour: &'static str,
    pub(super) width: String,
    pub(super) bans: String,
    pub(super) remark: String,
}

impl Bar {
    pub(super) fn new(
        name: &str,
        colour: &'static str,
        bans: u64,
        most: u64,
        remark: String,
    ) -> Bar {
        Bar {
            name: name.to_owned(),
            colour,
            width: percent(bans as f64, most as f64),
            bans: number(bans),
            remark,
        }
    }
}

/// A chart with columns.
pub(super) struct Columns {
    /// What one column is, for the title.
    pub(super) unit: &'static str,
    pub(super) height: f64,
    /// Height with the labels below.
    pub(super) whole: f64,
    pub(super) lines: Vec<Line>,
    pub(super) boxes: Vec<Box>,
    pub(super) labels: Vec<Label>,
    pub(super) legend: Vec<(String, &'static str)>,
}

/// A line across the chart with its number.
pub(super) struct Line {
    pub(super) y: String,
    pub(super) text_y: String,
    pub(super) number: String,
}

pub(super) struct Box {
    pub(super) x: String,
    pub(super) y: String,
    pub(super) width: String,
    pub(super) height: String,
    pub(super) colour: &'static str,
    pub(super) title: String,
}

/// A text below the chart.
pub(super) struct Label {
    pub(super) x: String,
    pub(super) anchor: &'static str,
    pub(super) text: String,
}

/// Which colour each jail has: that of its place by the number of its bans.
pub(super) struct Colours {
    jails: Vec<String>,
}

impl Colours {
    pub(super) fn of(summary: &Summary) -> Colours {
        let jails = summary.jails().into_iter();
        Colours {
            jails: jails.map(|(jail, _)| jail.to_owned()).collect(),
        }
    }

    pub(super) fn of_jail(&self, jail: &str) -> &'static str {
        let place = self.jails.iter().position(|known| known == jail);
        self.of_place(place.unwrap_or(usize::MAX))
    }

    fn of_place(&self, place: usize) -> &'static str {
        let last = COLOURS.len() - 1;
        let fits = self.jails.len() <= COLOURS.len();
        let place = if fits || place < last { place } else { last };
        COLOURS.get(place.min(last)).copied().unwrap_or("c5")
    }

    fn legend(&self) -> Vec<(String, &'static str)> {
        let own = match self.jails.len() <= COLOURS.len() {
            true => COLOURS.len(),
            false => COLOURS.len() - 1,
        };
        let jails = self.jails.iter().take(own).enumerate();
        let mut legend: Vec<_> = jails
            .map(|(place, jail)| (jail.clone(), self.of_place(place)))
            .collect();
        let others = self.jails.len().saturating_sub(own);
        if others > 0 {
            legend.push((count(others as u64, "other jail"), "c5"));
        }
        legend
    }
}

/// The time from left to right, in steps that are a column each.
pub(super) struct Axis {
    from: DateTime,
    to: DateTime,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Hour,
    Day,
    Week,
}

impl Axis {
    pub(super) fn new(from: DateTime, to: DateTime) -> Axis {
        let step = match hours(from, to) {
            ..=72 => Step::Hour,
            73..=3_000 => Step::Day,
            _ => Step::Week,
        };
        let from = step.floor(from);
        let to = step.next(step.floor(to));
        Axis { from, to, step }
    }

    /// Place of a time, from 0 to 1.
    fn place(&self, time: DateTime) -> f64 {
        let whole = seconds(self.from, self.to).max(1.0);
        (seconds(self.from, time) / whole).clamp(0.0, 1.0)
    }

    /// A few times, evenly spaced: from the first step to the last.
    pub(super) fn labels(&self) -> Vec<String> {
        let whole = hours(self.from, self.to) - self.step.hours();
        let at = |part: i64| {
            let time = self.from.saturating_add((whole * part / 3).hours());
            match self.step {
                Step::Hour => time.strftime("%m-%d %H:%M").to_string(),
                Step::Day | Step::Week => time.date().to_string(),
            }
        };
        (0..4).map(at).collect()
    }
}

impl Step {
    fn hours(self) -> i64 {
        match self {
            Step::Hour => 1,
            Step::Day => 24,
            Step::Week => 7 * 24,
        }
    }

    fn floor(self, time: DateTime) -> DateTime {
        let date = time.date();
        match self {
            Step::Hour => date.at(time.hour(), 0, 0, 0),
            Step::Day => date.at(0, 0, 0, 0),
            Step::Week => {
                let days = i64::from(date.weekday().to_monday_zero_offset());
                date.saturating_sub(days.days()).at(0, 0, 0, 0)
            }
        }
    }

    fn next(self, time: DateTime) -> DateTime {
        time.saturating_add(match self {
            Step::Hour => 1.hour(),
            Step::Day => 1.day(),
            Step::Week => 1.week(),
        })
    }

    fn name(self, time: DateTime) -> String {
        match self {
            Step::Hour => minute(time),
            Step::Day => time.date().to_string(),
            Step::Week => format!("week of {}", time.date()),
        }
    }
}

fn seconds(from: DateTime, to: DateTime) -> f64 {
    let span = from.until((Unit::Second, to)).unwrap_or_default();
    span.get_seconds() as f64
}

fn hours(from: DateTime, to: DateTime) -> i64 {
    let round = SpanRound::new().smallest(Unit::Hour).largest(Unit::Hour);
    let span = from.until((Unit::Hour, to)).unwrap_or_default();
    let span = span.round(round.mode(RoundMode::Ceil)).unwrap_or(span);
    span.get_hours().into()
}

/// Bans over time, a column a step, stacked by jail.
pub(super) fn times(summary: &Summary, axis: &Axis, colours: &Colours) -> Columns {
    let jails = summary.jails();
    // Bans by step and jail.
    let mut steps: BTreeMap<DateTime, Vec<u64>> = BTreeMap::new();
    for (hour, bans) in summary.times() {
        let step = steps.entry(axis.step.floor(hour)).or_default();
        step.resize(bans.len(), 0);
        for (sum, bans) in step.iter_mut().zip(bans) {
            *sum += bans;
        }
    }
    let most = steps.values().map(|bans| bans.iter().sum()).max();
    let scale = Scale::to(most.unwrap_or(0));
    let mut boxes = Vec::new();
    for (time, bans) in &steps {
        let left = axis.place(*time);
        let width = axis.place(axis.step.next(*time)) - left;
        let mut bottom = 0;
        for (place, ((jail, _), bans)) in jails.iter().zip(bans).enumerate() {
            if *bans == 0 {
                continue;
            }
            boxes.push(scale.column(
                (left, width),
                (bottom, *bans),
                colours.of_place(place),
                format!(
                    "{}: {} by {jail}",
                    axis.step.name(*time),
                    count(*bans, "ban")
                ),
            ));
            bottom += bans;
        }
    }
    let labels = axis.labels();
    let last = labels.len().saturating_sub(1).max(1);
    let labels = labels.into_iter().enumerate().map(|(place, text)| Label {
        x: percent(place as f64, last as f64),
        anchor: match place {
            0 => "start",
            place if place == last => "end",
            _ => "middle",
        },
        text,
    });
    Columns {
        unit: match axis.step {
            Step::Hour => "hour",
            Step::Day => "day",
            Step::Week => "week",
        },
        height: HEIGHT,
        whole: HEIGHT + 20.0,
        lines: scale.lines(),
        boxes,
        labels: labels.collect(),
        legend: colours.legend(),
    }
}

/// Bans by the hour of the day.
pub(super) fn hours_of_day(hours: &[u64; 24]) -> Columns {
    let scale = Scale::to(hours.iter().copied().max().unwrap_or(0));
    let boxes = hours.iter().enumerate().filter(|(_, bans)| **bans > 0);
    let boxes = boxes.map(|(hour, bans)| {
        let title = format!("{hour:02}:00 to {hour:02}:59: {}", count(*bans, "ban"));
        scale.column((hour as f64 / 24.0, 1.0 / 24.0), (0, *bans), "c0", title)
    });
    let labels = [0, 6, 12, 18].into_iter().map(|hour| Label {
        x: percent(f64::from(hour) + 0.5, 24.0),
        anchor: if hour == 0 { "start" } else { "middle" },
        text: format!("{hour:02}:00"),
    });
    Columns {
        unit: "hour",
        height: HEIGHT,
        whole: HEIGHT + 20.0,
        lines: scale.lines(),
        boxes: boxes.collect(),
        labels: labels.collect(),
        legend: Vec::new(),
    }
}

/// From bans to pixels.
struct Scale {
    top: u64,
}

impl Scale {
    /// A round number that is `most` or a little more.
    fn to(most: u64) -> Scale {
        let mut power: u64 = 1;
        while most > power.saturating_mul(10) {
            power = power.saturating_mul(10);
        }
        let steps = [1, 2, 3, 4, 5, 6, 8, 10].into_iter();
        let mut tops = steps.map(|step| power.saturating_mul(step));
        let top = tops.find(|top| *top >= most);
        Scale {
            top: top.unwrap_or(most).max(1),
        }
    }

    fn pixels(&self, bans: u64) -> f64 {
        // Half of the number at the highest line is above it.
        bans as f64 / self.top as f64 * (HEIGHT - 8.0)
    }

    fn column(
        &self,
        (left, width): (f64, f64),
        (bottom, bans): (u64, u64),
        colour: &'static str,
        title: String,
    ) -> Box {
        let height = self.pixels(bans);
        Box {
            x: percent(left + width * 0.08, 1.0),
            y: pixels(HEIGHT - self.pixels(bottom) - height),
            width: percent(width * 0.84, 1.0),
            height: pixels(height),
            colour,
            title,
        }
    }

    fn lines(&self) -> Vec<Line> {
        let parts: &[u64] = if self.top >= 2 { &[1, 2] } else { &[2] };
        let line = |part: &u64| {
            let bans = self.top * part / 2;
            let y = HEIGHT - self.pixels(bans);
            Line {
                y: pixels(y),
                text_y: pixels(y + 4.0),
                number: number(bans),
            }
        };
        parts.iter().map(line).collect()
    }
}

/// A ban in a time line.
pub(super) struct Spell {
    pub(super) x: String,
    pub(super) width: String,
    pub(super) colour: &'static str,
    pub(super) title: String,
}

/// A client's bans; each is at least wide enough to be seen.
pub(super) fn spells(
    summary: &Summary,
    axis: &Axis,
    colours: &Colours,
    bans: &[detail::Spell],
) -> Vec<Spell> {
    let spell = |ban: &detail::Spell| {
        let since = summary.local(ban.since);
        let end = ban.end.map(|end| summary.local(end));
        let left = axis.place(since).min(0.992);
        let right = end.map_or(1.0, |end| axis.place(end));
        let until = end.map_or("for ever".to_owned(), |end| format!("to {}", minute(end)));
        Spell {
            x: percent(left, 1.0),
            width: percent((right - left).max(0.008), 1.0),
            colour: colours.of_jail(&ban.jail),
            title: format!("{} {until}, {} ({})", minute(since), ban.jail, ban.cause),
        }
    };
    bans.iter().map(spell).collect()
}

fn percent(part: f64, whole: f64) -> String {
    let share = if whole > 0.0 { part / whole } else { 0.0 };
    format!("{:.2}%", share * 100.0)
}

fn pixels(length: f64) -> String {
    format!("{length:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_line_is_a_round_number() {
        let tops = [0, 1, 2, 3, 6, 11, 99, 101, 2_001, 50_000].map(|most| Scale::to(most).top);
        assert_eq!(tops, [1, 1, 2, 3, 6, 20, 100, 200, 3_000, 50_000]);
    }

    #[test]
    fn the_axis_has_whole_steps() {
        let time = |text: &str| text.parse::<DateTime>().unwrap();
        let axis = Axis::new(time("2026-11-15T11:20"), time("2026-11-22T11:20"));
        assert_eq!(axis.from, time("2026-11-15T00:00"));
        assert_eq!(axis.to, time("2026-11-23T00:00"));
        let labels = ["2026-11-15", "2026-11-17", "2026-11-19", "2026-11-22"];
        assert_eq!(axis.labels(), labels);
        assert_eq!(axis.place(time("2026-11-19T00:00")), 0.5);
        assert_eq!(axis.place(time("2020-01-01T00:00")), 0.0);
        let axis = Axis::new(time("2026-11-22T11:20"), time("2026-11-22T13:20"));
        assert_eq!(axis.labels()[0], "11-22 11:00");
        let axis = Axis::new(time("2026-01-01T00:00"), time("2026-11-22T13:20"));
        assert_eq!(axis.from, time("2025-12-29T00:00"));
    }
}
