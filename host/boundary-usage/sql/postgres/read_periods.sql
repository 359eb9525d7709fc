-- Reads the newest periods and the oldest undelivered ones, for the status.
--
-- Parameters: $1 the number of newest periods, $2 the number of oldest undelivered periods (bigint).
-- Returns one row for each period, newest first. The columns of the delivery are null if none was attempted.
SELECT p.period_id, p.period_start, p.period_duration_ms, p.unique_workspaces, p.unique_users,
    p.allowed_requests, p.denied_requests, p.replicas, p.replica_workspaces_sum, p.replica_users_sum,
    p.stale_rows, p.stale_allowed_requests, p.stale_denied_requests,
    p.client_dropped_logs, p.delivered_at,
    d.attempts, d.attempted_at, d.next_attempt_at, d.last_error, d.lease IS NOT NULL AS under_way
FROM boundary_usage_periods AS p LEFT JOIN boundary_usage_deliveries AS d ON d.period_id = p.period_id
WHERE p.period_id IN (
    SELECT period_id
    FROM (SELECT period_id FROM boundary_usage_periods ORDER BY period_id DESC LIMIT $1::bigint) AS newest
    UNION
    SELECT period_id
    FROM (
        SELECT period_id FROM boundary_usage_periods WHERE delivered_at IS NULL ORDER BY period_id LIMIT $2::bigint
    ) AS undelivered
)
ORDER BY p.period_id DESC;
