-- Reads the rows of the open period, for the status.
--
-- Parameters: none.
-- Returns all rows with their sketches, in the order of their replica ids.
SELECT replica_id, unique_workspaces_count, unique_users_count, allowed_requests, denied_requests,
    window_start, updated_at, workspaces_sketch, users_sketch
FROM boundary_usage_stats ORDER BY replica_id;
