-- What the second schema changed in schema-1.sql, with a ban of each kind. Never edited.
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
INSERT INTO bans VALUES (20, 'manual', '203.0.113.20/32', '"all"', 'enforced', 0, 0, NULL,
    1800000000000, NULL, 'boot-a', 100000000000, NULL, NULL, NULL, 20);
INSERT INTO bans VALUES (21, 'apache-auth', '203.0.113.21/32', '"all"', 'enforced', 5, 41000,
    'shared address: 10 minutes at most',
    1800000000000, NULL, 'boot-a', 100000000000, NULL, NULL, NULL, 21);
INSERT INTO bans VALUES (22, 'apache-auth', '203.0.113.22/32', '"all"', 'enforced', 5, 0,
    'imported', 1800000000000, NULL, 'boot-a', 100000000000, NULL, NULL, NULL, 22);
INSERT INTO bans VALUES (23, 'apache-auth', '203.0.113.23/32', '"all"', 'enforced', 0, 0,
    'imported', 1800000000000, NULL, 'boot-a', 100000000000, NULL, NULL, NULL, 23);
INSERT INTO bans VALUES (24, 'apache-auth', '203.0.113.24/32', '"all"', 'enforced', 5, 0,
    'from the old server', 1800000000000, NULL, 'boot-a', 100000000000, NULL, NULL, NULL, 24);
PRAGMA user_version = 2;
