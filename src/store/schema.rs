//! The tables, built by steps that go forward only. SQLite's `user_version` counts the steps taken.

use rusqlite::Connection;

use super::model::Error;

/// One step per released schema; steps are added, never edited.
///
/// Wall times are milliseconds since 1970; `boot` columns are nanoseconds of CLOCK_BOOTTIME in the
/// boot that `boot_id` names. `bans.ident` is the number that people see (`b17`), which
/// `evidence.ban` refers to; `bans.id` is SQLite's. `bans.reason` is the text that a person gave.
const STEPS: &[&str] = &[
    "
    CREATE TABLE bans (
        id INTEGER PRIMARY KEY,
        jail TEXT NOT NULL,
        net TEXT NOT NULL,
        ports TEXT NOT NULL,
        mode TEXT NOT NULL,
        failures INTEGER NOT NULL,
        within_ms INTEGER NOT NULL,
        reason TEXT,
        since INTEGER NOT NULL,
        until INTEGER,
        boot_id TEXT NOT NULL,
        since_boot INTEGER NOT NULL,
        until_boot INTEGER,
        ended INTEGER,
        end TEXT
    );
    CREATE UNIQUE INDEX bans_active ON bans (jail, net) WHERE ended IS NULL;
    CREATE INDEX bans_net ON bans (net);
    CREATE INDEX bans_since ON bans (since);
    CREATE TABLE counters (
        jail TEXT NOT NULL,
        net TEXT NOT NULL,
        hits TEXT NOT NULL,
        boot_id TEXT NOT NULL,
        wall_minus_boot INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        expires_boot INTEGER NOT NULL,
        PRIMARY KEY (jail, net)
    ) WITHOUT ROWID;
    CREATE TABLE totals (
        jail TEXT PRIMARY KEY,
        failed INTEGER NOT NULL,
        banned INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE streams (
        stream INTEGER PRIMARY KEY,
        offset INTEGER NOT NULL,
        seen INTEGER NOT NULL
    );
    CREATE TABLE allow (
        net TEXT PRIMARY KEY,
        since INTEGER NOT NULL,
        until INTEGER,
        boot_id TEXT NOT NULL,
        until_boot INTEGER,
        reason TEXT
    ) WITHOUT ROWID;
",
    "
    ALTER TABLE bans ADD COLUMN ident INTEGER NOT NULL DEFAULT 0;
    UPDATE bans SET ident = id;
    CREATE INDEX bans_ident ON bans (ident);
    CREATE INDEX bans_ended ON bans (ended) WHERE ended IS NOT NULL;
    CREATE TABLE evidence (
        id INTEGER PRIMARY KEY,
        ban INTEGER NOT NULL,
        at INTEGER NOT NULL,
        line TEXT NOT NULL
    );
    CREATE INDEX evidence_ban ON evidence (ban);
    CREATE INDEX evidence_at ON evidence (at);
",
    // Until here `reason` held pipeban's texts too.
    "
    ALTER TABLE bans ADD COLUMN cause TEXT NOT NULL DEFAULT 'jail';
    UPDATE bans SET cause = CASE
        WHEN reason = 'imported' THEN 'imported'
        WHEN failures = 0 THEN 'manual'
        WHEN reason = 'shared address: 10 minutes at most' THEN 'shared'
        ELSE 'imported' END
    WHERE failures = 0 OR reason IS NOT NULL;
    UPDATE bans SET reason = NULL WHERE cause = 'shared' OR reason = 'imported';
",
    // Lists in JSON; '' is the empty one.
    "
    ALTER TABLE bans ADD COLUMN classes TEXT NOT NULL DEFAULT '';
    ALTER TABLE bans ADD COLUMN vhosts TEXT NOT NULL DEFAULT '';
",
    // The rule that the last line before the ban hit, in a few words.
    "
    ALTER TABLE bans ADD COLUMN rule TEXT;
",
];

/// Whether a database has the newest schema, for those that only read it.
pub(super) fn check(connection: &Connection) -> Result<(), Error> {
    match steps_taken(connection)? {
        found if found < STEPS.len() => Err(Error::Older {
            found,
            known: STEPS.len(),
        }),
        _ => Ok(()),
    }
}

/// Brings a database to the newest schema.
pub(super) fn upgrade(connection: &mut Connection) -> Result<(), Error> {
    let found = steps_taken(connection)?;
    for (number, step) in STEPS.iter().enumerate().skip(found) {
        let step_taken = connection.transaction()?;
        step_taken.execute_batch(step)?;
        step_taken.pragma_update(None, "user_version", number as u32 + 1)?;
        step_taken.commit()?;
    }
    Ok(())
}

fn steps_taken(connection: &Connection) -> Result<usize, Error> {
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let found = found as usize;
    if found > STEPS.len() {
        return Err(Error::Newer {
            found,
            known: STEPS.len(),
        });
    }
    Ok(found)
}
