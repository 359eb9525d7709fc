-- Reads all days of the history, for a report.
--
-- Parameters: none.
-- Returns one row for each day with activity, oldest first.
SELECT day, periods, spans_midnight, allowed_requests, denied_requests, unique_workspaces, unique_users,
    workspaces_sketch, users_sketch
FROM boundary_usage_days ORDER BY day;
