//! Bytes on the engine's socket: cut into lines, then read as messages.

use pipeban::control::{Lines, Reply, Request, encode};
use serde::{Serialize, de::DeserializeOwned};

/// Bytes of a line at most.
const MOST: usize = 512;

/// The first byte of the input is the size of the pieces that arrive.
pub(super) fn check(data: &[u8]) {
    let Some((size, data)) = data.split_first() else {
        return;
    };
    let mut expected = data.split_inclusive(|b| *b == b'\n');
    let mut lines = Lines::new(MOST);
    for piece in data.chunks(usize::from(*size).max(1)) {
        lines.push(piece);
        loop {
            match lines.next_line() {
                Ok(Some(line)) => {
                    let whole = expected.next().and_then(|line| line.strip_suffix(b"\n"));
                    assert_eq!(Some(line), whole);
                    same_again::<Request>(line);
                    same_again::<Reply>(line);
                }
                Ok(None) => break,
                Err(_) => {
                    assert!(expected.next().is_some_and(|line| line.len() >= MOST));
                    return;
                }
            }
        }
    }
    assert!(expected.all(|line| !line.ends_with(b"\n")));
}

/// What is accepted is sent and read as the same message.
fn same_again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(line: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<T>(line) {
        let again: T = serde_json::from_slice(&encode(&message)).expect("what was sent");
        assert_eq!(message, again);
    }
}
