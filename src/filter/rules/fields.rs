//! The fields of a record as rules see them.

use std::borrow::Cow;

use super::part::PARTS;
use super::rule::{Family, Field};
use super::scratch::Buffers;
use super::target::{before_protocol, begins_with, is_free_text};
use crate::decode::{Form, Readings, canonical, is_plain};
use crate::record::Record;

/// The fields of one record. Texts are canonical but for those that Apache or TLS decide.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) request: &'a [u8],
    method: &'a [u8],
    protocol: &'a [u8],
    path: &'a [u8],
    url: Readings<'a>,
    served: Option<Served<'a>>,
    referer: Readings<'a>,
    /// The referrer is a URL as a browser sends it: it holds what the page that links here was asked
    /// for.
    is_linked: bool,
    user_agent: Readings<'a>,
    user: Readings<'a>,
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

/// Path and url as Apache serves them, where that differs: without `//`, `/x/..` and the host.
#[derive(Debug, Clone, Copy)]
struct Served<'a> {
    path: &'a [u8],
    url: &'a [u8],
}

impl<'a> Served<'a> {
    fn of(path: &[u8], url: &[u8], has_query: bool, buffer: &'a mut Vec<u8>) -> Option<Served<'a>> {
        let query = has_query.then(|| memchr::memchr(b'?', url)).flatten();
        let (before, query) = url.split_at_checked(query.unwrap_or(url.len()))?;
        let resolved = resolved(without_host(path));
        if resolved == path && resolved == before {
            return None;
        }
        buffer.clear();
        buffer.extend_from_slice(&resolved);
        buffer.extend_from_slice(query);
        Some(Served {
            path: buffer.get(..resolved.len())?,
            url: buffer,
        })
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
        let [url, referer, user_agent, user] = &mut buffers.readings;
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
        let url = match decoded {
            true => Readings {
                text: parts.target,
                ..Readings::default()
            },
            false => Readings::of(parts.target, Form::Query, url),
        };
        let served = match decoded || record.message.is_some() {
            true => None,
            false => {
                let has_query = parts.path.len() < parts.target.len();
                Served::of(path, url.text, has_query, &mut buffers.served)
            }
        };
        let same = |text: &[u8], logged: &[u8]| std::ptr::eq(text, logged);
        let is_plain = record.message.is_none()
            && url.shell.is_none()
            && url.database.is_none()
            && served.is_none()
            && same(url.text, parts.target)
            && same(path, parts.path);
        Fields {
            is_plain,
            request,
            method: parts.method,
            protocol: parts.protocol,
            path,
            url,
            served,
            is_linked: is_url(sent_referer),
            referer: Readings::of(sent_referer, Form::Text, referer),
            user_agent: Readings::of(agent, Form::Text, user_agent),
            user: Readings::of(sent_user, Form::Text, user),
            message: canonical(parts.message, Form::Text, &mut buffers.message),
            code: parts.code,
            vhost: record.vhost.unwrap_or_default(),
            module: record.module.unwrap_or_default(),
            level: record.level.unwrap_or_default(),
            status: record.status.or(parts.status).map(u64::from),
            bytes: record.bytes,
            port: record.port.map(u64::from),
        }
    }

    /// Path and url as Apache serves them, the texts with what other programs skip: this may be what makes
    /// an attack of a text.
    pub(super) fn whole(&self) -> Fields<'a> {
        let plain = |readings: Readings<'a>| Readings {
            text: readings.text,
            ..Readings::default()
        };
        Fields {
            path: self.served.map_or(self.path, |served| served.path),
            url: self.served.map_or(plain(self.url), |served| Readings {
                text: served.url,
                ..Readings::default()
            }),
            served: None,
            referer: plain(self.referer),
            user_agent: plain(self.user_agent),
            user: plain(self.user),
            ..*self
        }
    }

    /// Whether a text of this field satisfies `holds`.
    pub(super) fn any(&self, field: Field, mut holds: impl FnMut(&[u8]) -> bool) -> bool {
        match field {
            Field::Method => holds(self.method),
            Field::Path => holds(self.path) || self.served.is_some_and(|served| holds(served.path)),
            Field::Query => self.url.any(|text| holds(query(text))),
            Field::Url => self.any_url(holds),
            Field::Payload => {
                self.any_url(&mut holds)
                    || self.user_agent.any(|text| any_of_agent(text, &mut holds))
                    || self.referer.any(|text| !self.is_linked && holds(text))
                    || self.user.any(holds)
            }
            Field::Referer => self.referer.any(holds),
            Field::UserAgent => self.user_agent.any(holds),
            Field::User => self.user.any(holds),
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

    fn any_url(&self, mut holds: impl FnMut(&[u8]) -> bool) -> bool {
        self.url.any(&mut holds) || self.served.is_some_and(|served| holds(served.url))
    }

    /// Every text of a family; with a field those of the family that such a condition sees.
    pub(super) fn each(&self, family: Family, field: Option<Field>, mut visit: impl FnMut(&[u8])) {
        let mut both = |texts: Readings<'_>, part: fn(&[u8]) -> &[u8]| {
            texts.any(|text| {
                visit(part(text));
                false
            });
        };
        let whole: fn(&[u8]) -> &[u8] = |text| text;
        match (family, field) {
            (Family::Referer, Some(Field::Payload)) if self.is_linked => {}
            (Family::Referer, _) => both(self.referer, whole),
            (Family::Agent, _) => both(self.user_agent, whole),
            (Family::Behind, _) => {
                self.user_agent.any(|text| {
                    any_of_agent(text, |part| {
                        visit(part);
                        false
                    })
                });
            }
            (Family::User, _) => both(self.user, whole),
            (Family::Message, _) => visit(self.message),
            (Family::Target, Some(Field::Path)) => {
                visit(self.path);
                self.served.iter().for_each(|served| visit(served.path));
            }
            (Family::Target, Some(Field::Query)) => both(self.url, query),
            (Family::Target, Some(Field::Request)) => visit(self.request),
            (Family::Target, Some(_)) => {
                both(self.url, whole);
                self.served.iter().for_each(|served| visit(served.url));
            }
            (Family::Target, None) => {
                if !self.is_plain {
                    both(self.url, whole);
                    visit(self.path);
                    self.served.iter().for_each(|served| visit(served.url));
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

/// Whether `holds` is true of a user agent; of the brackets in which a browser names its system
/// each part by itself, since semicolons are between them.
fn any_of_agent(agent: &[u8], mut holds: impl FnMut(&[u8]) -> bool) -> bool {
    let name = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-' | b' ')
    };
    let named = |byte: &u8| name(byte) || matches!(byte, b',' | b';' | b':' | b'+');
    let browser = || {
        let open = memchr::memchr(b'(', agent)?;
        let product = agent.get(..open)?;
        let version = product.ends_with(b" ") && product.contains(&b'/');
        let close = memchr::memchr(b')', agent).filter(|close| *close > open + 1)?;
        let system = agent.get(open + 1..close)?;
        let is = version && product.iter().all(name) && system.iter().all(named);
        is.then_some((system, agent.get(close + 1..)?))
    };
    match browser() {
        Some((system, rest)) => {
            let mut parts = system.split(|byte| *byte == b';');
            holds(rest) || parts.any(|part| holds(part.trim_ascii()))
        }
        None => holds(agent),
    }
}

/// Whether a referrer, as logged, is a URL in which what browsers encode is encoded, at least beside
/// what a visitor typed.
fn is_url(referer: &[u8]) -> bool {
    let raw = |byte: &u8| {
        matches!(
            byte,
            b' ' | b'<' | b'>' | b'"' | b'`' | b'{' | b'|' | b'}' | b'\\'
        )
    };
    if !(begins_with(referer, b"http://") || begins_with(referer, b"https://")) {
        return false;
    }
    let referer = match referer.contains(&b'\\') {
        true => crate::record::unescape(referer),
        false => Cow::Borrowed(referer),
    };
    if !referer.iter().any(raw) {
        return true;
    }
    let is_typed = |parameter: &[u8]| {
        let name = memchr::memchr(b'=', parameter).and_then(|at| parameter.get(..at));
        name.is_some_and(is_free_text)
    };
    let path = memchr::memchr(b'?', &referer).and_then(|at| referer.get(..at));
    let mut parameters = query(&referer).split(|byte| *byte == b'&');
    !path.unwrap_or(&referer).iter().any(raw)
        && parameters.all(|parameter| is_typed(parameter) || !parameter.iter().any(raw))
}

/// The path of a request that names the host, too: Apache serves its own site for it.
fn without_host(path: &[u8]) -> &[u8] {
    let Some(scheme) = [&b"http:/"[..], b"https:/"]
        .into_iter()
        .find(|scheme| begins_with(path, scheme))
    else {
        return path;
    };
    let host = path.get(scheme.len()..).unwrap_or_default();
    memchr::memchr(b'/', host)
        .and_then(|at| host.get(at..))
        .unwrap_or(b"/")
}

/// The path that Apache serves: a part and `..` behind it are nothing.
pub(super) fn resolved(path: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memmem::find(path, b"/..").is_none() {
        return Cow::Borrowed(path);
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b".." if kept.len() > 1 => drop(kept.pop()),
            b".." => {}
            _ => kept.push(part),
        }
    }
    if path.ends_with(b"/..") {
        kept.push(b"");
    }
    Cow::Owned(kept.join(&b'/'))
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
