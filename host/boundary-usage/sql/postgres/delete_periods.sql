-- Deletes the oldest closed periods that ended before a time, for pruning, and the records of their deliveries.
--
-- The newest period stays, because its end is the start of the open period.
--
-- Parameters: $1 the time (timestamptz), $2 whether undelivered periods are deleted, too (boolean), $3 the largest
-- number of periods (bigint).
-- Returns the id of each deleted period.
DELETE FROM boundary_usage_periods
WHERE period_id IN (
    SELECT period_id FROM boundary_usage_periods
    WHERE period_end < $1::timestamptz AND (delivered_at IS NOT NULL OR $2::boolean)
        AND period_id < (SELECT max(period_id) FROM boundary_usage_periods)
    ORDER BY period_id LIMIT $3::bigint
)
RETURNING period_id;
