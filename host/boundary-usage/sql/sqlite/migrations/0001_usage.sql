-- Timestamps are RFC 3339 in UTC with microseconds, so that they sort as text; ids are text, so that the sqlite3 shell
-- shows them as the logs do.

-- The open period: one row for each replica that flushed in it. A collection deletes them all.
-- The columns up to updated_at are those that consumers of the reference know.
CREATE TABLE boundary_usage_stats (
    replica_id              TEXT    NOT NULL PRIMARY KEY,
    unique_workspaces_count INTEGER NOT NULL DEFAULT 0 CHECK (unique_workspaces_count >= 0),
    unique_users_count      INTEGER NOT NULL DEFAULT 0 CHECK (unique_users_count >= 0),
    allowed_requests        INTEGER NOT NULL DEFAULT 0 CHECK (allowed_requests >= 0),
    denied_requests         INTEGER NOT NULL DEFAULT 0 CHECK (denied_requests >= 0),
    window_start            TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')),
    updated_at              TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')),
    -- Compact Theta sketches of the ids' pseudonyms: they merge, counts do not.
    workspaces_sketch       BLOB    NOT NULL,
    users_sketch            BLOB    NOT NULL
) STRICT;

-- Outlives collections: a replica whose commit brought no reply asks here whether it counted, and an old flush
-- that is sent again is refused.
CREATE TABLE boundary_usage_replicas (
    replica_id TEXT    NOT NULL PRIMARY KEY,
    last_flush INTEGER NOT NULL CHECK (last_flush > 0),
    flushed_at TEXT    NOT NULL
) STRICT;

-- One row, written by whoever made the schema and never changed.
CREATE TABLE boundary_usage_deployment (
    -- INT, not INTEGER: that would be the row number, which SQLite counts on by itself and whose default it ignores.
    only_row    INT     NOT NULL DEFAULT 1 PRIMARY KEY CHECK (only_row = 1),
    -- The first period starts here.
    created_at  TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')),
    -- Without it, a list of ids cannot be tested against the sketches: keep it from whoever may read those.
    hashing_key BLOB    NOT NULL CHECK (length(hashing_key) = 16)
) STRICT;
