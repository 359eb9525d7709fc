-- Counts what pruning would delete. The conditions are those of delete_periods.sql, delete_replicas.sql and
-- delete_days.sql. A limit that is null deletes nothing.
--
-- Parameters: ?1 end of the periods (text), ?2 whether undelivered periods are deleted, too (integer), ?3 last
-- flush of the replicas (text), ?4 the day after the last one (text).
-- Returns one row: periods, replicas and days to delete, and undelivered_kept, the undelivered periods that stay only
-- because ?2 is false.
SELECT p.periods, p.undelivered_kept, (
    SELECT count(*) FROM boundary_usage_replicas AS r
    WHERE r.flushed_at < ?3
        AND NOT EXISTS (SELECT 1 FROM boundary_usage_stats AS s WHERE s.replica_id = r.replica_id)
) AS replicas, (
    SELECT count(*) FROM boundary_usage_days WHERE day < ?4
) AS days
FROM (
    SELECT count(*) FILTER (WHERE delivered_at IS NOT NULL OR ?2) AS periods,
        count(*) FILTER (WHERE delivered_at IS NULL AND NOT ?2) AS undelivered_kept
    FROM boundary_usage_periods
    WHERE period_end < ?1 AND period_id < (SELECT max(period_id) FROM boundary_usage_periods)
) AS p;
