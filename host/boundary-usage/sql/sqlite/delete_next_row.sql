-- Deletes one row of the open period, for a collection. The collection repeats this statement until no row is left.
--
-- SQLite holds all rows of a RETURNING clause in memory, so deleting all rows with one statement would need memory
-- for all sketches.
--
-- Parameters: none.
-- Returns the deleted row, or no row if none was left.
DELETE FROM boundary_usage_stats
WHERE replica_id = (SELECT min(replica_id) FROM boundary_usage_stats)
RETURNING replica_id, unique_workspaces_count, unique_users_count, allowed_requests, denied_requests,
    window_start, updated_at, workspaces_sketch, users_sketch;
