//! One binary; a module a subject.
mod filters; // lines of hostile clients; `pipeban test`
