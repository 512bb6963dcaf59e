//! A LogFormat string, compiled once into literals and fields.
//!
//! A format is accepted only when the end of each of its fields can be told, and when nothing
//! that a client writes can be taken for its address.

/// One step through a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// These bytes stand there.
    Literal(Vec<u8>),
    /// A field's value stands there.
    Field(Class, Role),
}

/// How the end of a field is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// `%a`, `%{c}a`: an address or `-`.
    Address,
    /// `%h`: an address, a host name or `-`.
    Name,
    /// `%v`, `%V`: a host name, or IPv6 in brackets.
    Host,
    /// Digits or `-`.
    Number,
    /// `[dd/Mon/yyyy:hh:mm:ss +zzzz]`
    Time,
    /// Apache's own word without a space.
    Word,
    /// What a client chose. Ends at the unescaped quote where a quote follows, else at the first
    /// place where what follows fits.
    Free,
}

/// What a field is to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing.
    None,
    /// `%a`
    Client,
    /// `%h`, the client where no `%a` is.
    Remote,
    /// `%{c}a`
    Peer,
    /// `%v`, `%V`
    Vhost,
    /// `%t`
    Time,
    /// `%s`
    Status,
    /// `%r`
    Request,
    /// `%{User-Agent}i`
    Agent,
}

/// A compiled LogFormat.
#[derive(Debug)]
pub(super) struct Format {
    pub(super) items: Vec<Item>,
}

impl Format {
    /// Compiles a LogFormat string.
    ///
    /// # Errors
    /// Says which directive is not known, or whose end could not be told.
    pub(super) fn compile(text: &str) -> Result<Format, String> {
        let mut items: Vec<Item> = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let (item, after) = match c {
                '%' => directive(rest)?,
                '\\' => escape(rest),
                _ => {
                    let (head, tail) = rest.split_at(c.len_utf8());
                    (Item::Literal(head.as_bytes().to_vec()), tail)
                }
            };
            rest = after;
            push(&mut items, item);
        }
        if !items.iter().any(|item| matches!(item, Item::Field(..))) {
            return Err(format!(
                "`{text}` is no log format: neither a known name (common, combined, vhost_common, \
                 vhost_combined, pipeban, auto) nor a LogFormat string"
            ));
        }
        ends_can_be_told(&items)?;
        address_cannot_be_forged(&items)?;
        Ok(Format { items })
    }
}

/// Joins neighbouring literals, and fields of the client's words that nothing parts (`%U%q`).
fn push(items: &mut Vec<Item>, item: Item) {
    match (items.last_mut(), item) {
        (Some(Item::Literal(last)), Item::Literal(more)) => last.extend(more),
        (Some(Item::Field(Class::Free, Role::None)), Item::Field(Class::Free, Role::None)) => {}
        (_, item) => items.push(item),
    }
}

fn escape(text: &str) -> (Item, &str) {
    let mut chars = text.chars();
    chars.next();
    let bytes = match chars.next() {
        Some('t') => b"\t".to_vec(),
        Some('n') => b"\n".to_vec(),
        Some('r') => b"\r".to_vec(),
        Some(c @ ('"' | '\\')) => vec![c as u8],
        Some(c) => format!("\\{c}").into_bytes(),
        None => b"\\".to_vec(),
    };
    (Item::Literal(bytes), chars.as_str())
}

fn directive(text: &str) -> Result<(Item, &str), String> {
    let body = text.get(1..).unwrap_or_default();
    if let Some(rest) = body.strip_prefix('%') {
        return Ok((Item::Literal(b"%".to_vec()), rest));
    }
    let modifier = |c: char| c.is_ascii_digit() || "!,<>".contains(c);
    let mut rest = body.trim_start_matches(modifier);
    let mut argument = None;
    if let Some(inside) = rest.strip_prefix('{') {
        let (inner, after) = inside
            .split_once('}')
            .ok_or_else(|| format!("`{text}`: the `{{` is not closed"))?;
        argument = Some(inner);
        rest = after.trim_start_matches(modifier);
    }
    let letter = rest.chars().next();
    let rest = rest
        .get(letter.map_or(0, char::len_utf8)..)
        .unwrap_or_default();
    let (class, role) = match (letter, argument) {
        (Some('a'), None) => (Class::Address, Role::Client),
        (Some('a'), Some("c")) => (Class::Address, Role::Peer),
        (Some('A'), None) => (Class::Address, Role::None),
        (Some('h'), None) => (Class::Name, Role::Remote),
        (Some('h'), Some("c")) => (Class::Name, Role::None),
        (Some('v' | 'V'), None) => (Class::Host, Role::Vhost),
        (Some('t'), None) => (Class::Time, Role::Time),
        (Some('s'), None) => (Class::Number, Role::Status),
        (Some('r'), None) => (Class::Free, Role::Request),
        (Some('b' | 'B' | 'O' | 'I' | 'S' | 'D' | 'k'), None) | (Some('T' | 'P' | 'p'), _) => {
            (Class::Number, Role::None)
        }
        (Some('l' | 'X' | 'L'), None) | (Some('L'), Some("c")) => (Class::Word, Role::None),
        (Some('i'), Some(header)) if header.eq_ignore_ascii_case("user-agent") => {
            (Class::Free, Role::Agent)
        }
        (Some('u' | 'U' | 'q' | 'm' | 'H' | 'f' | 'R'), None)
        | (Some('i' | 'o' | 'C' | 'n' | 'e'), Some(_)) => (Class::Free, Role::None),
        _ => {
            let end = text.len() - rest.len();
            return Err(format!(
                "`{}` in a log format is not understood yet; the directives that are: %a %{{c}}a \
                 %A %b %B %D %f %h %H %I %k %l %L %m %O %p %P %q %r %R %s %S %t %T %u %U %v %V %X \
                 and %{{...}}i o C n e",
                text.get(..end).unwrap_or(text)
            ));
        }
    };
    Ok((Item::Field(class, role), rest))
}

fn ends_can_be_told(items: &[Item]) -> Result<(), String> {
    for pair in items.windows(2) {
        let [Item::Field(class, _), next] = pair else {
            continue;
        };
        let told = match (class, next) {
            (Class::Time, _) => true,
            (_, Item::Field(..)) => false,
            (Class::Free | Class::Word, _) => true,
            // The last colon ends an address: a port follows.
            (Class::Address | Class::Name, Item::Literal(text)) => {
                text.first().is_some_and(|b| *b == b':' || !class.holds(*b))
            }
            (_, Item::Literal(text)) => text.first().is_some_and(|b| !class.holds(*b)),
        };
        if !told {
            return Err(
                "two fields of the log format stand side by side, or the text between them may be \
                 part of the first: put a space or quotes between them"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

/// No address may stand behind words of the client whose end the client could feign.
fn address_cannot_be_forged(items: &[Item]) -> Result<(), String> {
    let unmistakable = |b: &u8| *b == b'"' || b.is_ascii_control();
    let feigned = items.iter().enumerate().find(|(at, item)| {
        if !matches!(item, Item::Field(Class::Free, _)) {
            return false;
        }
        match (items.get(at + 1), items.get(at + 2), items.get(at + 3)) {
            // Escaping keeps quotes and control characters out of the field.
            (Some(Item::Literal(text)), ..) if text.first().is_some_and(unmistakable) => false,
            (_, Some(Item::Field(Class::Time, _)), Some(Item::Literal(text))) => {
                !text.iter().any(unmistakable)
            }
            _ => true,
        }
    });
    let Some((at, _)) = feigned else {
        return Ok(());
    };
    let forged = items.iter().skip(at).any(|item| {
        matches!(
            item,
            Item::Field(_, Role::Client | Role::Remote | Role::Peer)
        )
    });
    if forged {
        return Err(
            "in this log format the client's address stands behind text that a client writes, so \
             it could be forged: put %a first, or put quotes around the fields before it"
                .to_owned(),
        );
    }
    Ok(())
}

impl Format {
    /// Whether the peer of the connection stands in it.
    pub(super) fn has_peer(&self) -> bool {
        let is_peer = |item: &Item| matches!(item, Item::Field(_, Role::Peer));
        self.items.iter().any(is_peer)
    }
}

impl Class {
    /// Whether the byte may stand in a value of this class.
    pub(super) fn holds(self, byte: u8) -> bool {
        match self {
            Class::Address => byte.is_ascii_alphanumeric() || b":.%_-".contains(&byte),
            Class::Name => byte.is_ascii_alphanumeric() || b":.%_-".contains(&byte),
            Class::Host => byte.is_ascii_alphanumeric() || b"._-*".contains(&byte),
            Class::Number => byte.is_ascii_digit() || byte == b'-' || byte == b'.',
            Class::Word => byte > b' ' && byte != b'"',
            Class::Time | Class::Free => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_told_or_trusted_is_refused_in_words() {
        for (format, word) in [
            ("nonsense", "known name"),
            ("%h %Y", "`%Y`"),
            ("%h %{%s}t", "`%{%s}t`"),
            ("%h %{X", "not closed"),
            ("%h%l", "side by side"),
            ("%h-%l", "may be part"),
            ("%h %U%a", "side by side"),
            ("%{X-Forwarded-For}i %h", "forged"),
            ("%u %t %h", "forged"),
        ] {
            let error = Format::compile(format).unwrap_err();
            assert!(error.contains(word), "{format}: {error}");
        }
        for format in [
            "%u %t \"%r\" %a",
            "\"%{X-Forwarded-For}i\" %h",
            "%m\\t%U%q\\t%a",
            "%a:%{remote}p %t",
            "%h %!200,304{Referer}i",
            "%<s %% %>s",
        ] {
            assert!(Format::compile(format).is_ok(), "{format}");
        }
    }
}
