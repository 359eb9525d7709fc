-- The history: one row for each UTC day with activity. A collection adds its period to the day on which the period
-- started, in its own transaction.
CREATE TABLE boundary_usage_days (
    day               date    PRIMARY KEY,
    periods           bigint  NOT NULL CHECK (periods > 0),
    -- Whether a period of the day ended clearly after midnight, so it may contain activity of the next day.
    spans_midnight    boolean NOT NULL,
    allowed_requests  bigint  NOT NULL CHECK (allowed_requests >= 0),
    denied_requests   bigint  NOT NULL CHECK (denied_requests >= 0),
    unique_workspaces bigint  NOT NULL CHECK (unique_workspaces >= 0),
    unique_users      bigint  NOT NULL CHECK (unique_users >= 0),
    -- Compact Theta sketches of the id hashes.
    workspaces_sketch bytea   NOT NULL,
    users_sketch      bytea   NOT NULL
);

-- Hashes do not compress.
ALTER TABLE boundary_usage_days
    ALTER COLUMN workspaces_sketch SET STORAGE EXTERNAL,
    ALTER COLUMN users_sketch SET STORAGE EXTERNAL;

-- Identifies the hashing key without revealing it. Only databases with the same key can be merged. SQLite's hosts
-- compute it from the key.
ALTER TABLE boundary_usage_deployment
    ADD COLUMN key_fingerprint text GENERATED ALWAYS AS (left(encode(sha256(hashing_key), 'hex'), 16)) STORED;
