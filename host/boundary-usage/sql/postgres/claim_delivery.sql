-- Claims the next delivery that is due: the one with the fewest attempts, and of these the oldest.
--
-- A delivery is also due if a clock that was ahead has stored its times; see read_backoff.sql. A period that another
-- transaction is acknowledging is skipped. The transaction must hold the delivery lock.
--
-- Parameters: $1 idempotency key of a first attempt, $2 new lease (uuid), $3 length of the lease in seconds (double
-- precision).
-- Returns the period id, or no row if no delivery is due.
WITH due AS (
    SELECT p.period_id
    FROM boundary_usage_periods AS p LEFT JOIN boundary_usage_deliveries AS d ON d.period_id = p.period_id
    WHERE p.delivered_at IS NULL AND (d.period_id IS NULL OR NOT (
        d.next_attempt_at > statement_timestamp()
        AND d.next_attempt_at <= statement_timestamp() + interval '24 hours 1 minute'
        AND d.attempted_at <= statement_timestamp() + interval '1 minute'
    ))
    ORDER BY coalesce(d.attempts, 0), p.period_id LIMIT 1
    FOR UPDATE OF p SKIP LOCKED
)
INSERT INTO boundary_usage_deliveries AS d (
    period_id, idempotency_key, lease, attempts, attempted_at, next_attempt_at
)
SELECT period_id, $1::uuid, $2::uuid, 1, statement_timestamp(),
    statement_timestamp() + $3::double precision * interval '1 second'
FROM due
ON CONFLICT (period_id) DO UPDATE SET lease = excluded.lease, attempts = d.attempts + 1,
    attempted_at = excluded.attempted_at, next_attempt_at = excluded.next_attempt_at
RETURNING period_id;
