//! Why a ban exists, and why one ended.

use super::exempt::Reason;

/// Why a ban exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The client's hits reached the jail's `maxretry`.
    Jail,
    /// The same, but many browsers use the address: it needs more hits, and the ban is short.
    Shared,
    /// The same, but its worker made too many bans in a minute: it lasts at most
    /// [`super::SURGE_BANTIME`].
    Surge,
    /// The same, by lines that a script may have written: no connection and no access record
    /// shows that the client was there. The ban lasts at most [`super::UNCONFIRMED_BANTIME`].
    Unconfirmed,
    /// `pipeban ban`, with what `--reason` gave.
    // A million bans fit in memory: a boxed text keeps each as small as an optional `String`.
    Manual(Option<Box<str>>),
    /// `pipeban import`, with the reason that the list gave.
    Imported(Option<Box<str>>),
    /// The firewall enforced it when the engine started, and the database did not know it.
    Adopted,
}

impl Cause {
    /// Whether the ban makes later bans of its client longer, and counts for jails with
    /// `log = "bans"`.
    pub fn escalates(&self) -> bool {
        *self == Cause::Jail
    }

    /// The word that the database and JSON have for it.
    pub fn word(&self) -> &'static str {
        match self {
            Cause::Jail => "jail",
            Cause::Shared => "shared",
            Cause::Surge => "surge",
            Cause::Unconfirmed => "unconfirmed",
            Cause::Manual(_) => "manual",
            Cause::Imported(_) => "imported",
            Cause::Adopted => "adopted",
        }
    }

    /// The reverse of [`Cause::word`]; `given` is the text that a person gave.
    pub fn from_word(word: &str, given: Option<String>) -> Option<Cause> {
        let given = given.map(String::into_boxed_str);
        Some(match word {
            "jail" => Cause::Jail,
            "shared" => Cause::Shared,
            "surge" => Cause::Surge,
            "unconfirmed" => Cause::Unconfirmed,
            "manual" => Cause::Manual(given),
            "imported" => Cause::Imported(given),
            "adopted" => Cause::Adopted,
            _ => return None,
        })
    }

    /// The text that a person gave.
    pub fn given(&self) -> Option<&str> {
        match self {
            Cause::Manual(given) | Cause::Imported(given) => given.as_deref(),
            Cause::Jail | Cause::Shared | Cause::Surge | Cause::Unconfirmed | Cause::Adopted => {
                None
            }
        }
    }

    /// What `status` and `export` show as the reason; `None`: the jail's rule says it all.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Cause::Jail => None,
            Cause::Shared => Some("shared address: at most 10 minutes, then 1 hour"),
            Cause::Surge => Some("many bans at once: at most 10 minutes"),
            Cause::Unconfirmed => Some("unconfirmed"),
            Cause::Manual(given) => given.as_deref(),
            Cause::Imported(given) => Some(given.as_deref().unwrap_or("imported")),
            Cause::Adopted => Some("found in the firewall"),
        }
    }
}

/// Why a ban ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its time was over.
    Over,
    /// `pipeban unban`.
    ByHand,
    /// An address in it became exempt.
    Exempt(Reason),
    /// There were more than [`super::MAX_BANS`].
    NoRoom,
    /// The same jail banned the same network again.
    Replaced,
}

impl End {
    /// The word that the database has for it.
    pub fn word(&self) -> &'static str {
        match self {
            End::Over => "over",
            End::ByHand => "by hand",
            End::Exempt(_) => "exempt",
            End::NoRoom => "no room",
            End::Replaced => "replaced",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_read_again_from_its_word() {
        let given = || Some("abuse".into());
        for cause in [
            Cause::Jail,
            Cause::Shared,
            Cause::Surge,
            Cause::Unconfirmed,
            Cause::Manual(None),
            Cause::Manual(given()),
            Cause::Imported(given()),
            Cause::Adopted,
        ] {
            let text = cause.given().map(str::to_owned);
            assert_eq!(Cause::from_word(cause.word(), text), Some(cause));
        }
        assert_eq!(Cause::from_word("", None), None);
    }
}
