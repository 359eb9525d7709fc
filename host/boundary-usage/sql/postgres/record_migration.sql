-- Records a migration as applied. The execution time -1 means that it was not measured.
--
-- Parameters: $1 version (bigint), $2 description (text), $3 SHA-384 of the file (bytea).
-- Returns nothing.
INSERT INTO boundary_usage_migrations (version, description, success, checksum, execution_time)
VALUES ($1::bigint, $2::text, TRUE, $3::bytea, -1);
