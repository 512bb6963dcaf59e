//! A finding: something that keeps lines from pipeban, doubles them, or endangers Apache.

use std::fmt;

use super::place::Place;

/// What is wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The directive; `None`: one is missing.
    pub(super) place: Option<Place>,
    pub(super) code: Code,
    /// What is wrong: what to do.
    pub(super) text: String,
    /// What corrects it.
    pub(super) remedy: Remedy,
}

/// What corrects a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// `pipeban setup --write`
    Setup,
    /// This line, with the directive of this name, becomes a comment.
    CommentOut(Place, &'static str),
}

impl Remedy {
    /// The command for a shell.
    pub fn command(&self) -> String {
        match self {
            Remedy::Setup => "pipeban setup --write".to_owned(),
            // The name guards against a file that has changed since.
            Remedy::CommentOut(place, name) => format!(
                "sed -i --follow-symlinks '{}{{/{name}/Is/^/#/}}' {}",
                place.line,
                shell_word(&place.file.to_string_lossy())
            ),
        }
    }
}

/// A word as a shell reads it.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

impl Finding {
    pub(super) fn at(place: &Place, code: Code, text: impl Into<String>) -> Finding {
        Finding {
            place: Some(place.clone()),
            code,
            text: text.into(),
            remedy: Remedy::Setup,
        }
    }

    /// The same, corrected without the directive at `place`.
    pub(super) fn without(mut self, place: &Place, directive: &'static str) -> Finding {
        self.remedy = Remedy::CommentOut(place.clone(), directive);
        self
    }

    /// Of which kind it is.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What corrects it.
    pub fn remedy(&self) -> &Remedy {
        &self.remedy
    }

    /// Whether `check` ends with an error: lines of a log are not matched because of a mistake in a
    /// directive of pipeban's or written nowhere, or any client can have any address banned.
    pub fn is_error(&self) -> bool {
        matches!(self.code, Code::Arguments | Code::AnyClient | Code::Refused)
    }
}

impl fmt::Display for Finding {
    /// `file:line: what is wrong: what to do`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A server's error lines do not reach pipeban.
    ErrorBypass,
    /// A server's access lines do not reach pipeban.
    AccessBypass,
    /// One request reaches two access pipes: it counts twice.
    TwoPipes,
    /// One request is written twice to one file.
    SameFile,
    /// `BufferedLogs On`.
    Buffered,
    /// `|$`.
    Shell,
    /// A program that does not exist: Apache ends at its next reload.
    MissingProgram,
    /// `ErrorLog` into `log access`, or the reverse.
    WrongKind,
    /// A `pipeban log` with wrong arguments.
    Arguments,
    /// A file that pipeban does not open.
    Refused,
    /// `--owner` with a user or group that does not exist.
    Owner,
    /// Another format than pipeban expects, or one that can ban no client.
    Format,
    /// `HostnameLookups`: a name instead of the client's address.
    Names,
    /// `RemoteIPHeader` without a list of proxies, or a log whose client is a header: any client
    /// names its victim.
    AnyClient,
    /// `RemoteIPProxyProtocol`: whoever connects names the client.
    ProxyProtocol,
}
