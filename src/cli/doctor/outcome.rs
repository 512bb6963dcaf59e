//! What a probe found.

/// How a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    /// Bans are made, and something is worth a change.
    Warning,
    /// Clients are not banned as the configuration says, or lines are lost.
    Broken,
}

impl Verdict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Broken => "broken",
        }
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    pub(super) text: String,
    /// The command that repairs it; `None`: there is none, or nothing is wrong.
    pub(super) fix: Option<String>,
}

pub(super) fn ok(text: impl Into<String>) -> Outcome {
    Outcome {
        verdict: Verdict::Ok,
        text: text.into(),
        fix: None,
    }
}

pub(super) fn warning(text: impl Into<String>, fix: Option<String>) -> Outcome {
    Outcome {
        verdict: Verdict::Warning,
        text: text.into(),
        fix,
    }
}

pub(super) fn broken(text: impl Into<String>, fix: Option<String>) -> Outcome {
    Outcome {
        verdict: Verdict::Broken,
        text: text.into(),
        fix,
    }
}
