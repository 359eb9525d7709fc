-- Reads the stored usage of a replica, and the hashing key.
--
-- Parameters: ?1 replica id (text).
-- Returns one row. last_flush is null before the replica's first flush. The counts and sketches are null if the
-- replica has no row in the open period. hashing_key is null if the database has lost it.
SELECT r.last_flush, s.unique_workspaces_count, s.unique_users_count, s.workspaces_sketch, s.users_sketch,
    (SELECT hashing_key FROM boundary_usage_deployment) AS hashing_key
FROM (SELECT ?1 AS replica_id) AS requested
LEFT JOIN boundary_usage_replicas AS r ON r.replica_id = requested.replica_id
LEFT JOIN boundary_usage_stats AS s ON s.replica_id = requested.replica_id;
