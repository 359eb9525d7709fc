-- Reads the last flush of every replica, for the status.
--
-- Parameters: none.
-- Returns one row for each replica that has flushed, in the order of their ids.
SELECT replica_id, last_flush, flushed_at FROM boundary_usage_replicas ORDER BY replica_id;
