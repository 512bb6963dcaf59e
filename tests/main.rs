//! One binary; a module a subject.

/// Against the real kernel and the real ufw, in network namespaces of its own.
mod kernel;
