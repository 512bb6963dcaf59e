//! The target of a request: where it ends, and without the parameters that a visitor typed.

use crate::decode::{Buffer, Form, canonical};

/// Where the blank before `HTTP/1.1` is. With `HttpProtocolOptions Unsafe` Apache also takes `http/1.1`.
pub(super) fn before_protocol(request: &[u8]) -> Option<usize> {
    memchr::memrchr_iter(b' ', request)
        .find(|blank| begins_with(request.get(blank + 1..).unwrap_or_default(), b"HTTP/"))
}

pub(super) fn begins_with(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len())
        .is_some_and(|begins| begins.eq_ignore_ascii_case(word))
}

/// Names of parameters that are in a query language by design: of database tools, maps, trackers and
/// dashboards.
const QUERY_LANGUAGES: [&[u8]; 11] = [
    b"sql_query",
    b"where_clause",
    b"sql",
    b"where",
    b"jql",
    b"cql",
    b"cql_filter",
    b"constraint",
    b"layerdefs",
    b"panes",
    b"left",
];

/// Whether a parameter is in a query language by design, as a browser encodes it: also a whole
/// `SELECT` where a query is expected.
pub(super) fn is_in_query_language(parameter: &[u8]) -> bool {
    let Some(equals) = memchr::memchr(b'=', parameter) else {
        return false;
    };
    let (name, value) = parameter.split_at_checked(equals).unwrap_or_default();
    let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
    let is_named = QUERY_LANGUAGES.iter().any(|known| is(known));
    let selects = (is(b"q") || is(b"query")) && begins_with(value, b"=select");
    (is_named || selects) && is_typed(value) && !value.contains(&b';')
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
    let of_page = |at: &usize| {
        let query = parameter.get(*at..).unwrap_or_default();
        // What is not encoded at all was put together by hand, with what a form sent.
        let is_encoded = encoded.is_some_and(|encoded| encoded + 3 == *at);
        is_query_of_page(query, is_encoded)
    };
    match query.filter(of_page) {
        Some(at) if is_link => parameter.get(..at).unwrap_or(parameter),
        _ => parameter,
    }
}

/// Whether it is the query of a page's address: names with values, in which all that is special is
/// encoded, once more if the address is.
fn is_query_of_page(query: &[u8], is_encoded: bool) -> bool {
    let special = |byte: &u8| b"<>\"{}|`^\\ '();$".contains(byte) || !byte.is_ascii();
    let mut text = Vec::new();
    let decoded = match is_encoded {
        true => {
            crate::decode::percent_once(query, &mut text);
            text.as_slice()
        }
        false => query,
    };
    decoded.contains(&b'=') && !decoded.iter().any(special)
}

/// Names of parameters that hold what a visitor typed, or the error of a script, without `_` and `-`.
const FREE_TEXT: [&[u8]; 55] = [
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
    b"querystring",
    b"term",
    b"terms",
    b"text",
    b"comment",
    b"stack",
    b"stacktrace",
    b"err",
    b"errmsg",
    b"error",
    b"errordescription",
    b"errordetail",
    b"errordetails",
    b"errormessage",
    b"errormsg",
    b"errorstack",
    b"errortext",
    b"jserror",
    b"exception",
    b"highlight",
    b"hilit",
    b"words",
    b"phrase",
    b"title",
    b"titles",
    b"subject",
    b"actionname",
    b"dt",
    b"utmsource",
    b"utmcampaign",
    b"utmcontent",
    b"utmterm",
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

/// Words in names of what a program opens, also beside one of [`FREE_WORDS`]: `search_page`.
const NO_TEXT: [&[u8]; 9] = [
    b"page",
    b"file",
    b"path",
    b"dir",
    b"url",
    b"uri",
    b"template",
    b"theme",
    b"include",
];

/// Whether a parameter of this name holds what a visitor typed, or the error of a script.
pub(super) fn is_free_text(name: &[u8]) -> bool {
    let name = name.iter().filter(|byte| !b"_-".contains(byte));
    let name: Vec<u8> = name.map(u8::to_ascii_lowercase).collect();
    let holds = |word: &&[u8]| memchr::memmem::find(&name, word).is_some();
    FREE_TEXT.contains(&name.as_slice())
        || FREE_WORDS.iter().any(holds) && !NO_TEXT.iter().any(holds)
}

/// Whether a word of a path, as logged, is what a program opens or evaluates, and no visitor's.
fn is_no_word(word: &[u8]) -> bool {
    let mut buffer = Buffer::default();
    let text = canonical(word, Form::Text, &mut buffer);
    let evidence = [&b"/."[..], b"\\.", b"${", b"%{"];
    let holds = |sign: &&[u8]| memchr::memmem::find(text, sign).is_some();
    text.starts_with(b".") || evidence.iter().any(holds)
}

/// The request without the values of parameters that visitors type or that are in a query language;
/// `None` where it has none.
pub(super) fn without_free_text(request: &[u8]) -> Option<Vec<u8>> {
    let end = before_protocol(request).unwrap_or(request.len());
    let (target, tail) = request.split_at_checked(end)?;
    let query = memchr::memchr(b'?', target).map_or(end, |at| at + 1);
    let (head, parameters) = target.split_at_checked(query)?;
    // WordPress and others have what was typed in the path.
    let typed = [&b"/search/"[..], b"/tag/", b"/tags/"]
        .iter()
        .find_map(|word| Some(memchr::memmem::find(head, word)? + word.len()));
    let typed = typed.and_then(|start| {
        let rest = head.get(start..)?;
        let word = rest.get(..memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len()))?;
        (is_typed(word) && !is_no_word(word)).then_some((start, start + word.len()))
    });
    let (start, end) = typed.unwrap_or_default();
    let mut kept = [head.get(..start)?, head.get(end..)?].concat();
    let mut found = start < end;
    let is_end = |byte: &u8| b"&;".contains(byte);
    for parameter in parameters.split_inclusive(is_end) {
        let end = parameter.last().filter(|byte| is_end(byte));
        let length = parameter.len() - end.iter().len();
        let parameter = parameter.get(..length)?;
        let name = memchr::memchr(b'=', parameter).and_then(|at| parameter.get(..at));
        let typed = name.filter(|name| is_free_text(name) && is_typed(parameter));
        let typed = typed.or(name.filter(|_| is_in_query_language(parameter)));
        let part = typed.unwrap_or_else(|| without_link(parameter));
        found |= part.len() < parameter.len();
        kept.extend_from_slice(part);
        kept.extend(end);
    }
    kept.extend_from_slice(tail);
    found.then_some(kept)
}
