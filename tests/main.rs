//! One binary; a module a subject.
