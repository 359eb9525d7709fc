-- Stores the summary of a closed period as undelivered, for a collection.
--
-- Parameters: ?1 start, ?2 end (text), ?3 length in milliseconds, ?4 unique workspaces, ?5 unique users, ?6 allowed
-- requests, ?7 denied requests, ?8 replicas, ?9 sum of the replicas' unique workspaces, ?10 sum of the replicas'
-- unique users, ?11 stale rows, ?12 their allowed requests, ?13 their denied requests, ?14 logs that clients dropped
-- (integer).
-- Returns one row with the new period_id.
INSERT INTO boundary_usage_periods (
    period_start, period_end, period_duration_ms, unique_workspaces, unique_users, allowed_requests,
    denied_requests, replicas, replica_workspaces_sum, replica_users_sum, stale_rows, stale_allowed_requests,
    stale_denied_requests, client_dropped_logs
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
RETURNING period_id;
