-- Sets what every transaction on the tables needs, besides its time limits. This script follows begin_collection.sql,
-- begin_flush.sql, begin_migration.sql or begin_read.sql.
--
-- The settings end with the transaction, because a pooler may run the next transaction in another session. The settings
-- here override all settings of the server, the database and the role that could change a result or make a commit less
-- durable.
--
-- Parameters: the psql variable "schema". The host replaces this variable with the quoted name of the schema of the
-- tables. Returns nothing that the host needs.
--
-- PostgreSQL searches the system catalog first, although the path does not name it. PostgreSQL would also search
-- temporary tables first, so the path names them last.
SET LOCAL search_path = :"schema", pg_temp;
-- A commit must survive a crash of the server.
SET LOCAL synchronous_commit = on;
-- Hosts that exchange bytes as text use these formats.
SET LOCAL bytea_output = hex;
SET LOCAL standard_conforming_strings = on;
-- PostgreSQL 17 added this limit, which is switched off here, because the other limits are enough.
SELECT set_config('transaction_timeout', '0', true)
WHERE current_setting('server_version_num')::integer >= 170000;
