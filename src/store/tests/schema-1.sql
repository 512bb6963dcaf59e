-- What pipeban 0.1.0's first schema looked like, with something of everything in it. Never edited.
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
INSERT INTO bans VALUES (7, 'apache-auth', '203.0.113.9/32',
    '{"list":{"tcp":[80,443],"udp":[443]}}', 'enforced', 5, 41000, NULL,
    1800000000000, 1800003600000, 'boot-a', 100000000000, 3700000000000, NULL, NULL);
INSERT INTO bans VALUES (8, 'manual', '2001:db8::/64', '"all"', 'behind 192.0.2.7', 0, 0, 'abuse',
    1800000000000, NULL, 'boot-a', 100000000000, NULL, NULL, NULL);
INSERT INTO bans VALUES (9, 'apache-auth', '203.0.113.10/32', '"all-but-ssh"', 'enforced', 5, 41000,
    NULL, 1800000000000, 1800000010000, 'boot-a', 100000000000, 110000000000, 1800000010000, 'over');
INSERT INTO counters VALUES ('apache-auth', '203.0.113.1/32', '[[100000000000,2]]', 'boot-a',
    1799999900000000000, 1800000600000, 700000000000);
INSERT INTO totals VALUES ('apache-auth', 12, 2);
INSERT INTO streams VALUES (5, 1234, 1800000000000);
INSERT INTO allow VALUES ('198.51.100.0/24', 1800000000000, NULL, 'boot-a', NULL, 'office');
PRAGMA user_version = 1;
