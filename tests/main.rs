//! One binary; a module a subject.

mod config; // configuration, check, setup: files in, output and status out
mod docs; // README, manual, help and shipped configuration say the same
mod tidy; // rules of the tree
