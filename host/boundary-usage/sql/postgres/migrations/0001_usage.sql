-- The open period: one row for each replica that flushed in it. A collection deletes them all.
-- The columns up to updated_at are those that consumers of the reference know.
CREATE TABLE boundary_usage_stats (
    replica_id              uuid        PRIMARY KEY,
    unique_workspaces_count bigint      NOT NULL DEFAULT 0 CHECK (unique_workspaces_count >= 0),
    unique_users_count      bigint      NOT NULL DEFAULT 0 CHECK (unique_users_count >= 0),
    allowed_requests        bigint      NOT NULL DEFAULT 0 CHECK (allowed_requests >= 0),
    denied_requests         bigint      NOT NULL DEFAULT 0 CHECK (denied_requests >= 0),
    window_start            timestamptz NOT NULL DEFAULT now(),
    updated_at              timestamptz NOT NULL DEFAULT now(),
    -- Compact Theta sketches of the ids' pseudonyms: they merge, counts do not.
    workspaces_sketch       bytea       NOT NULL,
    users_sketch            bytea       NOT NULL
);

-- Hashes do not compress; trying would cost every flush.
ALTER TABLE boundary_usage_stats
    ALTER COLUMN workspaces_sketch SET STORAGE EXTERNAL,
    ALTER COLUMN users_sketch SET STORAGE EXTERNAL;

-- Outlives collections: a replica whose commit brought no reply asks here whether it counted, and an old flush
-- that is sent again is refused.
CREATE TABLE boundary_usage_replicas (
    replica_id uuid        PRIMARY KEY,
    last_flush bigint      NOT NULL CHECK (last_flush > 0),
    flushed_at timestamptz NOT NULL
);

-- One row, written by whoever made the schema and never changed.
CREATE TABLE boundary_usage_deployment (
    only_row    boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    -- The first period starts here. In milliseconds, like every cutover: periods then join without a gap.
    created_at  timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    -- Without it, a list of ids cannot be tested against the sketches: keep it from whoever may read those.
    hashing_key bytea       NOT NULL CHECK (octet_length(hashing_key) = 16)
);
