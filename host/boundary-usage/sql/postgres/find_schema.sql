-- Finds the schema that contains the tables, and the schema for new tables.
--
-- Parameters: none. Returns one row. on_path and elsewhere list the schemas that have the tables, on the search path
-- and outside it. first is the first schema of the search path that can hold tables, or null. is_chosen is true if the
-- role, the database or the connection sets the search path, which means that an operator chose it.
WITH found AS (
    SELECT n.nspname, n.nspname = ANY (current_schemas(false)) AS is_on_path
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relname = 'boundary_usage_migrations' AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
), path AS (
    SELECT nspname, place FROM unnest(current_schemas(false)) WITH ORDINALITY AS p (nspname, place)
    WHERE left(nspname::text, 3) <> 'pg_' AND nspname <> 'information_schema'
)
SELECT
    ARRAY(SELECT nspname::text FROM found WHERE is_on_path ORDER BY 1) AS on_path,
    ARRAY(SELECT nspname::text FROM found WHERE NOT is_on_path ORDER BY 1) AS elsewhere,
    (SELECT nspname::text FROM path ORDER BY place LIMIT 1) AS first,
    current_setting('search_path') AS search_path,
    (SELECT source NOT IN ('default', 'configuration file', 'command line', 'environment variable', 'global')
        FROM pg_catalog.pg_settings WHERE name = 'search_path') AS is_chosen;
