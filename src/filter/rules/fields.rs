//! The fields of a record as rules see them.

use super::part::PARTS;
use super::rule::{Family, Field};
use super::scratch::Buffers;
use crate::decode::{Buffer, Form, canonical, is_plain, without_shell_quotes};
use crate::record::Record;

/// The fields of one record. Texts are canonical but for those that Apache or TLS decide.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    pub(super) request: &'a [u8],
    method: &'a [u8],
    protocol: &'a [u8],
    path: &'a [u8],
    url: Texts<'a>,
    referer: Texts<'a>,
    user_agent: Texts<'a>,
    user: &'a [u8],
    message: &'a [u8],
    code: &'a [u8],
    vhost: &'a [u8],
    module: &'a [u8],
    level: &'a [u8],
    status: Option<u64>,
    bytes: Option<u64>,
    port: Option<u64>,
    /// Path and url are parts of the request as logged.
    is_plain: bool,
}

/// A text, and how a shell would read it where that differs.
#[derive(Debug, Clone, Copy, Default)]
struct Texts<'a> {
    text: &'a [u8],
    shell: Option<&'a [u8]>,
}

impl<'a> Texts<'a> {
    fn of(field: &'a [u8], form: Form, text: &'a mut Buffer, shell: &'a mut Buffer) -> Texts<'a> {
        if field.is_empty() {
            return Texts::default();
        }
        let text = canonical(field, form, text);
        Texts {
            text,
            shell: without_shell_quotes(text, shell),
        }
    }

    fn any(self, mut holds: impl FnMut(&[u8]) -> bool) -> bool {
        holds(self.text) || self.shell.is_some_and(holds)
    }
}

impl<'a> Fields<'a> {
    pub(super) fn of(record: &Record<'a>, buffers: &'a mut Buffers) -> Fields<'a> {
        Fields::of_parts(record, buffers, [true; PARTS])
    }

    /// As [`Fields::of`], with only the texts of some of [`Part::of`]; the others are empty.
    pub(super) fn of_parts(
        record: &Record<'a>,
        buffers: &'a mut Buffers,
        [target, by_referer, by_agent, by_user]: [bool; PARTS],
    ) -> Fields<'a> {
        let wanted = |wanted: bool, text: &'a [u8]| if wanted { text } else { b"" };
        let [url, referer, user_agent, user, message] = &mut buffers.texts;
        let [url_shell, referer_shell, agent_shell] = &mut buffers.shells;
        let request = wanted(target, record.request.unwrap_or_default());
        let mut parts = match record.message {
            Some(message) => Parts::of_error(message),
            None => Parts::of_request(request),
        };
        if !target {
            (parts.path, parts.target, parts.message) = (b"", b"", b"");
        }
        let sent_referer = record.referer.or(parts.referer).unwrap_or_default();
        let sent_referer = wanted(by_referer, sent_referer);
        let agent = wanted(by_agent, record.agent.unwrap_or_default());
        let sent_user = wanted(by_user, record.user.unwrap_or_default());
        // One look at a request serves all that it is made of.
        let decoded = record.message.is_none() && is_plain(request);
        let path = match decoded {
            true => parts.path,
            false => canonical(parts.path, Form::Path, &mut buffers.path),
        };
        let text = without_sql(parts.target, &mut buffers.target);
        let url = match decoded {
            true => Texts { text, shell: None },
            false => Texts::of(text, Form::Query, url, url_shell),
        };
        let same = |text: &[u8], logged: &[u8]| std::ptr::eq(text, logged);
        let is_plain = record.message.is_none()
            && url.shell.is_none()
            && same(url.text, parts.target)
            && same(path, parts.path);
        Fields {
            is_plain,
            request,
            method: parts.method,
            protocol: parts.protocol,
            path,
            url,
            referer: Texts::of(sent_referer, Form::Text, referer, referer_shell),
            user_agent: Texts::of(agent, Form::Text, user_agent, agent_shell),
            user: canonical(sent_user, Form::Text, user),
            message: canonical(parts.message, Form::Text, message),
            code: parts.code,
            vhost: record.vhost.unwrap_or_default(),
            module: record.module.unwrap_or_default(),
            level: record.level.unwrap_or_default(),
            status: record.status.or(parts.status).map(u64::from),
            bytes: record.bytes,
            port: record.port.map(u64::from),
        }
    }

    /// Whether a text of this field satisfies `holds`.
    pub(super) fn any(&self, field: Field, mut holds: impl FnMut(&[u8]) -> bool) -> bool {
        match field {
            Field::Method => holds(self.method),
            Field::Path => holds(self.path),
            Field::Query => self.url.any(|text| holds(query(text))),
            Field::Url => self.url.any(holds),
            Field::Payload => {
                self.url.any(&mut holds)
                    || self.user_agent.any(|text| holds(behind_browser(text)))
                    || self.referer.any(|text| !is_url(text) && holds(text))
                    || holds(self.user)
            }
            Field::Referer => self.referer.any(holds),
            Field::UserAgent => self.user_agent.any(holds),
            Field::User => holds(self.user),
            Field::Vhost => holds(self.vhost),
            Field::Protocol => holds(self.protocol),
            Field::Request => holds(self.request),
            Field::Module => holds(self.module),
            Field::Level => holds(self.level),
            Field::Code => holds(self.code),
            Field::Message => holds(self.message),
            Field::Status | Field::Bytes | Field::Port => false,
        }
    }

    /// Every text of a family; with a field those of the family that such a condition sees.
    pub(super) fn each(&self, family: Family, field: Option<Field>, mut visit: impl FnMut(&[u8])) {
        let mut both = |texts: Texts<'_>, part: fn(&[u8]) -> &[u8]| {
            texts.any(|text| {
                visit(part(text));
                false
            });
        };
        let whole: fn(&[u8]) -> &[u8] = |text| text;
        match (family, field) {
            (Family::Referer, Some(Field::Payload)) if is_url(self.referer.text) => {}
            (Family::Referer, _) => both(self.referer, whole),
            (Family::Agent, _) => both(self.user_agent, whole),
            (Family::Behind, _) => both(self.user_agent, behind_browser),
            (Family::User, _) => visit(self.user),
            (Family::Message, _) => visit(self.message),
            (Family::Target, Some(Field::Path)) => visit(self.path),
            (Family::Target, Some(Field::Query)) => both(self.url, query),
            (Family::Target, Some(Field::Request)) => visit(self.request),
            (Family::Target, Some(_)) => both(self.url, whole),
            (Family::Target, None) => {
                if !self.is_plain {
                    both(self.url, whole);
                    visit(self.path);
                }
                visit(self.request);
            }
        }
    }

    pub(super) fn number(&self, field: Field) -> Option<u64> {
        match field {
            Field::Status => self.status,
            Field::Bytes => self.bytes,
            Field::Port => self.port,
            _ => None,
        }
    }
}

/// A user agent without the brackets in which a browser names its system, semicolons included.
fn behind_browser(agent: &[u8]) -> &[u8] {
    let name = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._- ".contains(byte);
    let behind = || {
        let open = memchr::memchr(b'(', agent)?;
        let product = agent.get(..open)?;
        let version = product.ends_with(b" ") && product.contains(&b'/');
        let close = memchr::memchr(b')', agent).filter(|close| *close > open + 1)?;
        (version && product.iter().all(name)).then(|| agent.get(close + 1..))?
    };
    behind().unwrap_or(agent)
}

/// A referrer that is a URL holds what the page that links here was asked for.
fn is_url(referer: &[u8]) -> bool {
    begins_with(referer, b"http://") || begins_with(referer, b"https://")
}

/// Where the blank before `HTTP/1.1` is. With `HttpProtocolOptions Unsafe` Apache also takes `http/1.1`.
pub(super) fn before_protocol(request: &[u8]) -> Option<usize> {
    memchr::memrchr_iter(b' ', request)
        .find(|blank| begins_with(request.get(blank + 1..).unwrap_or_default(), b"HTTP/"))
}

fn begins_with(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len())
        .is_some_and(|begins| begins.eq_ignore_ascii_case(word))
}

fn query(url: &[u8]) -> &[u8] {
    memchr::memchr(b'?', url)
        .and_then(|at| url.get(at + 1..))
        .unwrap_or_default()
}

/// What a request line or a message of the error log consists of, undecoded.
#[derive(Default)]
struct Parts<'a> {
    method: &'a [u8],
    target: &'a [u8],
    path: &'a [u8],
    protocol: &'a [u8],
    message: &'a [u8],
    code: &'a [u8],
    referer: Option<&'a [u8]>,
    status: Option<u16>,
}

/// Messages of Apache's that name a path, by their codes, and the status that Apache answers with.
/// Not AH01215: a script's stderr names files of the script, which no visitor chose.
const PATH_CODES: [(&[u8], u16); 18] = [
    (b"AH00026", 404),
    (b"AH00035", 403),
    (b"AH00036", 403),
    (b"AH00037", 403),
    (b"AH00082", 403),
    (b"AH00124", 500),
    (b"AH00126", 400),
    (b"AH00127", 403),
    (b"AH00128", 404),
    (b"AH00129", 404),
    (b"AH00132", 403),
    (b"AH01264", 404),
    (b"AH01276", 403),
    (b"AH01630", 403),
    (b"AH01797", 403),
    (b"AH02811", 404),
    (b"AH10244", 400),
    (b"AH10411", 400),
];

impl<'a> Parts<'a> {
    fn of_request(request: &'a [u8]) -> Parts<'a> {
        let Some(blank) = memchr::memchr(b' ', request) else {
            return Parts {
                target: request,
                ..Parts::default()
            };
        };
        let (method, rest) = request.split_at_checked(blank).unwrap_or_default();
        let rest = rest.get(1..).unwrap_or_default();
        let (target, protocol) = before_protocol(rest).map_or((rest, &[][..]), |at| {
            rest.split_at_checked(at).unwrap_or_default()
        });
        let path = memchr::memchr(b'?', target).and_then(|at| target.get(..at));
        Parts {
            method,
            target,
            path: path.unwrap_or(target),
            protocol: protocol.trim_ascii_start(),
            ..Parts::default()
        }
    }

    fn of_error(message: &'a [u8]) -> Parts<'a> {
        let code = code(message);
        let behind_code = code.and_then(|_| message.get(9..)).unwrap_or(message);
        let (text, referer) = match memchr::memmem::rfind(behind_code, b", referer: ") {
            Some(at) => (behind_code.get(..at), behind_code.get(at + 11..)),
            None => (Some(behind_code), None),
        };
        let text = text.unwrap_or_default();
        let code = code.unwrap_or_default();
        let known = PATH_CODES.iter().find(|(known, _)| *known == code);
        let missing = missing_script(text);
        let target = match code {
            // In brackets, the last ones of the text.
            b"AH10244" | b"AH00026" => memchr::memmem::find(text, b" (/").and_then(|at| {
                let end = memchr::memrchr(b')', text)?;
                text.get(at + 2..end)
            }),
            _ => memchr::memchr(b'/', text).and_then(|at| text.get(at..)),
        };
        let target = target.filter(|_| known.is_some()).or(missing);
        let target = target.unwrap_or_default();
        let end = target.iter().position(|b| matches!(b, b' ' | b'?'));
        let path = end.and_then(|end| target.get(..end)).unwrap_or(target);
        Parts {
            target,
            path: path.strip_suffix(b":").unwrap_or(path),
            message: text,
            code,
            referer,
            status: known.map(|(_, status)| *status).or(missing.map(|_| 404)),
            ..Parts::default()
        }
    }
}

/// The path in a message of mod_php, which has no number.
fn missing_script(text: &[u8]) -> Option<&[u8]> {
    text.strip_prefix(b"script '")?
        .strip_suffix(b"' not found or unable to stat")
}

/// The number with which a message of Apache's begins.
pub(super) fn code(message: &[u8]) -> Option<&[u8]> {
    let code = message.get(..7).filter(|code| code.starts_with(b"AH"));
    code.filter(|_| message.get(7..9) == Some(b": "))
}

/// The target without the values of parameters that are in a query language by design: of database
/// tools, maps and trackers.
fn without_sql<'a>(target: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
    const NAMES: [&[u8]; 7] = [
        b"sql_query=",
        b"where_clause=",
        b"sql=",
        b"where=",
        b"jql=",
        b"cql=",
        b"cql_filter=",
    ];
    let query = memchr::memchr(b'?', target).map_or(target.len(), |at| at + 1);
    let (head, parameters) = target.split_at_checked(query).unwrap_or_default();
    let parameters = || parameters.split(|byte| *byte == b'&');
    let kept = |parameter: &'a [u8]| {
        let name = NAMES.iter().find(|name| begins_with(parameter, name));
        let parts = name.and_then(|name| parameter.split_at_checked(name.len()));
        parts.map_or(parameter, |(name, value)| match is_typed(value) {
            true => name,
            false => parameter,
        })
    };
    if parameters().all(|parameter| kept(parameter).len() == parameter.len()) {
        return target;
    }
    buffer.clear();
    buffer.extend_from_slice(head);
    for (index, parameter) in parameters().enumerate() {
        if index > 0 {
            buffer.push(b'&');
        }
        buffer.extend_from_slice(kept(parameter));
    }
    buffer
}

/// Whether a browser's form may have sent it: that encodes what is special, once.
fn is_typed(parameter: &[u8]) -> bool {
    let never = |byte: &u8| b"<>\"{}|`^\\ ".contains(byte) || !byte.is_ascii();
    let twice = |text: &[u8]| match text {
        [b'%', b'2', b'5', a, b] => a.is_ascii_hexdigit() && b.is_ascii_hexdigit(),
        [b'%', a, b, ..] => !(a.is_ascii_hexdigit() && b.is_ascii_hexdigit()),
        _ => false,
    };
    !parameter.iter().any(never) && !parameter.windows(5).any(twice)
}

/// The parameter without the query of the address that is its value, encoded as by a browser:
/// trackers and logins pass on the address of a page, with what a visitor typed there.
fn without_link(parameter: &[u8]) -> &[u8] {
    let value = memchr::memchr(b'=', parameter).map_or(parameter.len(), |at| at + 1);
    let is_link = [&b"https%3a%2f%2f"[..], b"http%3a%2f%2f", b"https://"]
        .iter()
        .any(|scheme| begins_with(parameter.get(value..).unwrap_or_default(), scheme));
    let encoded = parameter
        .windows(3)
        .position(|text| text.eq_ignore_ascii_case(b"%3f"));
    let plain = memchr::memchr(b'?', parameter).map(|at| at + 1);
    let query = encoded.map(|at| at + 3).into_iter().chain(plain).min();
    let never = |byte: &u8| b"<>\"{}|`^\\ ".contains(byte) || !byte.is_ascii();
    match query {
        Some(at) if is_link && !parameter.iter().any(never) => {
            parameter.get(..at).unwrap_or(parameter)
        }
        _ => parameter,
    }
}

/// Names of parameters that hold what a visitor typed, or a condition in a language of queries.
const FREE_TEXT: [&[u8]; 41] = [
    b"q",
    b"$filter",
    b"$where",
    b"$query",
    b"$apply",
    b"filterbyformula",
    b"kw",
    b"wd",
    b"keys",
    b"lookfor",
    b"input",
    b"what",
    b"prompt",
    b"question",
    b"body",
    b"sog",
    b"soeg",
    b"mot",
    b"mots",
    b"sok",
    b"fulltext",
    b"s",
    b"query",
    b"term",
    b"terms",
    b"text",
    b"comment",
    b"stack",
    b"highlight",
    b"hilit",
    b"words",
    b"phrase",
    b"title",
    b"titles",
    b"subject",
    b"action_name",
    b"dt",
    b"utm_source",
    b"utm_campaign",
    b"utm_content",
    b"utm_term",
];

/// Words in such names.
const FREE_WORDS: [&[u8]; 20] = [
    b"search",
    b"keyword",
    b"such",
    b"begriff",
    b"stichwort",
    b"recherche",
    b"busca",
    b"ricerca",
    b"pesquisa",
    b"zoek",
    b"szuka",
    b"cerca",
    b"arama",
    b"hledat",
    b"vyhled",
    b"keres",
    b"haku",
    b"cautare",
    b"pretraga",
    b"poisk",
];

fn is_free_text(name: &[u8]) -> bool {
    // Roundcube's names begin with `_`.
    let name = name.strip_prefix(b"_").unwrap_or(name);
    let name = name.to_ascii_lowercase();
    let holds = |word: &&[u8]| memchr::memmem::find(&name, word).is_some();
    FREE_TEXT.contains(&name.as_slice()) || FREE_WORDS.iter().any(holds)
}

/// The request without the values of search parameters; `None` where it has none.
pub(super) fn without_free_text(request: &[u8]) -> Option<Vec<u8>> {
    let end = before_protocol(request).unwrap_or(request.len());
    let (target, tail) = request.split_at_checked(end)?;
    let query = memchr::memchr(b'?', target).map_or(end, |at| at + 1);
    let (head, parameters) = target.split_at_checked(query)?;
    // WordPress and others have what was typed in the path.
    let typed = [&b"/search/"[..], b"/tag/"]
        .iter()
        .find_map(|word| Some(memchr::memmem::find(head, word)? + word.len()));
    let typed = typed.and_then(|start| {
        let rest = head.get(start..)?;
        let word = rest.get(..memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len()))?;
        (is_typed(word) && !word.starts_with(b".")).then_some((start, start + word.len()))
    });
    let (start, end) = typed.unwrap_or_default();
    let mut kept = [head.get(..start)?, head.get(end..)?].concat();
    let mut found = start < end;
    for (index, parameter) in parameters.split(|byte| *byte == b'&').enumerate() {
        if index > 0 {
            kept.push(b'&');
        }
        let name = parameter
            .split(|byte| *byte == b'=')
            .next()
            .unwrap_or_default();
        let free = is_free_text(name) && is_typed(parameter);
        let part = if free { name } else { without_link(parameter) };
        found |= part.len() < parameter.len();
        kept.extend_from_slice(part);
    }
    kept.extend_from_slice(tail);
    found.then_some(kept)
}
