-- Adds the request counts to a replica's row and keeps its unique sets. record_flush.sql must follow.
--
-- The statement writes nothing if the flush is not newer than the replica's last one, or if the replica has no row.
-- Request counts saturate at 2^63 - 1.
--
-- Parameters: ?1 replica id (text), ?2 flush number, ?3 allowed requests, ?4 denied requests (integer).
-- Returns nothing.
UPDATE boundary_usage_stats SET
    allowed_requests = allowed_requests + min(?3, 9223372036854775807 - allowed_requests),
    denied_requests = denied_requests + min(?4, 9223372036854775807 - denied_requests),
    updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
WHERE replica_id = ?1 AND (SELECT last_flush FROM boundary_usage_replicas WHERE replica_id = ?1) < ?2;
