//! The name of a jail.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// `[A-Za-z0-9_.-]{1,64}`: safe in a ufw comment, a log line and a path. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JailName(Arc<str>);

impl JailName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for JailName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(JailName(name.into()))
        } else {
            Err(format!(
                "`{}` is not a jail name: use 1 to 64 of A-Z a-z 0-9 _ . -",
                name.escape_debug()
            ))
        }
    }
}

impl From<JailName> for String {
    fn from(name: JailName) -> String {
        name.0.to_string()
    }
}

impl std::str::FromStr for JailName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        name.to_owned().try_into()
    }
}

impl std::fmt::Display for JailName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
