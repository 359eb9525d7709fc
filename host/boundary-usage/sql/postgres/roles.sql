-- Roles with the least authority (R9). Not a migration: roles belong to the whole server, and to make them takes more
-- than the owner of a database may have. Run it once, as a superuser or a role with CREATEROLE that owns the tables,
-- after a first connection has made them; running it again changes nothing.
--
--     psql --single-transaction --file roles.sql DATABASE
--     CREATE ROLE proxy LOGIN PASSWORD '...' IN ROLE boundary_usage_replica;
--
-- boundary_usage_replica:   a proxy. Flushes; can neither collect nor see closed periods.
-- boundary_usage_collector: telemetry. Collects, reads the status, delivers, acknowledges; can neither add usage nor read the
--                           key under which ids are hashed.
-- Neither may create, alter or drop anything. Up to PostgreSQL 14 every role may create tables in the schema public;
-- this script then fails, and says which right to take away.

DO $$
DECLARE
    role_name text;
    -- The schema of the tables, which need not be the first one on the search path.
    tables_in text := (
        SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid = 'boundary_usage_stats'::regclass
    );
BEGIN
    FOREACH role_name IN ARRAY ARRAY['boundary_usage_replica', 'boundary_usage_collector'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        EXCEPTION
            -- It exists; the second is what a concurrent run of this script meets.
            WHEN duplicate_object OR unique_violation THEN NULL;
        END;
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', tables_in, role_name);
        IF has_schema_privilege(role_name, tables_in, 'CREATE') THEN
            RAISE EXCEPTION 'the role % may create tables in the schema %', role_name, tables_in
                USING HINT = format('Run REVOKE CREATE ON SCHEMA %I FROM PUBLIC, %I; then run this script again.', tables_in, role_name);
        END IF;
    END LOOP;
END
$$;

-- Start from nothing, so that this file says all that the roles may do.
REVOKE ALL ON boundary_usage_migrations, boundary_usage_deployment, boundary_usage_stats, boundary_usage_replicas,
    boundary_usage_periods, boundary_usage_deliveries FROM boundary_usage_replica, boundary_usage_collector;

-- To see on connecting that the schema is up to date.
GRANT SELECT ON boundary_usage_migrations TO boundary_usage_replica, boundary_usage_collector;

-- A flush. No DELETE, so no collection; the columns that name a row or open its window are written once, with it.
GRANT SELECT (hashing_key) ON boundary_usage_deployment TO boundary_usage_replica;
GRANT SELECT, INSERT ON boundary_usage_stats, boundary_usage_replicas TO boundary_usage_replica;
GRANT UPDATE (
    unique_workspaces_count, unique_users_count, allowed_requests, denied_requests, updated_at, workspaces_sketch,
    users_sketch
) ON boundary_usage_stats TO boundary_usage_replica;
GRANT UPDATE (last_flush, flushed_at) ON boundary_usage_replicas TO boundary_usage_replica;

-- A collection, the status, an acknowledgement. A summary, once written, cannot be changed or deleted.
GRANT SELECT (created_at) ON boundary_usage_deployment TO boundary_usage_collector;
GRANT SELECT, DELETE ON boundary_usage_stats TO boundary_usage_collector;
GRANT SELECT ON boundary_usage_replicas TO boundary_usage_collector;
GRANT SELECT, INSERT ON boundary_usage_periods TO boundary_usage_collector;
GRANT UPDATE (delivered_at) ON boundary_usage_periods TO boundary_usage_collector;

-- A delivery: who is at it, and what came of it. The key that tells the receiver of a repetition never changes.
GRANT SELECT, INSERT ON boundary_usage_deliveries TO boundary_usage_collector;
GRANT UPDATE (attempts, attempted_at, lease, next_attempt_at, last_error)
    ON boundary_usage_deliveries TO boundary_usage_collector;
