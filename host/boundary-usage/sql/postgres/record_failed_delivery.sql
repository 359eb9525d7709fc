-- Records a failed delivery and ends its claim, unless a later claim replaced the lease.
--
-- Parameters: $1 period id (bigint), $2 lease (uuid), $3 error (text), $4 time until the next attempt in seconds
-- (double precision).
-- Returns the period id, or no row if the claim is over.
UPDATE boundary_usage_deliveries
SET lease = NULL, last_error = $3::text,
    next_attempt_at = statement_timestamp() + $4::double precision * interval '1 second'
WHERE period_id = $1::bigint AND lease = $2::uuid
RETURNING period_id;
