-- Creates the roles with the least authority (R9).
--
-- This file is not a migration, because roles belong to the whole server, and the owner of a database may not create
-- them. Run this script once after the first connection has created the tables, as a superuser, or as a role that owns
-- the tables and has CREATEROLE. Running the script again changes nothing.
--
--     psql --single-transaction --file roles.sql DATABASE
--     CREATE ROLE proxy LOGIN PASSWORD '...' IN ROLE boundary_usage_replica;
--
-- The role boundary_usage_replica is for proxies. This role can flush, but neither collect nor read closed periods. The
-- role boundary_usage_collector is for telemetry. This role can collect, read the status, report, deliver and
-- acknowledge, but neither add usage nor read the key of the id hashes. It can delete idle replicas, but no period and
-- no day. The role boundary_usage_pruner can delete old periods and days, too. No role may create, alter or drop
-- anything. Up to PostgreSQL 14 every role may create tables in the schema public. On such a database this script
-- fails, and the error names the right to revoke.

DO $$
DECLARE
    role_name text;
    -- The schema of the tables can be any schema on the search path.
    tables_in text := (
        SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid = 'boundary_usage_stats'::regclass
    );
BEGIN
    FOREACH role_name IN ARRAY ARRAY['boundary_usage_replica', 'boundary_usage_collector', 'boundary_usage_pruner'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        EXCEPTION
            -- The role exists already. If two runs of this script create the role simultaneously, one run gets the
            -- second error.
            WHEN duplicate_object OR unique_violation THEN NULL;
        END;
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', tables_in, role_name);
        IF has_schema_privilege(role_name, tables_in, 'CREATE') THEN
            RAISE EXCEPTION 'the role % may create tables in the schema %', role_name, tables_in
                USING HINT = format('Run REVOKE CREATE ON SCHEMA %I FROM PUBLIC, %I; then run this script again.',
                    tables_in, role_name);
        END IF;
    END LOOP;
END
$$;

-- Revokes all rights first, so the grants below are complete.
REVOKE ALL ON boundary_usage_migrations, boundary_usage_deployment, boundary_usage_stats, boundary_usage_replicas,
    boundary_usage_periods, boundary_usage_deliveries, boundary_usage_days, boundary_usage_before,
    boundary_usage_client_drops
    FROM boundary_usage_replica, boundary_usage_collector, boundary_usage_pruner;

-- Every connection checks the version of the tables.
GRANT SELECT ON boundary_usage_migrations
    TO boundary_usage_replica, boundary_usage_collector, boundary_usage_pruner;

-- A replica needs these rights for a flush. A replica cannot collect, because it has no right to delete rows. A replica
-- cannot change the id of a row or the start of the row's window.
GRANT SELECT (hashing_key) ON boundary_usage_deployment TO boundary_usage_replica;
GRANT SELECT, INSERT ON boundary_usage_stats, boundary_usage_replicas TO boundary_usage_replica;
GRANT UPDATE (
    unique_workspaces_count, unique_users_count, allowed_requests, denied_requests, updated_at, workspaces_sketch,
    users_sketch
) ON boundary_usage_stats TO boundary_usage_replica;
GRANT UPDATE (last_flush, flushed_at) ON boundary_usage_replicas TO boundary_usage_replica;

-- A replica records the logs that its clients dropped.
GRANT SELECT, INSERT, UPDATE (dropped_logs) ON boundary_usage_client_drops TO boundary_usage_replica;

-- A collector needs these rights for a collection, the status and an acknowledgement. A collector cannot change or
-- delete a summary.
GRANT SELECT (created_at, key_fingerprint) ON boundary_usage_deployment TO boundary_usage_collector;
GRANT SELECT, DELETE ON boundary_usage_stats TO boundary_usage_collector;
GRANT SELECT, DELETE ON boundary_usage_replicas TO boundary_usage_collector;
GRANT SELECT, DELETE ON boundary_usage_client_drops TO boundary_usage_collector;
GRANT SELECT, INSERT ON boundary_usage_periods TO boundary_usage_collector;
GRANT UPDATE (delivered_at) ON boundary_usage_periods TO boundary_usage_collector;

-- A collection adds its period to a day, and a report reads all days. A collector cannot delete a day.
GRANT SELECT, INSERT ON boundary_usage_days TO boundary_usage_collector;
GRANT SELECT ON boundary_usage_before TO boundary_usage_collector;
GRANT UPDATE (
    periods, spans_midnight, allowed_requests, denied_requests, unique_workspaces, unique_users, workspaces_sketch,
    users_sketch
) ON boundary_usage_days TO boundary_usage_collector;

-- A collector needs these rights for a delivery. A collector cannot change the idempotency key, by which a receiver
-- detects a repeated delivery.
GRANT SELECT, INSERT ON boundary_usage_deliveries TO boundary_usage_collector;
GRANT UPDATE (attempts, attempted_at, lease, next_attempt_at, last_error)
    ON boundary_usage_deliveries TO boundary_usage_collector;

-- A pruner needs these rights to delete old periods, idle replicas and old days. PostgreSQL deletes the deliveries of a
-- period itself. A pruner can neither read a sketch of the open period nor change a period.
GRANT SELECT (created_at) ON boundary_usage_deployment TO boundary_usage_pruner;
GRANT SELECT (replica_id) ON boundary_usage_stats TO boundary_usage_pruner;
GRANT SELECT, DELETE ON boundary_usage_replicas, boundary_usage_periods, boundary_usage_days TO boundary_usage_pruner;
GRANT SELECT, INSERT ON boundary_usage_before TO boundary_usage_pruner;
GRANT UPDATE (
    day, periods, allowed_requests, denied_requests, unique_workspaces, unique_users, workspaces_sketch, users_sketch
) ON boundary_usage_before TO boundary_usage_pruner;
