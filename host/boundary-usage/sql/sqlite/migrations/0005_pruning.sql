-- The merged set of all pruned days. With it, an id of a pruned day never counts as new again. At most one row.
CREATE TABLE boundary_usage_before (
    -- INT, because an INTEGER PRIMARY KEY would be the row number, and SQLite ignores its default.
    only_row          INT     NOT NULL DEFAULT 1 PRIMARY KEY CHECK (only_row = 1),
    -- The last pruned day, YYYY-MM-DD.
    day               TEXT    NOT NULL CHECK (day = date(day)),
    periods           INTEGER NOT NULL CHECK (periods > 0),
    allowed_requests  INTEGER NOT NULL CHECK (allowed_requests >= 0),
    denied_requests   INTEGER NOT NULL CHECK (denied_requests >= 0),
    unique_workspaces INTEGER NOT NULL CHECK (unique_workspaces >= 0),
    unique_users      INTEGER NOT NULL CHECK (unique_users >= 0),
    -- Compact Theta sketches of the id hashes.
    workspaces_sketch BLOB    NOT NULL,
    users_sketch      BLOB    NOT NULL
) STRICT;

-- The status reads the replicas that flushed last, and pruning deletes those that flushed first.
CREATE INDEX boundary_usage_replicas_flushed ON boundary_usage_replicas (flushed_at, replica_id);

-- A claim of a delivery reads the time of the last successful one.
CREATE INDEX boundary_usage_periods_delivered ON boundary_usage_periods (delivered_at);

-- The logs that clients of a replica reported as dropped in the open period. A collection deletes all rows and stores
-- their sum in its period.
CREATE TABLE boundary_usage_client_drops (
    replica_id   TEXT    PRIMARY KEY,
    dropped_logs INTEGER NOT NULL CHECK (dropped_logs >= 0)
) STRICT;

ALTER TABLE boundary_usage_periods ADD COLUMN client_dropped_logs INTEGER NOT NULL DEFAULT 0;
