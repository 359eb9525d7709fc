-- The deliveries of `serve --deliver`: one row for each period with at least one attempt.
-- boundary_usage_periods.delivered_at alone records whether a period is delivered.
CREATE TABLE boundary_usage_deliveries (
    period_id       INTEGER NOT NULL PRIMARY KEY REFERENCES boundary_usage_periods ON DELETE CASCADE,
    -- Every attempt of every replica sends this key, so the receiver can detect a repeated delivery.
    idempotency_key TEXT    NOT NULL,
    attempts        INTEGER NOT NULL CHECK (attempts > 0),
    attempted_at    TEXT    NOT NULL,
    -- Identifies the running attempt; null after a failed one. Each claim sets a new lease, so a late claimant cannot
    -- overwrite the record of the next one.
    lease           TEXT,
    -- The end of the lease, or of the wait after a failure. Afterwards every replica may claim the delivery.
    next_attempt_at TEXT    NOT NULL,
    last_error      TEXT
) STRICT;
