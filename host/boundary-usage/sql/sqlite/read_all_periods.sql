-- Reads all closed periods, for an export.
--
-- Parameters: none.
-- Returns one row for each period, oldest first. The columns of the delivery are null if none was attempted.
SELECT p.period_id, p.period_start, p.period_duration_ms, p.unique_workspaces, p.unique_users,
    p.allowed_requests, p.denied_requests, p.replicas, p.replica_workspaces_sum, p.replica_users_sum,
    p.stale_rows, p.stale_allowed_requests, p.stale_denied_requests,
    p.client_dropped_logs, p.delivered_at,
    d.attempts, d.attempted_at, d.next_attempt_at, d.last_error, d.lease IS NOT NULL AS under_way
FROM boundary_usage_periods AS p LEFT JOIN boundary_usage_deliveries AS d ON d.period_id = p.period_id
ORDER BY p.period_id;
