//! A LogFormat string, compiled once into steps from left to right.
//!
//! # Where a field ends
//!
//! Most fields have a form: an address, a number, a time. What a client sent has none. Apache escapes
//! it, so a quote, a control character or a byte beyond ASCII (a fence) is never in it: if a fence
//! follows the field directly, the field ends there. Otherwise everything up to the next fence (or
//! the end of the line) is read first. What ends that part in a form is Apache's; between two fields
//! of the client nothing is certain.
//!
//! # The client's address
//!
//! `%a`, else `%h` if it is an address, else `%{c}a`. It is believed only if a fence closes every
//! field before it that a client writes. Otherwise the record has no client, and
//! [`Format::doubt`] says why.

use super::belief::{believed, forget_uncertain};
use super::shape::{Class, Field, Item, Role, is_fence};
use super::strftime::TimeForm;

/// A compiled LogFormat.
#[derive(Debug)]
pub(super) struct Format {
    pub(super) steps: Vec<Step>,
    /// The field that names the client; `None`: no field is believed.
    pub(super) client: Option<Role>,
    /// Why such lines can ban no client.
    pub(super) doubt: Option<String>,
}

/// One step through a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Its form shows its end.
    Item(Item),
    /// A client's words, closed by this byte.
    Closed(Field, u8),
    /// A client's words that nothing closes.
    Open(Open),
}

/// The part of a line from a client's words that nothing closes to the next fence.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Open {
    /// From the first field of the client's to the last one.
    pub(super) head: Vec<Item>,
    /// What follows it, in forms of their own.
    pub(super) tail: Vec<Item>,
    /// How long that is, where it is always the same.
    pub(super) tail_length: Option<usize>,
    /// `None`: the end of the line.
    pub(super) fence: Option<u8>,
}

impl Open {
    /// Whether it can be two quotes: an empty name.
    pub(super) fn has_user(&self) -> bool {
        let is_user = |item: &Item| matches!(item, Item::Field(f) if f.class == Class::User);
        self.head.iter().any(is_user)
    }
}

impl Format {
    /// Compiles a LogFormat string, as in Apache's configuration or as Apache sees it.
    ///
    /// # Errors
    /// Names a directive that is not known, or says why lines of such a format are ambiguous.
    pub(super) fn compile(text: &str) -> Result<Format, String> {
        let items = items(text)?;
        if !items.iter().any(|item| matches!(item, Item::Field(_))) {
            return Err(format!(
                "`{text}` is no log format: neither a known name (common, combined, vhost_common, \
                 vhost_combined, pipeban, auto) nor a LogFormat string"
            ));
        }
        let mut items = only_clear(with_whole_times(items));
        keep_one(&mut items);
        let (client, doubt) = match believed(&items) {
            Ok(client) => (Some(client), None),
            Err(doubt) => (None, Some(doubt)),
        };
        forget_uncertain(&mut items);
        Ok(Format {
            steps: steps(items)?,
            client,
            doubt,
        })
    }

    /// Whether it reads every line of the other format as that one does.
    pub(super) fn reads(&self, other: &Format) -> bool {
        let step = |(ours, theirs): (&Step, &Step)| match (ours, theirs) {
            (Step::Item(Item::Field(ours)), Step::Item(Item::Field(theirs))) => ours.reads(theirs),
            _ => ours == theirs,
        };
        self.steps.len() == other.steps.len() && self.steps.iter().zip(&other.steps).all(step)
    }

    /// Whether the client is the value of `%h`.
    pub(super) fn is_client_by_name(&self) -> bool {
        self.client == Some(Role::Remote)
    }

    /// Whether it holds the peer of the connection.
    pub(super) fn has_peer(&self) -> bool {
        let is_peer =
            |step: &Step| matches!(step, Step::Item(Item::Field(f)) if f.role == Role::Peer);
        self.steps.iter().any(is_peer)
    }

    /// Whether it holds a field of one of these roles.
    pub(super) fn has(&self, roles: &[Role]) -> bool {
        let is_one = |item: &Item| matches!(item, Item::Field(f) if roles.contains(&f.role));
        self.steps.iter().any(|step| match step {
            Step::Item(item) => is_one(item),
            Step::Closed(field, _) => roles.contains(&field.role),
            Step::Open(open) => open.head.iter().chain(&open.tail).any(is_one),
        })
    }
}

/// Literals and fields as in the text; neighbouring literals joined.
fn items(text: &str) -> Result<Vec<Item>, String> {
    let mut items: Vec<Item> = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (item, after) = match c {
            '%' => directive(rest)?,
            '\\' => escape(rest)?,
            _ => {
                let (head, tail) = rest.split_at(c.len_utf8());
                (Item::Literal(head.as_bytes().to_vec()), tail)
            }
        };
        rest = after;
        match (items.last_mut(), item) {
            (Some(Item::Literal(last)), Item::Literal(more)) => last.extend(more),
            (_, item) => items.push(item),
        }
    }
    Ok(items)
}

fn escape(text: &str) -> Result<(Item, &str), String> {
    let behind = text.get(2..).unwrap_or_default();
    let (byte, rest) = match text.as_bytes().get(1) {
        Some(b't') => (b'\t', behind),
        Some(b'r') => (b'\r', behind),
        Some(b'n') => {
            return Err(
                "with `\\n` in the log format one request makes several lines, and pipeban reads \
                 each line alone: remove it"
                    .to_owned(),
            );
        }
        Some(byte @ (b'"' | b'\\')) => (*byte, behind),
        // Apache keeps the backslash, and goes on with what follows.
        _ => (b'\\', text.get(1..).unwrap_or_default()),
    };
    Ok((Item::Literal(vec![byte]), rest))
}

/// One `%` directive, as mod_log_config reads it: conditions, `<`, `>` and `{...}` in any order,
/// then the letter.
fn directive(text: &str) -> Result<(Item, &str), String> {
    let body = text.get(1..).unwrap_or_default();
    if let Some(rest) = body.strip_prefix('%') {
        return Ok((Item::Literal(b"%".to_vec()), rest));
    }
    let mut argument = "";
    let mut rest = body;
    let mut flags = String::new();
    loop {
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit() || "!,<>".contains(c));
        flags.push_str(rest.get(..rest.len() - after.len()).unwrap_or_default());
        rest = after;
        let Some(inside) = rest.strip_prefix('{') else {
            break;
        };
        (argument, rest) = inside
            .split_once('}')
            .ok_or_else(|| format!("`{text}`: the `{{` is not closed"))?;
    }
    let length = match rest.chars().next() {
        Some('^') => rest.char_indices().nth(3).map_or(rest.len(), |(at, _)| at),
        Some(c) => c.len_utf8(),
        None => return Err(format!("`{text}` in a log format ends before its letter")),
    };
    let (letter, rest) = rest.split_at_checked(length).unwrap_or((rest, ""));
    let name = text
        .get(..text.len() - rest.len())
        .unwrap_or(text)
        .to_owned();
    let (class, role) = match meaning(letter, argument, &name)? {
        Meaning::Field(class, role) => (class, role),
        Meaning::Literal => return Ok((Item::Literal(argument.as_bytes().to_vec()), rest)),
    };
    let role = match role {
        // The status of the original request counts less than the last one's.
        Role::Status if !flags.contains('>') => Role::FirstStatus,
        role => role,
    };
    let field = Field {
        or_dash: flags.contains(|c: char| c.is_ascii_digit()),
        name,
        class,
        role,
        stop: None,
    };
    Ok((Item::Field(field), rest))
}

enum Meaning {
    Field(Class, Role),
    /// An argument that Apache does not know, and writes unchanged.
    Literal,
}

fn meaning(letter: &str, argument: &str, name: &str) -> Result<Meaning, String> {
    let among = |known: &[&str]| known.iter().any(|word| word.eq_ignore_ascii_case(argument));
    let number = |known: &[&str]| {
        if among(known) {
            Meaning::Field(Class::Number, Role::None)
        } else {
            Meaning::Literal
        }
    };
    let (class, role) = match letter {
        "a" if argument == "c" => (Class::Address, Role::Peer),
        "a" => (Class::Address, Role::Client),
        "A" => (Class::Address, Role::None),
        "h" if argument == "c" => (Class::Name, Role::None),
        "h" => (Class::Name, Role::Remote),
        "v" => (Class::Host, Role::Vhost),
        "V" => (Class::Text, Role::Vhost),
        "t" => (time_class(argument, name)?, Role::Time),
        "s" => (Class::Number, Role::Status),
        "r" => (Class::Text, Role::Request),
        "u" => (Class::User, Role::User),
        "b" | "B" | "O" => (Class::Number, Role::Bytes),
        "D" | "I" | "k" | "S" | "^FB" | "^FU" => (Class::Number, Role::None),
        "T" => return Ok(number(&["", "s", "ms", "us"])),
        "p" if among(&["", "canonical", "local"]) => (Class::Number, Role::Port),
        "p" => return Ok(number(&["remote"])),
        "P" if among(&["hextid"]) => (Class::Hex, Role::None),
        "P" => return Ok(number(&["", "pid", "tid"])),
        "l" => (Class::Word, Role::Ident),
        "L" | "R" | "X" => (Class::Word, Role::None),
        "i" if argument.eq_ignore_ascii_case("user-agent") => (Class::Text, Role::Agent),
        "i" if argument.eq_ignore_ascii_case("referer") => (Class::Text, Role::Referer),
        "m" => (Class::Text, Role::Method),
        "U" => (Class::Text, Role::Path),
        "q" => (Class::Text, Role::Query),
        "H" => (Class::Text, Role::Protocol),
        "C" | "e" | "f" | "i" | "n" | "o" | "^ti" | "^to" => (Class::Text, Role::None),
        "c" | "x" if TLS_WORDS.contains(&argument) => (Class::Word, Role::None),
        "c" | "x" => {
            return Err(format!(
                "`{name}` in a log format: mod_ssl writes it as the client sent it, newlines \
                 included (before Apache 2.4.64), so whole lines could be forged: remove it"
            ));
        }
        _ => {
            return Err(format!(
                "`{name}` is not among the directives of mod_log_config: %a %A %b %B %C %D %e %f \
                 %h %H %i %I %k %l %L %m %n %o %O %p %P %q %r %R %s %S %t %T %u %U %v %V %X %^ti \
                 %^to"
            ));
        }
    };
    Ok(Meaning::Field(class, role))
}

/// What mod_ssl says of a connection in OpenSSL's words.
const TLS_WORDS: [&str; 11] = [
    "SSL_PROTOCOL",
    "SSL_CIPHER",
    "SSL_CIPHER_EXPORT",
    "SSL_CIPHER_USEKEYSIZE",
    "SSL_CIPHER_ALGKEYSIZE",
    "SSL_SESSION_ID",
    "SSL_SESSION_RESUMED",
    "SSL_CLIENT_VERIFY",
    "HTTPS",
    "version",
    "cipher",
];

fn time_class(argument: &str, name: &str) -> Result<Class, String> {
    let format = argument
        .strip_prefix("begin:")
        .or_else(|| argument.strip_prefix("end:"))
        .unwrap_or(argument);
    match format {
        "" | "begin" | "end" => Ok(Class::Time),
        _ => TimeForm::compile(format)
            .map(Class::Custom)
            .map_err(|error| format!("`{name}`: {error}")),
    }
}

/// Times that are side by side, or have only marks like `.` or a blank between them, are one time.
fn with_whole_times(items: Vec<Item>) -> Vec<Item> {
    let mut whole: Vec<Item> = Vec::new();
    for item in items {
        whole.push(item);
        let joined = match whole.as_slice() {
            [.., Item::Field(a), Item::Field(b)] => joined(a, b"", b).map(|time| (2, time)),
            [.., Item::Field(a), Item::Literal(between), Item::Field(b)] => {
                joined(a, between, b).map(|time| (3, time))
            }
            _ => None,
        };
        if let Some((count, time)) = joined {
            whole.truncate(whole.len() - count);
            whole.push(Item::Field(time));
        }
    }
    whole
}

fn joined(a: &Field, between: &[u8], b: &Field) -> Option<Field> {
    let (Class::Custom(first), Class::Custom(second)) = (&a.class, &b.class) else {
        return None;
    };
    let marks = between.len() <= 3 && between.iter().all(|byte| b" .,:;_T/+-".contains(byte));
    let ends = match between.first() {
        Some(byte) => first.ends_before(*byte),
        None => first.ends_before(b'0') && first.ends_before(b'+'),
    };
    (marks && ends && !a.or_dash && !b.or_dash).then(|| Field {
        name: format!("{}{}{}", a.name, String::from_utf8_lossy(between), b.name),
        class: Class::Custom(first.clone().joined(between, second.clone())),
        ..a.clone()
    })
}

/// Fields that have no form count as words of a client; what is side
/// by side is one such field.
fn only_clear(items: Vec<Item>) -> Vec<Item> {
    let mut clear: Vec<Item> = Vec::new();
    let mut items = items.into_iter().peekable();
    while let Some(item) = items.next() {
        let Item::Field(mut field) = item else {
            clear.push(item);
            continue;
        };
        let alone = match &field.class {
            Class::Time => true,
            Class::Custom(form) => form.ends_before(b'0') && form.ends_before(b'a'),
            _ => false,
        };
        while let Some(Item::Field(next)) = items.peek()
            && !alone
        {
            field = Field {
                name: format!("{}{}", field.name, next.name),
                class: Class::Text,
                role: match (field.role, next.role) {
                    (Role::Path, Role::Query) => Role::Path,
                    _ => Role::None,
                },
                or_dash: false,
                stop: None,
            };
            items.next();
        }
        let behind = match items.peek() {
            Some(Item::Literal(text)) => text.as_slice(),
            _ => &[],
        };
        field.stop = behind.first().copied();
        let port = matches!(field.class, Class::Address | Class::Name)
            && match behind {
                b":" => true,
                [b':', next, ..] => !(next.is_ascii_alphanumeric() || b"._-:%".contains(next)),
                _ => false,
            };
        if let Some(next) = field.stop
            && !port
            && !field.class.is_text()
            && !field.class.ends_before(next)
        {
            field.class = Class::Text;
            field.role = Role::None;
        }
        clear.push(Item::Field(field));
    }
    clear
}

/// Of several times or addresses of one kind the first one, of several statuses the last
/// request's.
fn keep_one(items: &mut [Item]) {
    let has = |items: &[Item], role| {
        let is = |item: &Item| matches!(item, Item::Field(field) if field.role == role);
        items.iter().any(is)
    };
    let has_last_status = has(items, Role::Status);
    let mut seen: Vec<Role> = Vec::new();
    for item in items {
        let Item::Field(field) = item else { continue };
        field.role = match field.role {
            Role::FirstStatus if has_last_status => Role::None,
            Role::FirstStatus => Role::Status,
            role if seen.contains(&role) && (role == Role::Time || role.is_address()) => Role::None,
            role => role,
        };
        seen.push(field.role);
    }
}

fn steps(items: Vec<Item>) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut items = items.into_iter().collect::<std::collections::VecDeque<_>>();
    while let Some(item) = items.pop_front() {
        let field = match item {
            Item::Field(field) if field.class.is_text() => field,
            item => {
                steps.push(Step::Item(item));
                continue;
            }
        };
        if let Some(fence) = field.stop.filter(|stop| is_fence(*stop)) {
            steps.push(Step::Closed(field, fence));
            continue;
        }
        let mut region = vec![Item::Field(field)];
        let mut fence = None;
        while let Some(item) = items.pop_front() {
            match item {
                Item::Literal(mut text) => {
                    let at = text.iter().position(|b| is_fence(*b));
                    let Some(at) = at else {
                        region.push(Item::Literal(text));
                        continue;
                    };
                    let behind = text.split_off(at);
                    fence = behind.first().copied();
                    if !text.is_empty() {
                        region.push(Item::Literal(text));
                    }
                    items.push_front(Item::Literal(behind));
                    break;
                }
                Item::Field(field) => {
                    if let Class::Custom(form) = &field.class
                        && form.any_byte(is_fence)
                    {
                        return Err(format!(
                            "`{}` in a log format has a quote or a tab and follows text \
                             of a client: put that text into quotes",
                            field.name
                        ));
                    }
                    region.push(Item::Field(field));
                }
            }
        }
        let is_text = |item: &Item| matches!(item, Item::Field(f) if f.class.is_text());
        let last = region.iter().rposition(is_text).unwrap_or(0);
        let tail = region.split_off(last + 1);
        steps.push(Step::Open(Open {
            head: region,
            tail_length: fixed_length(&tail),
            tail,
            fence,
        }));
    }
    Ok(steps)
}

/// Of literals and times in brackets.
fn fixed_length(items: &[Item]) -> Option<usize> {
    let lengths = items.iter().map(|item| match item {
        Item::Literal(text) => Some(text.len()),
        Item::Field(field) if field.class == Class::Time && !field.or_dash => {
            Some("[22/Nov/2026:11:00:32 +0000]".len())
        }
        Item::Field(_) => None,
    });
    lengths.sum()
}
