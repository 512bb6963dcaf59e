//! Which address of a LogFormat is the client, and whether a client could forge it.

use super::shape::{Item, Role, is_fence};

/// The field that names the client; else why none is believed.
pub(super) fn believed(items: &[Item]) -> Result<Role, String> {
    let at = |role| {
        items
            .iter()
            .position(|item| matches!(item, Item::Field(field) if field.role == role))
    };
    let found = [Role::Client, Role::Remote, Role::Peer]
        .into_iter()
        .find_map(|role| Some((role, at(role)?)));
    let Some((role, at)) = found else {
        let claims = items.iter().find_map(|item| match item {
            Item::Field(field) if claims_an_address(&field.name) => Some(&field.name),
            _ => None,
        });
        return Err(match claims {
            Some(name) => format!(
                "lines of this format can ban no client: the value of `{name}` is what a client \
                 says; put %a first (with mod_remoteip it is the client behind a trusted proxy)"
            ),
            None => "lines of this format can ban no client: the client, %a, is not a separate \
                     field; put %a first"
                .to_owned(),
        });
    };
    match items.iter().take(at).find_map(unclosed) {
        None => Ok(role),
        Some(name) => Err(format!(
            "lines of this format can ban no client: the client's address follows `{name}`, \
             which a client writes, so it could be forged; put %a first, or quotes around `{name}`"
        )),
    }
}

fn claims_an_address(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [
        "forwarded",
        "{x-real-ip}",
        "{cf-connecting-ip}",
        "{true-client-ip}",
        "{client-ip}",
    ]
    .iter()
    .any(|word| name.contains(word))
}

/// The name of a field that a client writes and that no fence closes.
fn unclosed(item: &Item) -> Option<&str> {
    match item {
        Item::Field(field) if field.class.is_text() && !field.stop.is_some_and(is_fence) => {
            Some(&field.name)
        }
        _ => None,
    }
}

/// Addresses behind words that no fence closes are nobody's; and everything between two
/// such words is as the client likes it.
pub(super) fn forget_uncertain(items: &mut [Item]) {
    let mut open = false;
    // Fields since words of the client's that no fence has ended; `None` where there are none.
    let mut since: Option<Vec<usize>> = None;
    let mut uncertain: Vec<usize> = Vec::new();
    for (at, item) in items.iter_mut().enumerate() {
        match item {
            Item::Literal(text) if text.iter().any(|b| is_fence(*b)) => since = None,
            Item::Literal(_) => {}
            Item::Field(field) if field.class.is_text() => {
                uncertain.extend(since.take().into_iter().flatten());
                since = Some(Vec::new());
                open |= !field.stop.is_some_and(is_fence);
            }
            Item::Field(field) => {
                if open && field.role.is_address() {
                    field.role = Role::None;
                }
                if let Some(since) = &mut since {
                    since.push(at);
                }
            }
        }
    }
    for at in uncertain {
        if let Some(Item::Field(field)) = items.get_mut(at) {
            field.role = Role::None;
        }
    }
}
