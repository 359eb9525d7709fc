-- The usage of the open period: one row for each replica that has flushed in it. A collection deletes all rows.
-- The columns up to updated_at are those of the reference, so its readers work here, too.
CREATE TABLE boundary_usage_stats (
    replica_id              uuid        PRIMARY KEY,
    unique_workspaces_count bigint      NOT NULL DEFAULT 0 CHECK (unique_workspaces_count >= 0),
    unique_users_count      bigint      NOT NULL DEFAULT 0 CHECK (unique_users_count >= 0),
    allowed_requests        bigint      NOT NULL DEFAULT 0 CHECK (allowed_requests >= 0),
    denied_requests         bigint      NOT NULL DEFAULT 0 CHECK (denied_requests >= 0),
    window_start            timestamptz NOT NULL DEFAULT now(),
    updated_at              timestamptz NOT NULL DEFAULT now(),
    -- Compact Theta sketches of the id hashes. Sketches can be merged; counts cannot.
    workspaces_sketch       bytea       NOT NULL,
    users_sketch            bytea       NOT NULL
);

-- Hashes do not compress, so PostgreSQL must not try at every flush.
ALTER TABLE boundary_usage_stats
    ALTER COLUMN workspaces_sketch SET STORAGE EXTERNAL,
    ALTER COLUMN users_sketch SET STORAGE EXTERNAL;

-- The last flush of every replica. The rows survive collections. After a commit without a reply, the flush number shows
-- whether it was applied. A flush that is not newer is refused.
CREATE TABLE boundary_usage_replicas (
    replica_id uuid        PRIMARY KEY,
    last_flush bigint      NOT NULL CHECK (last_flush > 0),
    flushed_at timestamptz NOT NULL
);

-- One row that never changes. The host that created the tables inserted it.
CREATE TABLE boundary_usage_deployment (
    only_row    boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    -- The start of the first period. It has whole milliseconds like every cutover, so no gap is between periods.
    created_at  timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    -- The key of the id hashes. With it, a reader of the sketches could test whether they contain a given id.
    hashing_key bytea       NOT NULL CHECK (octet_length(hashing_key) = 16)
);
