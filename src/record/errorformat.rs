//! An ErrorLogFormat string, compiled once.
//!
//! Apache writes such a format field by field: a blank in it (or `% `, which writes nothing) begins
//! a field, and a field whose value is empty is left out whole, with the text around it. So each
//! field is searched where it can be, from left to right, and skipped where it is not.
//!
//! Nothing behind the message is read, nor behind any other field that a client writes: quotes are
//! not escaped in the error log, so nothing shows where such a field ends. The client is believed
//! where `%a` is before all that, and behind the time and the process, which distinguish Apache's lines
//! from those of a script.

use super::fields::Record;
use super::shape::{Class, Field, Item, Reading, Role};
use super::strftime::TimeForm;

/// A compiled ErrorLogFormat, up to what a client writes.
#[derive(Debug)]
pub(super) struct ErrorFormat {
    parts: Vec<Part>,
    client: Option<Role>,
    /// Why such lines can ban no client.
    pub(super) doubt: Option<String>,
}

/// What Apache writes whole or not at all.
#[derive(Debug, Default)]
struct Part {
    items: Vec<Item>,
    may_lack: bool,
}

impl Part {
    fn has_field(&self) -> bool {
        let is_field = |item: &Item| matches!(item, Item::Field(_));
        self.items.iter().any(is_field)
    }
}

impl ErrorFormat {
    /// Compiles an ErrorLogFormat string, as in Apache's configuration or as Apache
    /// sees it.
    ///
    /// # Errors
    /// Names a directive that is not known.
    pub(super) fn compile(text: &str) -> Result<ErrorFormat, String> {
        if !text.contains('%') {
            return Err(format!(
                "`{text}` is no error log format: neither `default` or `auto` nor an \
                 ErrorLogFormat string"
            ));
        }
        let (mut parts, end) = parts(text)?;
        parts.retain(|part| !part.items.is_empty());
        let (client, doubt) = match believed(&parts, &end) {
            Ok(client) => (Some(client), None),
            Err(doubt) => (None, Some(doubt)),
        };
        Ok(ErrorFormat {
            parts,
            client,
            doubt,
        })
    }

    /// The fields of a line; `None` when it does not begin as this format does.
    pub(super) fn parse<'a>(&self, line: &'a [u8]) -> Option<Record<'a>> {
        Some(self.read(line)?.record(self.client))
    }

    pub(super) fn read<'a>(&self, line: &'a [u8]) -> Option<Reading<'a>> {
        let mut reading = Reading::new(line);
        let mut rest = line;
        for part in &self.parts {
            let mut with = reading.clone();
            match with.items(&part.items, rest) {
                Some(after) => (reading, rest) = (with, after),
                None if part.may_lack => {}
                None => return None,
            }
        }
        reading.message(rest);
        Some(reading)
    }

    /// Where in a line a second one of this format begins.
    pub(super) fn second(&self, line: &[u8]) -> Option<usize> {
        let first = self.parts.first().and_then(|part| part.items.first());
        let begins = |byte: u8| match first {
            Some(Item::Literal(text)) => text.first() == Some(&byte),
            // A weekday or a year.
            _ => byte.is_ascii_digit() || b"FMSTW".contains(&byte),
        };
        let mut places = line.iter().enumerate().skip(1);
        let second = places.find(|(at, byte)| {
            let text = || line.get(*at..).unwrap_or_default();
            begins(**byte) && self.read(text()).is_some_and(|read| read.has_time())
        });
        second.map(|(at, _)| at)
    }
}

/// What ends the part of a format that is read.
enum End {
    Message,
    /// A field that a client writes, by its name.
    Words(String),
    Nothing,
}

fn parts(text: &str) -> Result<(Vec<Part>, End), String> {
    let mut parts = vec![Part::default()];
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("% ") {
            parts.push(Part::default());
            rest = after;
            continue;
        }
        if c == ' ' {
            parts.push(Part::default());
        }
        let Some(part) = parts.last_mut() else { break };
        if c != '%' || rest.starts_with("%%") {
            let (literal, after) = literal(rest);
            match part.items.last_mut() {
                Some(Item::Literal(last)) => last.extend(literal),
                _ => part.items.push(Item::Literal(literal)),
            }
            rest = after;
            continue;
        }
        let (directive, after) = directive(rest)?;
        rest = after;
        match directive {
            Directive::Field(field, may_lack) => {
                part.may_lack |= may_lack;
                part.items.push(Item::Field(field));
            }
            Directive::Message => {
                // Apache writes a message on every line, and with it the fields around it.
                if !part.has_field() {
                    parts.pop();
                }
                return Ok((with_following(parts), End::Message));
            }
            // The text around them in their field may be missing.
            Directive::Words(name) => {
                parts.pop();
                return Ok((with_following(parts), End::Words(name)));
            }
        }
    }
    Ok((with_following(parts), End::Nothing))
}

/// Notes for each field what follows it.
fn with_following(mut parts: Vec<Part>) -> Vec<Part> {
    let mut next = None;
    for item in parts
        .iter_mut()
        .rev()
        .flat_map(|part| part.items.iter_mut().rev())
    {
        match item {
            Item::Literal(text) => next = text.first().copied(),
            Item::Field(field) => {
                field.stop = next;
                next = None;
            }
        }
    }
    parts
}

/// One literal up to the next directive or field; a backslash keeps a blank from beginning one.
fn literal(text: &str) -> (Vec<u8>, &str) {
    if let Some(rest) = text.strip_prefix("%%") {
        return (b"%".to_vec(), rest);
    }
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    let mut rest = text;
    let mut at_start = true;
    while let Some(c) = chars.next() {
        if c == '%' || (c == ' ' && !at_start) {
            break;
        }
        if c == '\\' {
            let escaped = match chars.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some(c) => c,
                None => '\\',
            };
            bytes.extend(escaped.to_string().bytes());
        } else {
            bytes.extend(c.to_string().bytes());
            at_start &= c == ' ';
        }
        rest = chars.as_str();
    }
    (bytes, rest)
}

enum Directive {
    /// Apache makes it, and whether it may be missing.
    Field(Field, bool),
    Message,
    /// Of a client's making: its name.
    Words(String),
}

fn directive(text: &str) -> Result<(Directive, &str), String> {
    let mut rest = text.get(1..).unwrap_or_default();
    let mut argument = "";
    let (mut required, mut hyphen, mut level) = (false, false, false);
    let letter = loop {
        let mut chars = rest.chars();
        let c = chars.next();
        match c {
            Some('{') => {
                let inside = chars.as_str();
                (argument, rest) = inside
                    .split_once('}')
                    .ok_or_else(|| format!("`{text}`: the `{{` is not closed"))?;
                continue;
            }
            Some('+') => required = true,
            Some('-') => hyphen = true,
            Some('0'..='9') => level = true,
            Some(letter) => {
                rest = chars.as_str();
                break letter;
            }
            None => {
                return Err(format!(
                    "`{text}` in an error log format ends before its letter"
                ));
            }
        }
        rest = chars.as_str();
    };
    let name = text
        .get(..text.len() - rest.len())
        .unwrap_or(text)
        .to_owned();
    let (class, role) = match letter {
        'M' => return Ok((Directive::Message, rest)),
        'e' | 'i' | 'n' | 'V' => return Ok((Directive::Words(name), rest)),
        'a' if argument.starts_with('c') => (Class::AddressPort, Role::Peer),
        'a' => (Class::AddressPort, Role::Client),
        'A' => (Class::AddressPort, Role::None),
        't' => (time_class(argument, &name)?, Role::Time),
        'l' => (Class::Level, Role::Level),
        'm' => (Class::Module, Role::Module),
        'P' => (Class::Number, Role::Pid),
        'T' | 'k' => (Class::Number, Role::None),
        'L' => (Class::Word, Role::None),
        'E' => (Class::Errno, Role::None),
        'F' => (Class::SourceLine, Role::None),
        'v' => (Class::Host, Role::Vhost),
        _ => {
            return Err(format!(
                "`{name}` is not among the directives of ErrorLogFormat: %a %A %e %E %F %i %k %l \
                 %L %m %M %n %P %t %T %v %V"
            ));
        }
    };
    let always =
        matches!(class, Class::ErrorTime | Class::Custom(_) | Class::Level) || letter == 'P';
    let field = Field {
        name,
        class,
        role,
        or_dash: hyphen,
        stop: None,
    };
    Ok((
        Directive::Field(field, level || !(always || required || hyphen)),
        rest,
    ))
}

/// Of `%t`: Apache's modifiers in any combination, or a strftime(3) format.
fn time_class(argument: &str, name: &str) -> Result<Class, String> {
    if argument.contains('%') {
        let form = TimeForm::compile(argument);
        return form
            .map(Class::Custom)
            .map_err(|error| format!("`{name}`: {error}"));
    }
    match argument.chars().find(|c| !"cumz".contains(*c)) {
        None => Ok(Class::ErrorTime),
        Some(unknown) => Err(format!(
            "`{name}`: `{unknown}` is not a modifier of the error log's time: c, m, u and z are, and \
             strftime fields such as %F"
        )),
    }
}

fn believed(parts: &[Part], end: &End) -> Result<Role, String> {
    let fields = || {
        parts
            .iter()
            .flat_map(|part| &part.items)
            .filter_map(|item| match item {
                Item::Field(field) => Some(field),
                Item::Literal(_) => None,
            })
    };
    let at = |role| fields().position(|field| field.role == role);
    let found = [Role::Client, Role::Peer]
        .into_iter()
        .find_map(|role| Some((role, at(role)?)));
    let Some((role, client)) = found else {
        let before = match end {
            End::Message => " before the message %M".to_owned(),
            End::Words(name) => format!(" before `{name}`, which a client writes"),
            End::Nothing => String::new(),
        };
        return Err(format!(
            "lines of this format can ban no client: the client's address %a is not in \
             it{before}; put it there, like `[client\\ %a]`"
        ));
    };
    let has = |part: &Part, role| {
        let is = |item: &Item| matches!(item, Item::Field(field) if field.role == role);
        part.items.iter().any(is)
    };
    // In a part that is never left out, or only together with the client.
    let sure = |other| {
        let mut sure = parts
            .iter()
            .filter(|part| !part.may_lack || has(part, role));
        sure.any(|part| has(part, other)) && at(other).is_some_and(|at| at < client)
    };
    if !(sure(Role::Time) && sure(Role::Pid)) {
        return Err(
            "lines of this format can ban no client: what a script writes to the error log could \
             be taken for it; put the time %t and the process %P before the client, like \
             `[%{u}t] [pid %P] [client\\ %a]`"
                .to_owned(),
        );
    }
    Ok(role)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of Apache's documentation, for threads; the last two fields are the client's.
    const DOCUMENTED: &str =
        r"[%{u}t] [%-m:%l] [pid %P:tid %T] %7F: %E: [client\ %a] %M% ,\ referer\ %{Referer}i";

    fn client_of(format: &str, line: &str) -> Option<Option<String>> {
        let record = ErrorFormat::compile(format)
            .unwrap()
            .parse(line.as_bytes())?;
        Some(
            record
                .client
                .map(|c| String::from_utf8(c.text.to_vec()).unwrap()),
        )
    }

    #[test]
    fn fields_may_be_missing_and_the_client_is_where_the_format_has_it() {
        let head = "[Sun Nov 22 11:00:33.366318 2026]";
        for (format, rest, client) in [
            (
                DOCUMENTED,
                " [core:error] [pid 1:tid 2] [client 192.0.2.1:6] AH1: x",
                Some("192.0.2.1"),
            ),
            (
                DOCUMENTED,
                " [-:error] [pid 1:tid [client ::1:6] x",
                Some("::1"),
            ),
            (
                DOCUMENTED,
                " [core:debug] [pid 1:tid 2] a.c(12): (2)No such file: [client 192.0.2.1:6] x",
                Some("192.0.2.1"),
            ),
            (
                DOCUMENTED,
                " [core:error] [pid 1:tid 2] (36)File name too long: [client 192.0.2.1:6] x",
                Some("192.0.2.1"),
            ),
            (
                DOCUMENTED,
                " [core:error] [pid 1:tid 2] (EAI 2)Name or service not known: [client 192.0.2.1:6] x",
                Some("192.0.2.1"),
            ),
            (
                DOCUMENTED,
                " [core:notice] [pid 1:tid 2] AH00094: Command line [client 192.0.2.1:6] x",
                None,
            ),
            (
                DOCUMENTED,
                " [core:notice] [pid 1:tid 2] [client 192.0.2.1:6 x",
                None,
            ),
            (
                DOCUMENTED,
                " [core:notice] [pid 1:tid 2] [client host:6] x",
                None,
            ),
            (
                "[%t] [pid %P] %E [client\\ %a] %M",
                " [pid 1] (2)No such file [client 192.0.2.1:6] x",
                Some("192.0.2.1"),
            ),
            (
                "[%t] [pid %P] [client %a] %M",
                " [pid 1] [client 192.0.2.1:6] x",
                Some("192.0.2.1"),
            ),
            ("[%t] %P %a: %M", " 1 2001:db8::1:6: x", Some("2001:db8::1")),
            (
                "[%t] %P [%{c}a] [%a] %M",
                " 1 [192.0.2.1:6] [192.0.2.2:0] x",
                Some("192.0.2.2"),
            ),
            (
                "[%t] %P [%{c}a] %v %M",
                " 1 [192.0.2.1:6] a.example x",
                Some("192.0.2.1"),
            ),
            (
                "[%t] [R:%L] [C:%{C}L] %P [%-A] [%-a] %M",
                " [C:ab+/c] 1 [-] [-] x",
                None,
            ),
        ] {
            let line = format!("{head}{rest}");
            let client = Some(client.map(str::to_owned));
            assert_eq!(client_of(format, &line), client, "{format}: {line}");
        }
        for line in [
            "",
            "Traceback: [client 192.0.2.1:6]",
            "[Sun Nov 22 11:00:33 2026] [core:bad] [pid 1:tid 2] [client 192.0.2.1:6] x",
            "[Sun Nov 22 11:00:33 2026] [core:error] [client 192.0.2.1:6] x",
            " [Sun Nov 22 11:00:33 2026] [core:error] [pid 1:tid 2] x",
        ] {
            assert_eq!(client_of(DOCUMENTED, line), None, "{line}");
        }
        let compact = "2026-11-22 11:00:33.366318 7 192.0.2.1:6 x";
        assert_eq!(
            client_of("%{cu}t %P %a %M", compact),
            Some(Some("192.0.2.1".into()))
        );
        let compact = ErrorFormat::compile("%{cu}t %P %a %M")
            .unwrap()
            .parse(compact.as_bytes());
        assert_eq!(compact.unwrap().stamp.unwrap().day, 22);
    }

    #[test]
    fn a_format_that_could_be_forged_says_so() {
        for (format, word) in [
            ("[%t] [pid %P] %M [client\\ %a]", "before the message"),
            ("[%t] [pid %P] [%{X}i] [client\\ %a] %M", "`%{X}i`"),
            ("[%t] [pid %P] %V [client\\ %a] %M", "`%V`"),
            ("[%t] [client\\ %a] %M", "%P"),
            ("%P [client\\ %a] %M", "%t"),
            ("[client\\ %a] %t %P %M", "before the client"),
            ("[%t] [%m\\ %P] [client\\ %a] %M", "before the client"),
            ("[%t] [%l] %M", "is not in"),
        ] {
            let doubt = ErrorFormat::compile(format).unwrap().doubt.expect(format);
            assert!(doubt.contains(word), "{format}: {doubt}");
        }
        assert_eq!(ErrorFormat::compile(DOCUMENTED).unwrap().doubt, None);
        for (format, word) in [
            ("combined", "neither"),
            ("[%t] %Q", "`%Q`"),
            ("[%t] %{X", "not closed"),
            ("[%t] %-", "before its letter"),
        ] {
            let error = ErrorFormat::compile(format).unwrap_err();
            assert!(error.contains(word), "{format}: {error}");
        }
    }

    #[test]
    fn a_second_line_inside_is_seen() {
        let format = ErrorFormat::compile(DOCUMENTED).unwrap();
        let head = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 1:tid 2] [client ::1:6] ";
        let two = format!("{head}torn{head}x");
        assert_eq!(format.second(two.as_bytes()), two.rfind("[Sun"));
        assert_eq!(format.second(head.as_bytes()), None);
        let bare = ErrorFormat::compile("%t %P %a %M").unwrap();
        let line = "Sun Nov 22 11:00:33 2026 1 ::1:6 x";
        assert_eq!(
            bare.second(format!("{line}{line}").as_bytes()),
            Some(line.len())
        );
        assert_eq!(bare.second(line.as_bytes()), None);
    }
}
