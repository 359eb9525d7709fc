-- Reads the state of all unfinished deliveries, to decide whether the destination needs a pause.
--
-- A delivery waits at most 24 hours for its next attempt, and no attempt has started in the future. Times that
-- contradict this come from a clock that was ahead, so they are ignored. One minute of tolerance allows for small
-- differences between clocks.
--
-- Parameters: none.
-- Returns one row. failures counts the failed attempts since the last successful delivery. first_due_ms and
-- last_due_ms are the times until the first and the last waiting delivery are due, or null if none waits.
WITH pending AS (
    SELECT d.attempts, d.attempted_at, d.last_error, d.next_attempt_at,
        d.next_attempt_at > statement_timestamp()
            AND d.next_attempt_at <= statement_timestamp() + interval '24 hours 1 minute'
            AND d.attempted_at <= statement_timestamp() + interval '1 minute' AS is_waiting
    FROM boundary_usage_periods AS p JOIN boundary_usage_deliveries AS d ON d.period_id = p.period_id
    WHERE p.delivered_at IS NULL
)
SELECT
    coalesce(sum(attempts) FILTER (WHERE last_error IS NOT NULL AND attempted_at > coalesce((
        SELECT max(delivered_at) FROM boundary_usage_periods
        WHERE delivered_at <= statement_timestamp() + interval '1 minute'
    ), '-infinity')), 0)::bigint AS failures,
    ceil(1000 * extract(epoch FROM min(next_attempt_at) FILTER (WHERE is_waiting) - statement_timestamp()))::bigint
        AS first_due_ms,
    ceil(1000 * extract(epoch FROM max(next_attempt_at) FILTER (WHERE is_waiting) - statement_timestamp()))::bigint
        AS last_due_ms
FROM pending;
