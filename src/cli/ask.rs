//! One question to the engine, from a command.
