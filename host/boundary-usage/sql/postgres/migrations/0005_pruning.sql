-- The merged set of all pruned days. With it, an id of a pruned day never counts as new again. At most one row.
CREATE TABLE boundary_usage_before (
    only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- The last pruned day.
    day               date    NOT NULL,
    periods           bigint  NOT NULL CHECK (periods > 0),
    allowed_requests  bigint  NOT NULL CHECK (allowed_requests >= 0),
    denied_requests   bigint  NOT NULL CHECK (denied_requests >= 0),
    unique_workspaces bigint  NOT NULL CHECK (unique_workspaces >= 0),
    unique_users      bigint  NOT NULL CHECK (unique_users >= 0),
    -- Compact Theta sketches of the id hashes.
    workspaces_sketch bytea   NOT NULL,
    users_sketch      bytea   NOT NULL
);

-- Hashes do not compress.
ALTER TABLE boundary_usage_before
    ALTER COLUMN workspaces_sketch SET STORAGE EXTERNAL,
    ALTER COLUMN users_sketch SET STORAGE EXTERNAL;

-- The status reads the replicas that flushed last, and pruning deletes those that flushed first.
CREATE INDEX boundary_usage_replicas_flushed ON boundary_usage_replicas (flushed_at, replica_id);

-- A claim of a delivery reads the time of the last successful one.
CREATE INDEX boundary_usage_periods_delivered ON boundary_usage_periods (delivered_at);

-- The logs that clients of a replica reported as dropped in the open period. A collection deletes all rows and stores
-- their sum in its period.
CREATE TABLE boundary_usage_client_drops (
    replica_id   uuid   PRIMARY KEY,
    dropped_logs bigint NOT NULL CHECK (dropped_logs >= 0)
);

ALTER TABLE boundary_usage_periods ADD COLUMN client_dropped_logs bigint NOT NULL DEFAULT 0;
