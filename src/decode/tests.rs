use proptest::prelude::*;

use super::{
    Buffer, Form, ReadingBuffers, Readings, canonical, holds_encoding, is_plain, needs_decoding,
};

fn decoded(field: &str, form: Form) -> String {
    let mut buffer = Buffer::default();
    String::from_utf8_lossy(canonical(field.as_bytes(), form, &mut buffer)).into_owned()
}

#[test]
fn a_path_loses_its_encodings_and_keeps_its_dots() {
    for (logged, expected) in [
        ("/index.html", "/index.html"),
        ("/a//b/./c", "/a/b/c"),
        ("/.env/.", "/.env/"),
        ("/a/%2e%2e/b", "/a/../b"),
        ("/a/%252e%252e%252fb", "/a/../b"),
        ("/%25252e%25252e%25255cb", "/../b"),
        ("/%%32%65%%32%65/b", "/../b"),
        ("/%c0%ae%c0%ae%c0%afb", "/../b"),
        ("/%c0.%c0.%c0%2fb", "/../b"),
        ("/%e0%80%ae%e0%80%ae/b", "/../b"),
        ("/%f0%80%80%ae./b", "/../b"),
        ("/%f0%80%80./b", "/\u{fffd}\u{fffd}\u{fffd}./b"),
        ("/%uff0e%uff0e%u2216b", "/../b"),
        ("/%u002e%u002e/b", "/../b"),
        ("/%ef%bc%8e%ef%bc%8e/b", "/../b"),
        (r"/..\\..\\b", "/../../b"),
        ("/..%5c../b", "/../../b"),
        (r"/\x2e\x2e/b", "/../b"),
        ("/a%00.php", "/a.php"),
        ("/caf%c3%a9", "/café"),
        ("/100%", "/100%"),
        ("/100%zz", "/100%zz"),
        ("/a+b", "/a+b"),
    ] {
        assert_eq!(decoded(logged, Form::Path), expected, "{logged}");
    }
}

#[test]
fn a_query_loses_what_hides_a_payload() {
    for (logged, expected) in [
        ("/?q=plain&b=2", "/?q=plain&b=2"),
        ("/?q=a+b%2bc", "/?q=a b+c"),
        ("/?q=%3Cscript%3E", "/?q=<script>"),
        ("/?q=%253Cscript%253E", "/?q=<script>"),
        ("/?q=%u003cscript%u003e", "/?q=<script>"),
        ("/?q=%uff1cscript", "/?q=<script"),
        ("/?q=&lt;script&gt;", "/?q=<script>"),
        ("/?q=&#60;&#x73;&#0000099ript", "/?q=<script"),
        ("/?q=%26%23x3c%3bscript", "/?q=<script"),
        (r"/?q=\\x3cscript\\u003e", "/?q=<script>"),
        ("/?q=union%09%0b%0cselect", "/?q=union   select"),
        ("/?q=a%0d%0aSet-Cookie:", "/?q=a\nSet-Cookie:"),
        ("/?q=un%00ion", "/?q=union"),
        ("/?q=1%a0or%a01", "/?q=1 or 1"),
        ("/?q=voil%c3%a0+%a0", "/?q=voilà  "),
        ("/?q=java%09script:", "/?q=java script:"),
        ("/?q=cat$IFS/etc", "/?q=cat /etc"),
        ("/?q=cat${IFS}$9x$IFS$9y", "/?q=cat $9x y"),
        ("/?q=${${lower:j}ndi:x}", "/?q=${jndi:x}"),
        ("/?q=${${env:A_b:-j}ndi:x}", "/?q=${jndi:x}"),
        // Nothing hides in what is replaced, or behind the first bytes of a character.
        ("/?q=${'or+1:-x}&b=2", "/?q=x&b=2\n'or 1"),
        ("/?q=a${IFS'or'}b", "/?q=a${IFS'or'}b"),
        ("/?q=%fc%80<script>", "/?q=\u{fffd}\u{fffd}<script>"),
        ("/?q=${${date:j}ndi:x}", "/?q=${jndi:x}"),
        ("/?q=${${::-j}${upper:n}${env:X:-d}i:x}", "/?q=${jndi:x}"),
        ("/?q=${${env:A:-${lower:J}}ndi:x}", "/?q=${Jndi:x}"),
        ("/?q=${hostName}", "/?q=${hostName}"),
        ("/?q=}${", "/?q=}${"),
    ] {
        assert_eq!(decoded(logged, Form::Query), expected, "{logged}");
    }
}

#[test]
fn the_innermost_of_many_open_look_ups_are_undone() {
    let (open, close) = ("${".repeat(70), "}".repeat(70));
    let logged = format!("/?q={open}${{${{lower:j}}ndi:x}}{close}");
    let text = decoded(&logged, Form::Query);
    assert!(text.contains("${jndi:x}"), "{text}");
    let (open, close) = ("${::-".repeat(1000), "}".repeat(1000));
    let logged = format!("/?q=${{${{lower:{open}j{close}}}ndi:x}}");
    assert_eq!(decoded(&logged, Form::Query), "/?q=${jndi:x}");
}

fn readings(text: &str) -> [Option<String>; 2] {
    let mut buffers = ReadingBuffers::default();
    let readings = Readings::of(text.as_bytes(), Form::Query, &mut buffers);
    [readings.shell, readings.database]
        .map(|read| Some(String::from_utf8_lossy(read?).into_owned()))
}

#[test]
fn what_a_shell_drops_is_a_form_of_its_own() {
    for (text, expected) in [
        (r#"c'a't /e"t"c\/pas$@swd"#, Some("cat /etc/passwd")),
        ("w^h^o^a^mi", Some("whoami")),
        ("$'id'", Some("id")),
        ("who$()ami", Some("whoami")),
        ("who$9am${u}i", Some("whoami")),
        ("$(id) ${+x} $or", None),
        ("plain", None),
    ] {
        let [shell, _] = readings(text);
        assert_eq!(shell.as_deref(), expected, "{text}");
    }
}

#[test]
fn comments_and_control_characters_are_blanks_for_a_database() {
    let long = "A".repeat(5_000);
    let (block, line) = (
        format!("union/*{long}*/select"),
        format!("union#{long}\nselect"),
    );
    for (text, expected) in [
        ("union/**/select", Some("union select")),
        (&block, Some("union select")),
        (&line, Some("union select")),
        ("1/*!50000union*/select", Some("1 union select")),
        ("1/*!50000union/**/select*/2", Some("1 union select 2")),
        ("1/*M!100100union*/select", Some("1 union select")),
        ("union--x\nselect", Some("union select")),
        ("union-- <'+;\nselect-- \n1", Some("union select 1")),
        ("union#abc\nselect", Some("union select")),
        ("union/*&*/select", Some("union select")),
        ("union/*&x=*/select", Some("union select")),
        ("union-- &x=\nselect", Some("union select")),
        // A comment that ends in another parameter is none.
        ("a=--&id=1 or--\n1", Some("a=--&id=1 or 1")),
        ("a=/*&b=union/**/select", Some("a=/*&b=union select")),
        (
            "/red--shoes?a=union\nselect--\n1",
            Some("/red--shoes?a=union\nselect 1"),
        ),
        ("a=*/ and /* and 2*/3", Some("a=*/ and  3")),
        ("a=/* and -- and #", None),
        ("a\nb", None),
        ("a%0ab%09", None),
        ("1%01union%1fselect%00%7f", Some("1 union select  ")),
        ("1%01union/**/select", Some("1 union select")),
    ] {
        let [_, database] = readings(text);
        assert_eq!(database.as_deref(), expected, "{text}");
    }
}

/// In the time of one search for each comment it would take minutes.
#[test]
fn comments_without_an_end_are_searched_once() {
    let times = 1 << 19;
    for (begin, end) in [
        ("/*", ""),
        ("/*&a=", "*/"),
        ("--", ""),
        ("#&a=", "\n"),
        ("/*!", "*/"),
    ] {
        let start = std::time::Instant::now();
        readings(&(begin.repeat(times) + end + "\n/**/"));
        assert!(start.elapsed().as_secs() < 20, "{begin}");
    }
}

#[test]
fn the_cheap_check_misses_no_encoding() {
    let bytes = b"/.&#;*${I+%\\'a\x01\x7f\xe9";
    let pairs = || {
        bytes
            .iter()
            .flat_map(|first| bytes.iter().map(move |second| [*first, *second]))
    };
    for field in pairs().flat_map(|[a, b]| bytes.iter().map(move |c| [a, b, *c])) {
        for form in [Form::Path, Form::Query, Form::Text] {
            for field in [&field[..1], &field[..2], &field] {
                let exact = holds_encoding(field, form);
                assert_eq!(needs_decoding(field, form), exact, "{field:?} {form:?}");
                let mut buffers = ReadingBuffers::default();
                let readings = Readings::of(field, form, &mut buffers);
                let changed = readings.shell.is_some() || readings.database.is_some();
                assert!(
                    !is_plain(field) || !(exact || changed),
                    "{field:?} {form:?}"
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn any_field_is_decoded_without_a_panic(
        field in proptest::collection::vec(
            prop_oneof![any::<u8>(), proptest::sample::select(b"%u{}$:-\\x0c/.*&#;+!IFS2e5".to_vec())],
            0..200,
        ),
    ) {
        for form in [Form::Path, Form::Query, Form::Text] {
            let mut buffer = Buffer::default();
            let text = canonical(&field, form, &mut buffer).to_vec();
            // UTF-8 of a folded character may be longer than `%uhhhh`, never than the field.
            prop_assert!(text.len() <= field.len());
            let mut buffers = ReadingBuffers::default();
            let Readings { text: same, shell, database } = Readings::of(&field, form, &mut buffers);
            prop_assert_eq!(same, &text);
            prop_assert!([shell, database].iter().flatten().all(|read| read.len() <= field.len()));
        }
    }
}
