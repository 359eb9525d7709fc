-- Sets what every transaction on the tables needs, besides its time limits. It follows begin_collection.sql,
-- begin_flush.sql, begin_migration.sql or begin_read.sql.
--
-- The settings end with the transaction, so a pooler may lend another session to the next one. They also override
-- every setting of the server, the database and the role that could change a result or a promise.
--
-- Parameters: the psql variable "schema". The host replaces it with the quoted name of the schema of the tables.
-- Returns nothing that the host needs.
--
-- The catalog comes first on the search path implicitly. Temporary tables would too, so they are named last.
SET LOCAL search_path = :"schema", pg_temp;
-- A commit must survive a crash of the server.
SET LOCAL synchronous_commit = on;
-- Hosts that exchange bytes as text use these formats.
SET LOCAL bytea_output = hex;
SET LOCAL standard_conforming_strings = on;
-- PostgreSQL 17 added this limit. The limits above are enough.
SELECT set_config('transaction_timeout', '0', true)
WHERE current_setting('server_version_num')::integer >= 170000;
