//! One binary; a module a subject.

/// The real engine, its socket and its commands, with the dry-run back end.
#[cfg(test)]
mod engine;
