-- The delivery of summaries to whoever wants them (`serve --deliver`): one row for each period that was ever tried. Whether a
-- period is delivered says boundary_usage_periods.delivered_at, and nothing here.
CREATE TABLE boundary_usage_deliveries (
    period_id       bigint      PRIMARY KEY REFERENCES boundary_usage_periods ON DELETE CASCADE,
    -- Sent with every attempt, whoever makes it: the receiver knows by it what it has had before.
    idempotency_key uuid        NOT NULL,
    attempts        bigint      NOT NULL CHECK (attempts > 0),
    attempted_at    timestamptz NOT NULL,
    -- Who is at it now; null after an attempt that failed. Whoever claims a delivery gives it another lease, so that one who
    -- comes back late does not write over what its successor does.
    lease           uuid,
    -- The end of the lease, or of the wait after a failure: from then on anybody may claim the delivery.
    next_attempt_at timestamptz NOT NULL,
    last_error      text
);
