-- Reads the replicas that flushed last, for the status.
--
-- Parameters: $1 the largest number of replicas (bigint).
-- Returns one row for each replica with its last flush, newest first.
SELECT replica_id, last_flush, flushed_at FROM boundary_usage_replicas
ORDER BY flushed_at DESC, replica_id DESC LIMIT $1::bigint;
