-- Timestamps are RFC 3339 in UTC with microseconds, so they sort as text. Ids are text, so the sqlite3 shell shows them
-- like the logs.

-- The usage of the open period: one row for each replica that has flushed in it. A collection deletes all rows.
-- The columns up to updated_at are those of the reference, so its readers work here, too.
CREATE TABLE boundary_usage_stats (
    replica_id              TEXT    NOT NULL PRIMARY KEY,
    unique_workspaces_count INTEGER NOT NULL DEFAULT 0 CHECK (unique_workspaces_count >= 0),
    unique_users_count      INTEGER NOT NULL DEFAULT 0 CHECK (unique_users_count >= 0),
    allowed_requests        INTEGER NOT NULL DEFAULT 0 CHECK (allowed_requests >= 0),
    denied_requests         INTEGER NOT NULL DEFAULT 0 CHECK (denied_requests >= 0),
    window_start            TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')),
    updated_at              TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')),
    -- Compact Theta sketches of the id hashes. Sketches can be merged; counts cannot.
    workspaces_sketch       BLOB    NOT NULL,
    users_sketch            BLOB    NOT NULL
) STRICT;

-- The last flush of every replica. The rows survive collections. After a commit without a reply, the flush number shows
-- whether it was applied. A flush that is not newer is refused.
CREATE TABLE boundary_usage_replicas (
    replica_id TEXT    NOT NULL PRIMARY KEY,
    last_flush INTEGER NOT NULL CHECK (last_flush > 0),
    flushed_at TEXT    NOT NULL
) STRICT;

-- One row that never changes. The host that created the tables inserted it.
CREATE TABLE boundary_usage_deployment (
    -- INT, because an INTEGER PRIMARY KEY would be the row number, and SQLite ignores its default.
    only_row    INT     NOT NULL DEFAULT 1 PRIMARY KEY CHECK (only_row = 1),
    -- The start of the first period.
    created_at  TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')),
    -- The key of the id hashes. With it, a reader of the sketches could test whether they contain a given id.
    hashing_key BLOB    NOT NULL CHECK (length(hashing_key) = 16)
) STRICT;
