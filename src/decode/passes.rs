//! One encoding each. A pass writes all of `from`, decoded, and returns whether that differs.

/// Undoes Apache's own escaping.
pub(super) fn logged(from: &[u8], to: &mut Vec<u8>) -> bool {
    to.extend_from_slice(&crate::record::unescape(from));
    to.as_slice() != from
}

/// `+` is a blank.
pub(super) fn plus(from: &[u8], to: &mut Vec<u8>) -> bool {
    to.extend(from.iter().map(|b| if *b == b'+' { b' ' } else { *b }));
    true
}

/// Copies `from`; at each byte that `next` finds, writes what `decode` makes of the text there, if
/// it knows it. `decode` returns how many bytes it has read, at least one.
fn replace(
    from: &[u8],
    to: &mut Vec<u8>,
    next: impl Fn(&[u8]) -> Option<usize>,
    mut decode: impl FnMut(&[u8], &mut Vec<u8>) -> Option<usize>,
) -> bool {
    let mut rest = from;
    let mut changed = false;
    while let Some((before, text)) = next(rest).and_then(|at| rest.split_at_checked(at)) {
        to.extend_from_slice(before);
        let read = decode(text, to);
        changed |= read.is_some();
        if read.is_none() {
            to.extend(text.first());
        }
        rest = text.get(read.unwrap_or(1).max(1)..).unwrap_or_default();
    }
    to.extend_from_slice(rest);
    changed
}

fn digit(text: &[u8], at: usize, base: u32) -> Option<u32> {
    char::from(*text.get(at)?).to_digit(base)
}

fn hex(text: &[u8], from: usize, digits: usize) -> Option<u32> {
    (from..from + digits).try_fold(0, |value, at| Some(value * 16 + digit(text, at, 16)?))
}

/// `%hh` and `%uhhhh`.
pub(super) fn percent(from: &[u8], to: &mut Vec<u8>) -> bool {
    replace(
        from,
        to,
        |text| memchr::memchr(b'%', text),
        |text, to| {
            if text.first() != Some(&b'%') {
                return None;
            }
            if matches!(text.get(1), Some(b'u' | b'U')) {
                put(hex(text, 2, 4)?, to);
                return Some(6);
            }
            to.push(u8::try_from(hex(text, 1, 2)?).ok()?);
            Some(3)
        },
    )
}

/// Writes a character, as what a server that folds it to ASCII would make of it.
fn put(code: u32, to: &mut Vec<u8>) {
    let folded = match code {
        0xff01..=0xff5e => code - 0xfee0,
        0x2044 | 0x2215 | 0x29f8 => u32::from(b'/'),
        0x2216 | 0x29f5 => u32::from(b'\\'),
        0x2024 | 0xfe52 => u32::from(b'.'),
        0x2018 | 0x2019 | 0x02b9 | 0x02bc | 0x2032 => u32::from(b'\''),
        0x00a0 | 0x2000..=0x200a | 0x3000 => u32::from(b' '),
        code => code,
    };
    let c = char::from_u32(folded).unwrap_or(char::REPLACEMENT_CHARACTER);
    to.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Overlong UTF-8, also with a last byte that is no continuation (`%c0.`), and characters that
/// look like ASCII ones.
pub(super) fn unicode(from: &[u8], to: &mut Vec<u8>) -> bool {
    replace(
        from,
        to,
        |text| text.iter().position(|byte| *byte >= 0x80),
        |text, to| {
            let first = *text.first()?;
            // How many bytes of an overlong form stand before the last one.
            let lead = match (first, text.get(1)) {
                (0xc0 | 0xc1, _) => 1,
                (0xe0, Some(0x80..=0x81)) => 2,
                (0xf0, Some(0x80)) => 3,
                (0xf8, Some(0x80)) => 4,
                (0xfc, Some(0x80)) => 5,
                (0xe2 | 0xef | 0xca | 0xe3, _) | (0xc2, Some(0xa0)) => {
                    let length = if matches!(first, 0xca | 0xc2) { 2 } else { 3 };
                    let c = std::str::from_utf8(text.get(..length)?).ok()?;
                    let code = u32::from(c.chars().next()?);
                    let before = to.len();
                    put(code, to);
                    if to.len() == before + 1 {
                        return Some(length);
                    }
                    to.truncate(before);
                    return None;
                }
                _ => return None,
            };
            // Nothing else may vanish with them.
            let is_part = |byte: &u8| matches!(byte, 0x80..=0xbf);
            if !text.get(1..lead)?.iter().all(is_part) {
                return None;
            }
            let last = *text.get(lead)?;
            let high = text.get(lead - 1).map_or(0, |byte| byte & 1) << 6;
            match last {
                0x80..=0xbf => to.push(high | (last & 0x3f)),
                0x20..=0x7e if lead == 1 => to.push(last),
                _ => return None,
            }
            Some(lead + 1)
        },
    )
}

/// Named entities that stand for ASCII; what HTML 5 allows without a semicolon is rare in attacks.
const ENTITIES: [(&[u8], u8); 30] = [
    (b"lt", b'<'),
    (b"gt", b'>'),
    (b"amp", b'&'),
    (b"quot", b'"'),
    (b"apos", b'\''),
    (b"colon", b':'),
    (b"semi", b';'),
    (b"lpar", b'('),
    (b"rpar", b')'),
    (b"lsqb", b'['),
    (b"lbrack", b'['),
    (b"rsqb", b']'),
    (b"lcub", b'{'),
    (b"lbrace", b'{'),
    (b"rcub", b'}'),
    (b"sol", b'/'),
    (b"bsol", b'\\'),
    (b"period", b'.'),
    (b"comma", b','),
    (b"dollar", b'$'),
    (b"num", b'#'),
    (b"equals", b'='),
    (b"excl", b'!'),
    (b"quest", b'?'),
    (b"grave", b'`'),
    (b"verbar", b'|'),
    (b"percnt", b'%'),
    (b"tab", b'\t'),
    (b"newline", b'\n'),
    (b"nbsp", b' '),
];

/// `&lt;`, `&#60;`, `&#x3c;`.
pub(super) fn entities(from: &[u8], to: &mut Vec<u8>) -> bool {
    replace(
        from,
        to,
        |text| memchr::memchr(b'&', text),
        |text, to| {
            let inside = text.strip_prefix(b"&")?;
            if let Some(number) = inside.strip_prefix(b"#") {
                let (base, skip) = match number.first()? {
                    b'x' | b'X' => (16, 1),
                    _ => (10, 0),
                };
                let digits = number.get(skip..)?;
                let length = digits
                    .iter()
                    .take(64)
                    .take_while(|b| char::from(**b).is_digit(base))
                    .count();
                let code = (0..length).try_fold(0_u32, |value, at| {
                    value
                        .checked_mul(base)?
                        .checked_add(digit(digits, at, base)?)
                })?;
                if length == 0 || code == 0 {
                    return None;
                }
                put(code, to);
                let semicolon = usize::from(digits.get(length) == Some(&b';'));
                return Some(2 + skip + length + semicolon);
            }
            let length = inside.iter().take(9).position(|b| *b == b';')?;
            let name = inside.get(..length)?;
            let (_, byte) = ENTITIES
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))?;
            to.push(*byte);
            Some(length + 2)
        },
    )
}

/// `\x3c`, `\u003c`, `\u{3c}` and `\74` of scripts and shells.
pub(super) fn escapes(from: &[u8], to: &mut Vec<u8>) -> bool {
    replace(
        from,
        to,
        |text| memchr::memchr(b'\\', text),
        |text, to| {
            if text.first() != Some(&b'\\') {
                return None;
            }
            let (code, length) = match text.get(1)? {
                b'x' => (hex(text, 2, 2)?, 4),
                b'u' if text.get(2) == Some(&b'{') => {
                    let inside = text.get(3..)?;
                    let length = inside.iter().take(7).position(|b| *b == b'}')?;
                    (hex(inside, 0, length)?, length + 4)
                }
                b'u' => (hex(text, 2, 4)?, 6),
                b'0'..=b'3' => {
                    let octal = |value, at| Some(value * 8 + digit(text, at, 8)?);
                    ((1..4).try_fold(0, octal)?, 4)
                }
                _ => return None,
            };
            (code > 0).then(|| put(code, to))?;
            Some(length)
        },
    )
}

/// What `${lower:j}`, `${env:X:-j}` and `${::-j}` stand for, from the inside out; `$IFS` is a
/// blank. What a default replaces can be anything: it follows at the end, so that nothing hides there.
pub(super) fn lookups(from: &[u8], to: &mut Vec<u8>) -> bool {
    // Where each open one begins, and its `:-`.
    let mut open: Vec<(usize, Option<usize>)> = Vec::new();
    let mut replaced = Vec::new();
    let changed = replace(
        from,
        to,
        |text| memchr::memchr3(b'$', b':', b'}', text),
        |text, to| {
            if let Some(length) = ifs(text) {
                to.push(b' ');
                return Some(length);
            }
            if text.starts_with(b"${") {
                open.push((to.len(), None));
                return None;
            }
            if text.starts_with(b":-") {
                open.last_mut()?.1.get_or_insert(to.len());
                return None;
            }
            if text.first() != Some(&b'}') {
                return None;
            }
            let (start, default) = open.pop()?;
            let inside = to.get(start + 2..)?;
            let prefix = |name: &[u8]| {
                let begins = inside.get(..name.len())?.eq_ignore_ascii_case(name);
                begins.then_some(name.len())
            };
            let value = match default {
                Some(at) => {
                    let name = to.get(start + 2..at)?;
                    if !name.iter().all(is_name) {
                        replaced.push(b'\n');
                        replaced.extend_from_slice(name);
                    }
                    at + 2
                }
                None => {
                    let mut names = [&b"lower:"[..], b"upper:", b"date:"].into_iter();
                    start + 2 + names.find_map(prefix)?
                }
            };
            to.drain(start..value);
            Some(1)
        },
    );
    to.extend_from_slice(&replaced);
    changed
}

/// Bytes in names of look-ups and of a shell's variables.
fn is_name(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.:".contains(byte)
}

/// The length of `$IFS`, `$IFS$9` or `${IFS%??}` at the front.
fn ifs(text: &[u8]) -> Option<usize> {
    if let Some(rest) = text.strip_prefix(b"$IFS") {
        let empty = matches!(rest, [b'$', b'0'..=b'9', ..]);
        return Some(4 + 2 * usize::from(empty));
    }
    let rest = text.strip_prefix(b"${IFS")?;
    let end = rest.iter().take(16).position(|byte| *byte == b'}')?;
    let is_part = |byte: &u8| is_name(byte) || b"%#?*@^,-".contains(byte);
    let inside = rest.get(..end)?;
    inside.iter().all(is_part).then_some(6 + end)
}

/// CR and LF are one newline, other white space is a blank, each further control character is
/// `other`. The byte a0 is a blank where it is no part of UTF-8: in latin1 MySQL reads one.
pub(super) fn control(from: &[u8], to: &mut Vec<u8>, other: Option<u8>) -> bool {
    replace(
        from,
        to,
        |text| {
            text.iter()
                .position(|byte| matches!(byte, 0..b' ' | 0x7f | 0xa0))
        },
        |text, to| match text.first()? {
            b'\n' | b'\r' => {
                if to.last() != Some(&b'\n') {
                    to.push(b'\n');
                }
                Some(1)
            }
            b'\t' | 0x0b | 0x0c => {
                to.push(b' ');
                Some(1)
            }
            0xa0 if to.last().is_none_or(u8::is_ascii) => {
                to.push(b' ');
                Some(1)
            }
            byte if is_no_text(*byte) => {
                to.extend(other);
                Some(1)
            }
            _ => None,
        },
    )
}

/// A control character that is no white space.
pub(super) fn is_no_text(byte: u8) -> bool {
    matches!(byte, 0..=0x08 | 0x0e..b' ' | 0x7f)
}

/// Backslashes are slashes; `//` and `/./` are `/`.
pub(super) fn runs_of_slashes(from: &[u8], to: &mut Vec<u8>) -> bool {
    let slash = |byte: Option<&u8>| matches!(byte, Some(b'/' | b'\\'));
    replace(
        from,
        to,
        |text| memchr::memchr2(b'/', b'\\', text),
        |text, to| {
            if !slash(text.first()) {
                return None;
            }
            if to.last() != Some(&b'/') {
                to.push(b'/');
            }
            let dot = text.get(1) == Some(&b'.') && (slash(text.get(2)) || text.get(2).is_none());
            Some(1 + usize::from(dot))
        },
    )
}

/// SQL's comments are blanks: `/*...*/`, and `--` or `#` up to a newline; of `/*!50000union*/`
/// the text stays.
pub(super) fn comments(from: &[u8], to: &mut Vec<u8>) -> bool {
    let (mut block, mut line) = (usize::MAX, usize::MAX);
    let mut is_executed = false;
    replace(
        from,
        to,
        |text| memchr::memchr3(b'/', b'-', b'#', text),
        |text, to| {
            if let Some(rest) = text.strip_prefix(b"/*") {
                let code = rest.strip_prefix(b"M").unwrap_or(rest);
                let Some(code) = code.strip_prefix(b"!") else {
                    let comment = before(rest, b"*/", &mut block)?;
                    to.push(b' ');
                    return Some(comment.len() + 4);
                };
                // One search: an end behind it is a blank, whichever it ends.
                if !is_executed {
                    before(rest, b"*/", &mut block)?;
                    is_executed = true;
                }
                to.push(b' ');
                let digits = code.iter().take_while(|b| b.is_ascii_digit()).count();
                return Some(text.len() - code.len() + digits);
            }
            if is_executed && text.starts_with(b"/") && to.ends_with(b"*") {
                to.pop();
                to.push(b' ');
                return Some(1);
            }
            if text.starts_with(b"--") || text.starts_with(b"#") {
                let comment = before(text, b"\n", &mut line)?;
                to.push(b' ');
                return Some(comment.len() + 1);
            }
            None
        },
    )
}

/// The text before `end`, unless a parameter begins in it: a database sees one parameter at a time.
/// An encoded `&` looks so, too: what is no evidence in between is skipped.
/// `failed` is how long the rest of the text is where it fails, as it does anywhere before: so all
/// searches together are linear.
fn before<'a>(text: &'a [u8], end: &[u8], failed: &mut usize) -> Option<&'a [u8]> {
    if text.len() >= *failed {
        return None;
    }
    let Some(at) = memchr::memmem::find(text, end) else {
        *failed = 0;
        return None;
    };
    let found = text.get(..at)?;
    let is_evidence = |byte: &u8| !(byte.is_ascii_alphanumeric() || b"_&= ".contains(byte));
    let mut inside = found.iter().skip_while(|byte| b"-#".contains(byte));
    if !inside.any(is_evidence) {
        return Some(found);
    }
    let name = memchr::memrchr(b'=', found).and_then(|equals| found.get(..equals));
    if let Some(at) = name.and_then(|name| memchr::memrchr2(b'&', b'?', name)) {
        *failed = text.len() - at;
        return None;
    }
    Some(found)
}

/// What a shell drops: quotes, backslashes and carets inside and around words, and variables that are
/// empty: `$@`, `$*`, `$9`, `$()`, `${x}`.
pub(super) fn shell(from: &[u8], to: &mut Vec<u8>) -> bool {
    replace(
        from,
        to,
        |text| {
            text.iter()
                .position(|byte| matches!(byte, b'$' | b'\'' | b'"' | b'\\' | b'^' | b'`'))
        },
        |text, _| match text {
            [b'$', b'@' | b'*' | b'!' | b'1'..=b'9', ..] => Some(2),
            [b'$', b'\'' | b'"', ..] => Some(2),
            [b'$', b'(', b')', ..] => Some(3),
            [b'$', b'{', inside @ ..] => {
                let end = inside.iter().take(32).position(|byte| *byte == b'}')?;
                inside.get(..end)?.iter().all(is_name).then_some(end + 3)
            }
            [b'\'' | b'"' | b'\\' | b'^', ..] => Some(1),
            [b'`', b'`', ..] => Some(2),
            _ => None,
        },
    )
}
