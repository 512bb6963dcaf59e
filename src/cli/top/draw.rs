//! The screen of `top`.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Margin, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph, Row, Table, TableState, Wrap};

use super::app::{App, Dialog, List};
use super::keys::KEYS;
use crate::cli::status::{cause, in_force, left};
use crate::control::JailStatus;

/// Jails at most, on a small screen.
const JAILS: u16 = 6;

/// Columns of the longest network.
const ADDRESS: u16 = 43;

/// Columns of a jail's name where there are enough.
const NAME: u16 = 40;

/// Columns from which the cause of each ban fits.
const WIDE: u16 = 120;

pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let area = frame.area();
    let jails = jails(app);
    // A third of the screen, but no empty rows.
    let most = JAILS.max(area.height / 3);
    let rows = u16::try_from(jails.len()).unwrap_or(u16::MAX).min(most);
    let problem = u16::from(app.trouble.is_some() || !app.status.warnings.is_empty());
    let [title, numbers, alarm, upper, _, lower, detail, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(problem),
        Constraint::Length(rows + 1),
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(title_line(app), title);
    frame.render_widget(numbers_line(app), numbers);
    if let Some(text) = app.trouble.as_ref().or(app.status.warnings.first()) {
        let more = app.status.warnings.len().saturating_sub(1);
        let more = match more {
            0 => String::new(),
            more => format!(" [w: {more} more]"),
        };
        let room = usize::from(alarm.width).saturating_sub(more.len() + 2);
        let text = format!("! {}{more}", cut(text, room));
        frame.render_widget(Line::from(text).red().bold(), alarm);
    }
    frame.render_widget(jails_table(app, &jails, upper.width), upper);
    clients(frame, app, lower);
    let why = app.why().unwrap_or_default();
    frame.render_widget(Line::from(cut(&why, usize::from(detail.width))), detail);
    let help = "Tab list  e explain  u unban  b ban  w problems  ? keys  q quit";
    frame.render_widget(Line::from(help).dim(), keys);
    dialog(frame, app, area);
}

fn title_line(app: &App) -> Line<'static> {
    let engine = &app.status.engine;
    let up = app.now.duration_since(engine.since).as_secs();
    let up = match up.unsigned_abs() {
        seconds @ ..60 => seconds,
        seconds => seconds / 60 * 60,
    };
    let up = std::time::Duration::from_secs(up);
    let up = crate::config::duration::show(Some(up));
    let off = if engine.off.is_some() {
        "  EMERGENCY STOP: nobody is banned"
    } else {
        ""
    };
    let text = format!(
        "pipeban {}  engine {}, up {up}  back end {}{off}",
        engine.version, engine.pid, engine.backend
    );
    Line::from(text).bold()
}

fn numbers_line(app: &App) -> Line<'static> {
    let banned: u64 = app
        .status
        .jails
        .iter()
        .map(|jail| jail.currently_banned)
        .sum();
    let workers = app.status.workers.len();
    let rates = match &app.rates {
        Some(rates) => format!(
            "lines/s {:.0}  hits/s {:.1}  bans/min {:.0}",
            rates.lines,
            rates.hits,
            rates.bans * 60.0
        ),
        None => "lines/s -  hits/s -  bans/min -".to_owned(),
    };
    Line::from(format!("{rates}  banned {banned}  workers {workers}"))
}

/// Those that have counted something, the busiest first.
fn jails(app: &App) -> Vec<&JailStatus> {
    let mut jails: Vec<&JailStatus> = app
        .status
        .jails
        .iter()
        .filter(|jail| jail.total_failed > 0 || jail.currently_banned > 0)
        .collect();
    let rate = |jail: &JailStatus| {
        let rates = app.rates.as_ref();
        let rate = rates.and_then(|rates| rates.jails.get(&jail.name));
        rate.copied().unwrap_or(0.0)
    };
    jails.sort_by(|one, other| {
        let order = rate(other).total_cmp(&rate(one));
        order
            .then(other.currently_banned.cmp(&one.currently_banned))
            .then(one.name.cmp(&other.name))
    });
    jails
}

fn jails_table(app: &App, jails: &[&JailStatus], width: u16) -> Table<'static> {
    let rows = jails.iter().map(|jail| {
        let rate = app.rates.as_ref();
        let rate = rate.and_then(|rates| rates.jails.get(&jail.name));
        Row::new([
            jail.name.to_string(),
            rate.map_or("-".to_owned(), |rate| format!("{rate:.1}")),
            jail.currently_failed.to_string(),
            jail.total_failed.to_string(),
            jail.currently_banned.to_string(),
            jail.total_banned.to_string(),
        ])
    });
    let name = match width {
        ..WIDE => Constraint::Fill(1),
        WIDE.. => Constraint::Length(NAME),
    };
    let widths = [
        name,
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(11),
        Constraint::Length(8),
        Constraint::Length(11),
    ];
    let heading = [
        "jail",
        "hits/s",
        "failing",
        "total hits",
        "banned",
        "total bans",
    ];
    Table::new(rows.collect::<Vec<_>>(), widths).header(Row::new(heading).style(HEADING))
}

const HEADING: Style = Style::new().add_modifier(Modifier::UNDERLINED);

/// The list that Tab has chosen, with the selected client.
fn clients(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let listed = app.clients();
    let longest = |lengths: &mut dyn Iterator<Item = usize>| {
        let longest = lengths.max().unwrap_or(0);
        u16::try_from(longest).unwrap_or(u16::MAX)
    };
    let address = longest(&mut listed.iter().map(|(_, host)| host.len())).clamp(16, ADDRESS);
    let name = longest(&mut listed.iter().map(|(jail, _)| jail.as_str().len())).min(NAME);
    let empty = listed.is_empty();
    let mut widths = vec![Constraint::Length(address), Constraint::Length(12)];
    let (heading, rows) = match app.list {
        List::Banned => {
            let wide = area.width >= WIDE;
            let mut heading = vec!["banned client", "until", "in force", "jail"];
            widths.push(Constraint::Length(8));
            if wide {
                heading.push("cause");
                widths.push(Constraint::Length(name));
            }
            widths.push(Constraint::Fill(1));
            let rows = app.banned().into_iter().map(|(jail, ban)| {
                let left = ban
                    .until
                    .map_or("for ever".to_owned(), |end| left(end, app.now));
                let in_force = in_force(&[(jail, ban)]);
                let mut cells = vec![ban.host.clone(), left, in_force, jail.to_string()];
                if wide {
                    cells.extend(cause(jail, ban, false).map(|cause| cause.line()));
                }
                Row::new(cells)
            });
            (heading, rows.collect::<Vec<_>>())
        }
        List::Failing => {
            widths.push(Constraint::Fill(1));
            let rows = app.failing().iter().map(|client| {
                let count = format!("{}/{}", client.count, client.maxretry);
                Row::new([client.host.clone(), count, client.jail.to_string()])
            });
            (vec!["client with hits", "hits", "jail"], rows.collect())
        }
    };
    let table = Table::new(rows, widths)
        .header(Row::new(heading).style(HEADING))
        .row_highlight_style(Style::new().reversed());
    let mut state = TableState::default();
    state.select((!empty).then_some(app.selected));
    frame.render_stateful_widget(table, area, &mut state);
}

fn dialog(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let (title, text) = match &app.dialog {
        Dialog::None => return,
        Dialog::Keys => {
            let keys = KEYS.iter().map(|(key, what)| format!("{key:<22} {what}"));
            ("keys", keys.collect::<Vec<_>>().join("\n"))
        }
        Dialog::Problems if app.status.warnings.is_empty() => ("problems", "none".to_owned()),
        Dialog::Problems => ("problems", app.status.warnings.join("\n\n")),
        Dialog::Address(text) => ("ban an address or a network, Enter", format!("{text}_")),
        Dialog::Confirm { question, .. } => ("y: yes, any other key: no", question.clone()),
        Dialog::Answer(text) => ("any key", text.clone()),
    };
    let width = area.width.saturating_sub(4).min(100);
    let text = Paragraph::new(text).wrap(Wrap { trim: false });
    let inner = usize::from(width.saturating_sub(2)).max(1);
    let lines = match &app.dialog {
        Dialog::Keys => KEYS.len(),
        Dialog::Problems => {
            let lines = |text: &String| text.chars().count().div_ceil(inner) + 2;
            app.status.warnings.iter().map(lines).sum()
        }
        Dialog::Answer(text) | Dialog::Confirm { question: text, .. } => text
            .lines()
            .map(|line| line.chars().count() / inner + 1)
            .sum(),
        Dialog::Address(_) | Dialog::None => 1,
    };
    let height = u16::try_from(lines.max(1))
        .unwrap_or(u16::MAX)
        .saturating_add(2);
    let place = area.inner(Margin::new(2, 1));
    let place = Rect {
        width,
        height: height.min(place.height),
        ..place
    };
    frame.render_widget(Clear, place);
    frame.render_widget(text.block(Block::bordered().title(title)), place);
}

/// At most `most` characters.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(3)).collect();
    kept + "..."
}
