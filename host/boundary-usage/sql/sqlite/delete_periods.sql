-- Deletes the oldest closed periods that ended before a time, for pruning, and the records of their deliveries.
--
-- The newest period stays, because its end is the start of the open period.
--
-- Parameters: ?1 the time (text), ?2 whether undelivered periods are deleted, too (integer), ?3 the largest
-- number of periods (integer).
-- Returns the id of each deleted period.
DELETE FROM boundary_usage_periods
WHERE period_id IN (
    SELECT period_id FROM boundary_usage_periods
    WHERE period_end < ?1 AND (delivered_at IS NOT NULL OR ?2)
        AND period_id < (SELECT max(period_id) FROM boundary_usage_periods)
    ORDER BY period_id LIMIT ?3
)
RETURNING period_id;
