//! What each key does.

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::app::{App, Dialog, Request};
use crate::cli::ask::network;

/// Rows of Page Up and Page Down.
const PAGE: usize = 10;

/// Characters of an address or network at most.
const MAX_ADDRESS: usize = 50;

/// Every key, for the dialog that shows them.
pub(super) const KEYS: [(&str, &str); 10] = [
    ("up, down, k, j", "select a client"),
    ("PgUp, PgDn, Home, End", "the same, faster"),
    ("Tab", "banned clients, or clients with hits"),
    ("e, Enter", "explain the selected client"),
    ("u", "lift the bans of the selected client"),
    ("b", "ban an address"),
    ("w", "all problems"),
    ("?, h", "these keys"),
    ("Esc", "close what is open"),
    ("q, Ctrl-C", "end"),
];

pub(super) fn handle(app: &mut App, event: &Event) -> Option<Request> {
    let Event::Key(key) = event else {
        return None;
    };
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
        return Some(Request::Quit);
    }
    match std::mem::replace(&mut app.dialog, Dialog::None) {
        Dialog::None => browse(app, key),
        Dialog::Address(text) => {
            type_address(app, text, key);
            None
        }
        Dialog::Confirm { command, .. } => {
            let yes = matches!(key.code, KeyCode::Char('y' | 'Y'));
            yes.then_some(Request::Command(*command))
        }
        // Any key closes it.
        Dialog::Keys | Dialog::Problems | Dialog::Answer(_) => None,
    }
}

fn browse(app: &mut App, key: &KeyEvent) -> Option<Request> {
    let selected = app.selected;
    match key.code {
        KeyCode::Char('q') => return Some(Request::Quit),
        KeyCode::Up | KeyCode::Char('k') => app.select(selected.saturating_sub(1)),
        KeyCode::Down | KeyCode::Char('j') => app.select(selected.saturating_add(1)),
        KeyCode::PageUp => app.select(selected.saturating_sub(PAGE)),
        KeyCode::PageDown => app.select(selected.saturating_add(PAGE)),
        KeyCode::Home => app.select(0),
        KeyCode::End => app.select(usize::MAX),
        KeyCode::Tab => app.switch(),
        KeyCode::Char('e') | KeyCode::Enter => {
            let host = app.host()?;
            return network(&host).ok().map(Request::Explain);
        }
        KeyCode::Char('u') => app.ask_unban(),
        KeyCode::Char('b') => app.dialog = Dialog::Address(app.host().unwrap_or_default()),
        KeyCode::Char('w') => app.dialog = Dialog::Problems,
        KeyCode::Char('?' | 'h') => app.dialog = Dialog::Keys,
        _ => {}
    }
    None
}

fn type_address(app: &mut App, mut text: String, key: &KeyEvent) {
    match key.code {
        KeyCode::Esc => return,
        KeyCode::Enter => return app.ask_ban(&text),
        KeyCode::Backspace => {
            text.pop();
        }
        KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => text.clear(),
        KeyCode::Char(c) if !c.is_control() && text.len() < MAX_ADDRESS => text.push(c),
        _ => {}
    }
    app.dialog = Dialog::Address(text);
}

#[cfg(test)]
mod tests {
    use super::KEYS;

    #[test]
    fn every_key_is_in_the_manual() {
        let manual = include_str!("../../../man/pipeban.8");
        for (key, what) in KEYS {
            assert!(
                manual.contains(&format!("\n.It Ql {key}\n{what}\n")),
                "{key}"
            );
        }
    }
}
