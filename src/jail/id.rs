//! The short id of a ban, for people.

/// Shown as `b17`. Ids of active bans differ; later ones are larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BanId(u64);

impl BanId {
    /// From its number.
    pub fn new(number: u64) -> BanId {
        BanId(number)
    }

    /// Its number.
    pub fn number(self) -> u64 {
        self.0
    }

    pub(super) fn next(self) -> BanId {
        BanId(self.0.wrapping_add(1))
    }
}

impl std::fmt::Display for BanId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b{}", self.0)
    }
}

impl std::str::FromStr for BanId {
    type Err = String;

    fn from_str(text: &str) -> Result<BanId, String> {
        text.strip_prefix('b')
            .and_then(|digits| digits.parse().ok())
            .map(BanId)
            .ok_or_else(|| {
                format!(
                    "`{}` is not the id of a ban, like `b17`",
                    text.escape_debug()
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_again() {
        for number in [0, 17, u64::MAX] {
            let id = BanId::new(number);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in ["", "b", "17", "B17", "b-1", "b1x", "192.0.2.1"] {
            assert!(text.parse::<BanId>().is_err(), "{text}");
        }
    }
}
