use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};

use super::app::{App, Dialog, Request};
use super::{draw, keys};
use crate::cli::status::busy_host;
use crate::control::{BanStatus, Command, FailingStatus};

const NOW: &str = "2026-11-30T12:00:00Z";

/// A second after the first answer.
fn app() -> App {
    let mut first = busy_host();
    first.failing = vec![FailingStatus {
        host: "203.0.113.5".into(),
        jail: "apache-auth".parse().unwrap(),
        count: 3,
        maxretry: 5,
    }];
    let mut next = first.clone();
    for worker in &mut next.workers {
        worker.counters.lines += 100;
    }
    next.jails[1].total_failed += 7;
    next.jails[1].total_banned += 1;
    let mut app = App::new(first, "2026-11-30T11:59:59Z".parse().unwrap());
    app.update(Ok(next), NOW.parse().unwrap());
    app
}

fn screen(app: &mut App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, app)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let lines = buffer.content().chunks(usize::from(width));
    let lines = lines.map(|line| {
        let text: String = line.iter().map(|cell| cell.symbol()).collect();
        text.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

fn press(app: &mut App, code: KeyCode) -> Option<Request> {
    keys::handle(app, &Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

#[test]
fn a_screen_of_80_columns_has_rates_jails_and_clients() {
    let text = screen(&mut app(), 80, 24);
    assert_eq!(text, include_str!("screen.txt"));
}

#[test]
fn every_size_is_drawn_and_a_large_one_has_whole_addresses() {
    for (width, height) in [(1, 1), (10, 3), (20, 50), (80, 24), (200, 60), (400, 2)] {
        let mut app = app();
        screen(&mut app, width, height);
        for dialog in [
            Dialog::Keys,
            Dialog::Problems,
            Dialog::Address("203.0.113.9".into()),
            Dialog::Answer("done".into()),
        ] {
            app.dialog = dialog;
            screen(&mut app, width, height);
        }
    }
    let text = screen(&mut app(), 200, 60);
    assert!(
        text.contains("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff "),
        "{text}"
    );
    assert!(text.contains("command-injection: GET /cgi-bin/"), "{text}");
}

#[test]
fn bans_change_only_after_a_yes() {
    let mut app = app();
    assert_eq!(press(&mut app, KeyCode::Down), None);
    let host = app.host().unwrap();
    for no in ['n', 'q', 'x'] {
        assert_eq!(press(&mut app, KeyCode::Char('u')), None);
        let Dialog::Confirm { question, .. } = &app.dialog else {
            panic!("{:?}", app.dialog)
        };
        assert!(question.contains(&host), "{question}");
        assert_eq!(press(&mut app, KeyCode::Char(no)), None);
        assert_eq!(app.dialog, Dialog::None);
    }
    press(&mut app, KeyCode::Char('u'));
    let Some(Request::Command(Command::Unban { net: Some(net), .. })) =
        press(&mut app, KeyCode::Char('y'))
    else {
        panic!("no command")
    };
    assert_eq!(net.addr().to_string(), host);
    // An address is typed over the selected one.
    let explained = press(&mut app, KeyCode::Char('e'));
    assert_eq!(explained, Some(Request::Explain(net)));
    press(&mut app, KeyCode::Tab);
    assert_eq!(app.host().as_deref(), Some("203.0.113.5"));
    press(&mut app, KeyCode::Char('b'));
    press(&mut app, KeyCode::Backspace);
    for typed in "99".chars() {
        press(&mut app, KeyCode::Char(typed));
    }
    press(&mut app, KeyCode::Enter);
    let asked = press(&mut app, KeyCode::Char('y'));
    let Some(Request::Command(Command::Ban { net, .. })) = asked else {
        panic!("{asked:?}")
    };
    assert_eq!(net.to_string(), "203.0.113.99/32");
    press(&mut app, KeyCode::Char('b'));
    press(&mut app, KeyCode::Char('x'));
    press(&mut app, KeyCode::Enter);
    assert!(matches!(&app.dialog, Dialog::Answer(text) if text.contains("neither an address")));
    press(&mut app, KeyCode::Esc);
    assert_eq!(press(&mut app, KeyCode::Char('q')), Some(Request::Quit));
}

#[test]
fn the_selection_stays_inside_and_a_missing_answer_is_shown() {
    let mut app = app();
    press(&mut app, KeyCode::End);
    assert_eq!(app.selected, 30);
    press(&mut app, KeyCode::PageDown);
    assert_eq!(app.selected, 30);
    press(&mut app, KeyCode::Home);
    press(&mut app, KeyCode::Up);
    assert_eq!(app.selected, 0);
    app.update(
        Err("the engine is not running".into()),
        NOW.parse().unwrap(),
    );
    let text = screen(&mut app, 80, 24);
    assert!(text.contains("! the engine is not running"), "{text}");
    assert!(text.contains("198.51.100.10"), "{text}");
}

#[test]
fn the_selection_stays_on_its_client_while_the_list_changes() {
    let mut app = app();
    let newer = |app: &App| {
        let mut status = app.status.clone();
        let jail = status.jails.iter_mut().find(|jail| !jail.banned.is_empty());
        let bans = &mut jail.unwrap().banned;
        bans.push(BanStatus {
            host: "203.0.113.77".into(),
            since: "2026-11-30T12:00:01Z".parse().unwrap(),
            ..bans[0].clone()
        });
        status
    };
    press(&mut app, KeyCode::Down);
    let selected = app.host();
    let next = newer(&app);
    app.update(Ok(next), NOW.parse().unwrap());
    assert_eq!((app.selected, app.host()), (2, selected));
    // At the top it shows the newest one.
    press(&mut app, KeyCode::Home);
    let next = newer(&app);
    app.update(Ok(next), NOW.parse().unwrap());
    assert_eq!(app.host().as_deref(), Some("203.0.113.77"));
}
