-- Reads how many replicas have flushed recently, and which of them flushed the longest time ago, for monitoring.
--
-- Parameters: ?1 seconds within which a replica counts as live (real).
-- Returns one row: live, and replica_id and age_ms of that replica (null if no replica is live).
SELECT count(*) AS live, replica_id,
    CAST(1000 * (unixepoch('now', 'subsec') - unixepoch(min(flushed_at), 'subsec')) AS INTEGER) AS age_ms
FROM boundary_usage_replicas
WHERE unixepoch(flushed_at, 'subsec') > unixepoch('now', 'subsec') - ?1;
