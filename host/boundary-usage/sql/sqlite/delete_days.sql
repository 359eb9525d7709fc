-- Deletes the oldest days before a date, for pruning. The exclusive cutover lock excludes collections.
--
-- Parameters: ?1 the date, ?2 the largest number of days (integer).
-- Returns the deleted days in any order.
DELETE FROM boundary_usage_days
WHERE day IN (SELECT day FROM boundary_usage_days WHERE day < ?1 ORDER BY day LIMIT ?2)
RETURNING day, periods, spans_midnight, allowed_requests, denied_requests, unique_workspaces, unique_users,
    workspaces_sketch, users_sketch;
