-- Records a failed delivery and ends its claim, unless a later claim replaced the lease.
--
-- Parameters: ?1 period id (integer), ?2 lease (text), ?3 error (text), ?4 time until the next attempt in seconds
-- (real).
-- Returns the period id, or no row if the claim is over.
UPDATE boundary_usage_deliveries
SET lease = NULL, last_error = ?3,
    next_attempt_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', ?4 || ' seconds')
WHERE period_id = ?1 AND lease = ?2
RETURNING period_id;
