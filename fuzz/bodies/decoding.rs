//! A field into its canonical form.

use pipeban::decode::{Buffer, Form, canonical, without_shell_quotes};

pub(super) fn check(data: &[u8]) {
    let mut used = Buffer::default();
    for form in [Form::Path, Form::Query, Form::Text] {
        let (mut fresh, mut quotes) = (Buffer::default(), Buffer::default());
        let text = canonical(data, form, &mut fresh);
        assert_eq!(text, canonical(data, form, &mut used), "{form:?}");
        // A code point of a few bytes can stand for three.
        assert!(text.len() <= 3 * data.len(), "{form:?}: {}", text.len());
        if let Some(plain) = without_shell_quotes(text, &mut quotes) {
            assert!(plain.len() <= text.len());
        }
    }
}
