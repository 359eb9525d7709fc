-- The summaries of closed periods. A collection inserts the summary and deletes the rows in one transaction, so no
-- crash can lose a summary. A summary is undelivered until its delivery is acknowledged.
CREATE TABLE boundary_usage_periods (
    -- AUTOINCREMENT, because the id of a deleted period must not be used again.
    period_id              INTEGER PRIMARY KEY AUTOINCREMENT,
    period_start           TEXT    NOT NULL,
    -- The cutover, which is also the start of the next period.
    period_end             TEXT    NOT NULL CHECK (period_end >= period_start),
    period_duration_ms     INTEGER NOT NULL,
    unique_workspaces      INTEGER NOT NULL,
    unique_users           INTEGER NOT NULL,
    allowed_requests       INTEGER NOT NULL,
    denied_requests        INTEGER NOT NULL,
    replicas               INTEGER NOT NULL,
    replica_workspaces_sum INTEGER NOT NULL,
    replica_users_sum      INTEGER NOT NULL,
    stale_rows             INTEGER NOT NULL,
    stale_allowed_requests INTEGER NOT NULL,
    stale_denied_requests  INTEGER NOT NULL,
    delivered_at           TEXT
) STRICT;

-- Few summaries of a long history are undelivered.
CREATE INDEX boundary_usage_periods_undelivered ON boundary_usage_periods (period_id) WHERE delivered_at IS NULL;
