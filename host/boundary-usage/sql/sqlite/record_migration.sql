-- Records a migration as applied. The execution time -1 means that it was not measured.
--
-- Parameters: ?1 version (integer), ?2 description (text), ?3 SHA-384 of the file (blob).
-- Returns nothing.
INSERT INTO boundary_usage_migrations (version, description, success, checksum, execution_time)
VALUES (?1, ?2, TRUE, ?3, -1);
