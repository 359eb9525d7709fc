-- The history: one row for each UTC day with activity. A collection adds its period to the day on which the period
-- started, in its own transaction.
CREATE TABLE boundary_usage_days (
    -- The date, YYYY-MM-DD.
    day               TEXT    NOT NULL PRIMARY KEY CHECK (day = date(day)),
    periods           INTEGER NOT NULL CHECK (periods > 0),
    -- 1 if a period of the day ended clearly after midnight, so it may contain activity of the next day.
    spans_midnight    INTEGER NOT NULL CHECK (spans_midnight IN (0, 1)),
    allowed_requests  INTEGER NOT NULL CHECK (allowed_requests >= 0),
    denied_requests   INTEGER NOT NULL CHECK (denied_requests >= 0),
    unique_workspaces INTEGER NOT NULL CHECK (unique_workspaces >= 0),
    unique_users      INTEGER NOT NULL CHECK (unique_users >= 0),
    -- Compact Theta sketches of the id hashes.
    workspaces_sketch BLOB    NOT NULL,
    users_sketch      BLOB    NOT NULL
) STRICT;
