-- Reads the rows of the open period that were updated last, for the status.
--
-- Only the inner query sorts, because a sort of rows with their sketches would need much memory.
--
-- Parameters: ?1 the largest number of rows (integer).
-- Returns the rows with their sketches in any order.
SELECT replica_id, unique_workspaces_count, unique_users_count, allowed_requests, denied_requests,
    window_start, updated_at, workspaces_sketch, users_sketch
FROM boundary_usage_stats
WHERE replica_id IN (
    SELECT replica_id FROM boundary_usage_stats ORDER BY updated_at DESC, replica_id DESC LIMIT ?1
);
