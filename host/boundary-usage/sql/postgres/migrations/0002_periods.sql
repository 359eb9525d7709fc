-- The summaries of closed periods. A collection writes one in the transaction that deletes the rows it sums, so
-- that a summary cannot be lost between the two; it stays undelivered until its delivery is acknowledged.
CREATE TABLE boundary_usage_periods (
    period_id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    period_start           timestamptz NOT NULL,
    -- The cutover: the next period starts here.
    period_end             timestamptz NOT NULL CHECK (period_end >= period_start),
    period_duration_ms     bigint      NOT NULL,
    unique_workspaces      bigint      NOT NULL,
    unique_users           bigint      NOT NULL,
    allowed_requests       bigint      NOT NULL,
    denied_requests        bigint      NOT NULL,
    replicas               bigint      NOT NULL,
    replica_workspaces_sum bigint      NOT NULL,
    replica_users_sum      bigint      NOT NULL,
    stale_rows             bigint      NOT NULL,
    stale_allowed_requests bigint      NOT NULL,
    stale_denied_requests  bigint      NOT NULL,
    delivered_at           timestamptz
);

-- Undelivered summaries are few among years of history.
CREATE INDEX boundary_usage_periods_undelivered ON boundary_usage_periods (period_id) WHERE delivered_at IS NULL;
