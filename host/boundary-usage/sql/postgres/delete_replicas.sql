-- Deletes the replicas that have not flushed since a time, for pruning.
--
-- A replica with a row in the open period stays, because later flushes of the period compare numbers with it.
--
-- Parameters: $1 the time (timestamptz), $2 the largest number of replicas (bigint).
-- Returns the id of each deleted replica.
DELETE FROM boundary_usage_replicas
WHERE replica_id IN (
    SELECT r.replica_id FROM boundary_usage_replicas AS r
    WHERE r.flushed_at < $1::timestamptz
        AND NOT EXISTS (SELECT 1 FROM boundary_usage_stats AS s WHERE s.replica_id = r.replica_id)
    ORDER BY r.flushed_at LIMIT $2::bigint
) AND flushed_at < $1::timestamptz
RETURNING replica_id;
