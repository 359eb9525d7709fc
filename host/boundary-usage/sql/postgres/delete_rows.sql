-- Deletes all rows of the open period, for a collection.
--
-- Parameters: none.
-- Returns the deleted rows.
DELETE FROM boundary_usage_stats
RETURNING replica_id, unique_workspaces_count, unique_users_count, allowed_requests, denied_requests,
    window_start, updated_at, workspaces_sketch, users_sketch;
