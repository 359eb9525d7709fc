-- Deletes the logs that clients reported as dropped in the open period, for a collection.
--
-- Parameters: none.
-- Returns the dropped logs of each replica.
DELETE FROM boundary_usage_client_drops
RETURNING dropped_logs;
