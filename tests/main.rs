//! One binary; a module a subject.

mod config; // configuration, check, setup: files in, output and status out
