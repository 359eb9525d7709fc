-- Counts the active users and workspaces by day, week or month, over the exports of any number of databases.
--
-- Variables: ${exports}, the folder of the Parquet files, and ${by}: day, week or month. Windows are in UTC, and weeks
-- start on Monday. The last window contains the last exported day.
--
-- Returns one row for each window and kind, including windows without activity. The columns have the same meaning as in
-- `boundary-usage report`. active_7_days and active_30_days are null unless the windows are days.
WITH days AS (
    SELECT * FROM parquet.`${exports}`
),
-- Sketches of different hashing keys have no ids in common, so an id would count once for each key.
checked AS (
    SELECT assert_true(count(DISTINCT key_fingerprint) = 1, 'the exports have several hashing keys') AS passed FROM days
),
daily AS (
    SELECT CASE '${by}' WHEN 'day' THEN day ELSE trunc(day, '${by}') END AS start,
        allowed_requests, denied_requests, spans_midnight, users_sketch, workspaces_sketch
    FROM days
),
calendar AS (
    SELECT DISTINCT CASE '${by}' WHEN 'day' THEN date ELSE trunc(date, '${by}') END AS start
    FROM (SELECT explode(sequence(min(day), max(day))) AS date FROM days)
),
requests AS (
    SELECT start, sum(allowed_requests) AS allowed_requests, sum(denied_requests) AS denied_requests,
        bool_or(spans_midnight) AS spans_midnight
    FROM daily GROUP BY start
),
-- 14 is the sketches' lgNomEntries. A smaller number would lose accuracy.
merged AS (
    SELECT kind, start, theta_union_agg(sketch, 14) AS sketch
    FROM daily LATERAL VIEW stack(2, 'users', users_sketch, 'workspaces', workspaces_sketch) AS kind, sketch
    GROUP BY kind, start
),
windows AS (
    SELECT kind, start, sketch
    FROM calendar CROSS JOIN (VALUES 'users', 'workspaces') AS kinds (kind) LEFT JOIN merged USING (kind, start)
),
-- A union over no sketch is the empty set.
sets AS (
    SELECT kind, start,
        theta_union_agg(sketch, 14) OVER (
            PARTITION BY kind ORDER BY start ROWS BETWEEN CURRENT ROW AND CURRENT ROW
        ) AS active,
        theta_union_agg(sketch, 14) OVER (
            PARTITION BY kind ORDER BY start ROWS BETWEEN 1 PRECEDING AND 1 PRECEDING
        ) AS previous,
        theta_union_agg(sketch, 14) OVER (
            PARTITION BY kind ORDER BY start ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS before,
        CASE '${by}' WHEN 'day' THEN theta_union_agg(sketch, 14) OVER (
            PARTITION BY kind ORDER BY start ROWS BETWEEN 6 PRECEDING AND CURRENT ROW
        ) END AS last_7_days,
        CASE '${by}' WHEN 'day' THEN theta_union_agg(sketch, 14) OVER (
            PARTITION BY kind ORDER BY start ROWS BETWEEN 29 PRECEDING AND CURRENT ROW
        ) END AS last_30_days
    FROM windows
)
SELECT start, kind,
    theta_sketch_estimate(active) AS active,
    theta_sketch_estimate(theta_difference(active, before)) AS new,
    theta_sketch_estimate(theta_intersection(active, previous)) AS returning,
    theta_sketch_estimate(theta_difference(theta_intersection(active, before), previous)) AS resurrected,
    theta_sketch_estimate(theta_difference(previous, active)) AS lost,
    theta_sketch_estimate(last_7_days) AS active_7_days,
    theta_sketch_estimate(last_30_days) AS active_30_days,
    coalesce(allowed_requests, 0) AS allowed_requests,
    coalesce(denied_requests, 0) AS denied_requests,
    coalesce(spans_midnight, false) AS spans_midnight
FROM sets LEFT JOIN requests USING (start) CROSS JOIN checked
WHERE passed IS NULL
ORDER BY start, kind;
