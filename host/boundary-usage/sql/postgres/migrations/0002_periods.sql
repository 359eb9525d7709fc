-- The summaries of closed periods. A collection inserts the summary and deletes the rows in one transaction, so no
-- crash can lose a summary. A summary is undelivered until its delivery is acknowledged.
CREATE TABLE boundary_usage_periods (
    period_id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    period_start           timestamptz NOT NULL,
    -- The cutover, which is also the start of the next period.
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

-- Few summaries of a long history are undelivered.
CREATE INDEX boundary_usage_periods_undelivered ON boundary_usage_periods (period_id) WHERE delivered_at IS NULL;
