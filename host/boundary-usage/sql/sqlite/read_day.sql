-- Reads a day of the history, for a collection.
--
-- Parameters: ?1 the date.
-- Returns one row, or no row if the day has no activity.
SELECT day, periods, spans_midnight, allowed_requests, denied_requests, unique_workspaces, unique_users,
    workspaces_sketch, users_sketch
FROM boundary_usage_days WHERE day = ?1;
