-- Replaces the unique sets in a replica's row and adds the request counts. record_flush.sql must follow.
--
-- The statement writes nothing if the flush is not newer than the replica's last one, or if the replica has no row.
-- Request counts saturate at 2^63 - 1.
--
-- Parameters: ?1 replica id (text), ?2 flush number, ?3 allowed requests, ?4 denied requests, ?5 unique workspaces,
-- ?6 unique users (integer), ?7 sketch of the workspaces, ?8 sketch of the users (blob).
-- Returns nothing.
UPDATE boundary_usage_stats SET
    allowed_requests = allowed_requests + min(?3, 9223372036854775807 - allowed_requests),
    denied_requests = denied_requests + min(?4, 9223372036854775807 - denied_requests),
    unique_workspaces_count = ?5,
    unique_users_count = ?6,
    workspaces_sketch = ?7,
    users_sketch = ?8,
    updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
WHERE replica_id = ?1 AND (SELECT last_flush FROM boundary_usage_replicas WHERE replica_id = ?1) < ?2;
