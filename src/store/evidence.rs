//! The cause of bans for `status`, read beside the engine's writes.

use std::collections::HashMap;

use rusqlite::OptionalExtension;

use super::model::Error;
use super::read_only::ReadOnly;
use crate::jail::BanId;

/// The last line that led to a ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastLine {
    /// Escaped and cut.
    pub line: String,
    /// The rule that it hit, in a few words; `None`: not known.
    pub rule: Option<String>,
}

impl ReadOnly {
    /// The last line that led to each of these bans; those without a line are skipped.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn last_lines(
        &self,
        bans: impl IntoIterator<Item = BanId>,
    ) -> Result<HashMap<BanId, LastLine>, Error> {
        let mut select = self.connection.prepare(
            "SELECT line, (SELECT rule FROM bans WHERE ident = ban ORDER BY id DESC LIMIT 1)
             FROM evidence WHERE ban = ? ORDER BY id DESC LIMIT 1",
        )?;
        let mut found = HashMap::new();
        for ban in bans {
            let line = select.query_row([ban.number().cast_signed()], |row| {
                Ok(LastLine {
                    line: row.get(0)?,
                    rule: row.get(1)?,
                })
            });
            found.extend(line.optional()?.map(|line| (ban, line)));
        }
        Ok(found)
    }
}
