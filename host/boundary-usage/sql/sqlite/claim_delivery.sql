-- Claims the next delivery that is due: the one with the fewest attempts, and of these the oldest.
--
-- A delivery is also due if a clock that was ahead has stored its times; see read_backoff.sql.
--
-- Parameters: ?1 idempotency key of a first attempt, ?2 new lease (text), ?3 length of the lease in seconds (real).
-- Returns the period id, or no row if no delivery is due.
INSERT INTO boundary_usage_deliveries AS d (
    period_id, idempotency_key, lease, attempts, attempted_at, next_attempt_at
)
SELECT p.period_id, ?1, ?2, 1, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'),
    strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', ?3 || ' seconds')
FROM boundary_usage_periods AS p LEFT JOIN boundary_usage_deliveries AS t ON t.period_id = p.period_id
WHERE p.delivered_at IS NULL AND (t.period_id IS NULL OR NOT (
    t.next_attempt_at > strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
    AND t.next_attempt_at <= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+24 hours', '+1 minute')
    AND t.attempted_at <= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+1 minute')
))
ORDER BY coalesce(t.attempts, 0), p.period_id LIMIT 1
ON CONFLICT (period_id) DO UPDATE SET lease = excluded.lease, attempts = d.attempts + 1,
    attempted_at = excluded.attempted_at, next_attempt_at = excluded.next_attempt_at
RETURNING period_id;
