-- Inserts the row of a replica that has none in the open period. record_flush.sql must follow.
--
-- The statement writes nothing if the flush is not newer than the replica's last one, or if the replica has a row.
--
-- Parameters: ?1 replica id (text), ?2 flush number, ?3 allowed requests, ?4 denied requests, ?5 unique workspaces,
-- ?6 unique users (integer), ?7 sketch of the workspaces, ?8 sketch of the users (blob).
-- Returns nothing.
INSERT INTO boundary_usage_stats (
    replica_id, allowed_requests, denied_requests, unique_workspaces_count, unique_users_count,
    workspaces_sketch, users_sketch
)
SELECT ?1, ?3, ?4, ?5, ?6, ?7, ?8
WHERE NOT EXISTS (SELECT 1 FROM boundary_usage_replicas WHERE replica_id = ?1 AND last_flush >= ?2)
ON CONFLICT (replica_id) DO NOTHING;
