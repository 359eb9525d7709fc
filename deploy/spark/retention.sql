-- Counts how many of the users and workspaces that were new in a window are active later, over the exports of any
-- number of databases.
--
-- Variables: ${exports}, the folder of the Parquet files, and ${by}: day, week or month. Windows are in UTC, and weeks
-- start on Monday. The last window contains the last exported day.
--
-- Returns one row for each cohort, kind and later window. size is the number of ids that were new in the window that
-- begins on `start`. active is the number of them that are active `later` windows after it. active_after_7_days,
-- active_after_30_days and active_after_90_days are the numbers of them that were active at least that many days after
-- their first day. These three columns are null until that time has passed for the last day of the cohort.
WITH days AS (
    SELECT * FROM parquet.`${exports}`
),
-- Sketches of different hashing keys have no ids in common, so an id would count once for each key.
checked AS (
    SELECT assert_true(count(DISTINCT key_fingerprint) = 1, 'the exports have several hashing keys') AS passed,
        max(day) AS last_exported
    FROM days
),
calendar AS (
    SELECT explode(sequence(min(day), max(day))) AS day FROM days
),
-- 14 is the sketches' lgNomEntries. A smaller number would lose accuracy.
merged AS (
    SELECT kind, day, theta_union_agg(sketch, 14) AS sketch
    FROM days LATERAL VIEW stack(2, 'users', users_sketch, 'workspaces', workspaces_sketch) AS kind, sketch
    GROUP BY kind, day
),
daily AS (
    SELECT kind, day, CASE '${by}' WHEN 'day' THEN day ELSE trunc(day, '${by}') END AS start, sketch
    FROM calendar CROSS JOIN (VALUES 'users', 'workspaces') AS kinds (kind) LEFT JOIN merged USING (kind, day)
),
-- A union over no sketch is the empty set. With days in descending order, a frame of later days grows row by row.
sets AS (
    SELECT kind, day, start,
        theta_union_agg(sketch, 14) OVER (
            PARTITION BY kind ORDER BY day ROWS BETWEEN CURRENT ROW AND CURRENT ROW
        ) AS active,
        theta_union_agg(sketch, 14) OVER (
            PARTITION BY kind ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS before,
        theta_union_agg(sketch, 14) OVER (
            PARTITION BY kind ORDER BY day DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 7 PRECEDING
        ) AS after_7_days,
        theta_union_agg(sketch, 14) OVER (
            PARTITION BY kind ORDER BY day DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 30 PRECEDING
        ) AS after_30_days,
        theta_union_agg(sketch, 14) OVER (
            PARTITION BY kind ORDER BY day DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 90 PRECEDING
        ) AS after_90_days
    FROM daily
),
new_ids AS (
    SELECT kind, day, start, active, theta_difference(active, before) AS new,
        after_7_days, after_30_days, after_90_days
    FROM sets
),
-- The end of a window can be later than the last exported day, so it comes from the calendar's rules.
cohorts AS (
    SELECT kind, start,
        CASE '${by}' WHEN 'day' THEN start WHEN 'week' THEN date_add(start, 6) ELSE last_day(start) END AS end_day,
        theta_union_agg(active, 14) AS active,
        theta_union_agg(new, 14) AS new,
        theta_union_agg(theta_intersection(new, after_7_days), 14) AS active_after_7_days,
        theta_union_agg(theta_intersection(new, after_30_days), 14) AS active_after_30_days,
        theta_union_agg(theta_intersection(new, after_90_days), 14) AS active_after_90_days
    FROM new_ids GROUP BY kind, start
),
numbered AS (
    SELECT *, row_number() OVER (PARTITION BY kind ORDER BY start) AS number FROM cohorts
)
SELECT cohort.start, cohort.kind,
    theta_sketch_estimate(cohort.new) AS size,
    other.number - cohort.number AS later,
    theta_sketch_estimate(theta_intersection(cohort.new, other.active)) AS active,
    CASE WHEN date_add(cohort.end_day, 7) <= last_exported
        THEN theta_sketch_estimate(cohort.active_after_7_days) END AS active_after_7_days,
    CASE WHEN date_add(cohort.end_day, 30) <= last_exported
        THEN theta_sketch_estimate(cohort.active_after_30_days) END AS active_after_30_days,
    CASE WHEN date_add(cohort.end_day, 90) <= last_exported
        THEN theta_sketch_estimate(cohort.active_after_90_days) END AS active_after_90_days
FROM numbered AS cohort JOIN numbered AS other ON other.kind = cohort.kind AND other.number >= cohort.number
    CROSS JOIN checked
WHERE passed IS NULL
ORDER BY cohort.start, cohort.kind, later;
