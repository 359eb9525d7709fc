-- Reads a period's summary and the state of its delivery, after a claim.
--
-- Parameters: ?1 period id (integer).
-- Returns one row.
SELECT p.period_id, p.period_start, p.period_duration_ms, p.unique_workspaces, p.unique_users,
    p.allowed_requests, p.denied_requests, p.replicas, p.replica_workspaces_sum, p.replica_users_sum,
    p.stale_rows, p.stale_allowed_requests, p.stale_denied_requests,
    p.client_dropped_logs,
    d.attempts, d.idempotency_key
FROM boundary_usage_periods AS p JOIN boundary_usage_deliveries AS d ON d.period_id = p.period_id
WHERE p.period_id = ?1;
