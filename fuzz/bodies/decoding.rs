//! A field into its canonical form.

use pipeban::decode::{Buffer, Form, ReadingBuffers, Readings, canonical};

pub(super) fn check(data: &[u8]) {
    let mut used = Buffer::default();
    for form in [Form::Path, Form::Query, Form::Text] {
        let (mut fresh, mut buffers) = (Buffer::default(), ReadingBuffers::default());
        let text = canonical(data, form, &mut fresh);
        assert_eq!(text, canonical(data, form, &mut used), "{form:?}");
        // A code point of a few bytes can stand for three.
        assert!(text.len() <= 3 * data.len(), "{form:?}: {}", text.len());
        let readings = Readings::of(data, form, &mut buffers);
        assert_eq!(readings.text, text, "{form:?}");
        for read in [readings.shell, readings.database].into_iter().flatten() {
            assert!(read.len() <= 3 * data.len());
        }
    }
}
