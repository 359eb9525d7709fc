-- Adds to the logs that clients of a replica reported as dropped in the open period.
--
-- The sum saturates at 2^63 - 1.
--
-- Parameters: $1 replica id (uuid), $2 dropped logs (bigint).
-- Returns nothing.
INSERT INTO boundary_usage_client_drops AS d (replica_id, dropped_logs) VALUES ($1::uuid, $2::bigint)
ON CONFLICT (replica_id) DO UPDATE SET
    dropped_logs = d.dropped_logs + least(excluded.dropped_logs, 9223372036854775807 - d.dropped_logs);
