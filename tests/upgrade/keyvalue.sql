PRAGMA page_size = 4096;
PRAGMA auto_vacuum = 0;
PRAGMA application_id = 1094927723;
PRAGMA user_version = 2;
CREATE TABLE entries (
        bucket TEXT NOT NULL,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        expires INTEGER,
        counter INTEGER,
        kind INTEGER,
        PRIMARY KEY (bucket, key)
    ) STRICT, WITHOUT ROWID;
CREATE INDEX expiring ON entries (expires) WHERE expires IS NOT NULL;
CREATE TABLE tokens (
        counter INTEGER NOT NULL,
        token TEXT NOT NULL,
        at INTEGER,
        PRIMARY KEY (counter, token)
    ) STRICT, WITHOUT ROWID;
CREATE TABLE buckets (bucket TEXT PRIMARY KEY, size INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE store (size INTEGER NOT NULL) STRICT;
INSERT INTO entries VALUES ('counts', 'once', x'32', 1100000, 1, NULL);
INSERT INTO entries VALUES ('counts', 'plain', x'35', NULL, NULL, NULL);
INSERT INTO entries VALUES ('counts', 'told', x'36', NULL, 2, NULL);
INSERT INTO entries VALUES ('facts', 'ada', x'00ff726177', NULL, NULL, NULL);
INSERT INTO entries VALUES ('facts', 'bo', CAST('{}' AS BLOB), 1100000, NULL, NULL);
INSERT INTO entries VALUES ('places', 'mail', x'32', 605000000, 3, 1);
INSERT INTO entries VALUES ('plugins', 'k', x'76', NULL, NULL, NULL);
INSERT INTO tokens VALUES (1, 'a', NULL);
INSERT INTO tokens VALUES (1, 'b', NULL);
INSERT INTO tokens VALUES (2, 'a', 3);
INSERT INTO tokens VALUES (2, 'b', 6);
INSERT INTO tokens VALUES (3, 'a', 100000);
INSERT INTO tokens VALUES (3, 'b', 200000);
INSERT INTO buckets VALUES ('counts', 7);
INSERT INTO buckets VALUES ('facts', 2);
INSERT INTO buckets VALUES ('places', 3);
INSERT INTO buckets VALUES ('plugins', 1);
INSERT INTO store VALUES (13);
