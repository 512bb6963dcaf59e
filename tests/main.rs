//! One binary; a module a subject.

/// `pipeban log`: nothing lost, whatever is killed.
#[cfg(test)]
mod pipe;
