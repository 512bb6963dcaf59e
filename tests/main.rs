//! One binary; a module a subject. `cfg(test)` tells clippy that these are tests throughout.
#![forbid(unsafe_code)]

#[cfg(test)]
mod filters; // lines of hostile clients, read by records, filters and `pipeban test`
//! One binary; a module a subject.

/// Against the real kernel and the real ufw, in network namespaces of its own.
mod kernel;
