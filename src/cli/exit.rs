//! Exit statuses, the same for every command.

/// How a command ended. The numbers from 64 are those of BSD's `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Yes, or done.
    Yes = 0,
    /// The answer is no: nothing matched, not banned.
    No = 1,
    /// An error kept it from being done.
    Failed = 2,
    /// The command line is wrong.
    Usage = 64,
    /// Not permitted.
    NotPermitted = 77,
    /// The configuration is wrong.
    Config = 78,
}

impl Exit {
    /// Every status with its meaning, as help and man page have them.
    pub const ALL: [(Exit, &'static str); 6] = [
        (Exit::Yes, "yes, or done"),
        (Exit::No, "the answer is no: nothing matched, not banned"),
        (Exit::Failed, "it could not be done"),
        (Exit::Usage, "the command line is wrong"),
        (Exit::NotPermitted, "not permitted"),
        (Exit::Config, "the configuration is wrong"),
    ];
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}
