-- Reads how many replicas have flushed recently, and which of them flushed the longest time ago, for monitoring.
--
-- Parameters: $1 seconds within which a replica counts as live (double precision).
-- Returns one row: live, and replica_id and age_ms of that replica (null if no replica is live).
SELECT count(*) AS live,
    (array_agg(replica_id ORDER BY flushed_at))[1] AS replica_id,
    (1000 * extract(epoch FROM statement_timestamp() - min(flushed_at)))::bigint AS age_ms
FROM boundary_usage_replicas
WHERE flushed_at > statement_timestamp() - $1::double precision * interval '1 second';
