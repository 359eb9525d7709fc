-- The summaries of closed periods. A collection writes one in the transaction that deletes the rows it sums, so
-- that a summary cannot be lost between the two; it stays undelivered until its delivery is acknowledged.
CREATE TABLE boundary_usage_periods (
    -- AUTOINCREMENT: the id of a period that was cleaned away must not come back for another.
    period_id              INTEGER PRIMARY KEY AUTOINCREMENT,
    period_start           TEXT    NOT NULL,
    -- The cutover: the next period starts here.
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

-- Undelivered summaries are few among years of history.
CREATE INDEX boundary_usage_periods_undelivered ON boundary_usage_periods (period_id) WHERE delivered_at IS NULL;
