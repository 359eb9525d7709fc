-- Acquires the lock of a replica. The transaction holds the lock until its end.
--
-- The lock's second key is the exclusive or of the four 32-bit words of the replica id. Two replicas may share a key by
-- chance. Flushes of these replicas then wait for each other, which is harmless. Fails with error 55P03 after the
-- transaction's lock_timeout.
--
-- Parameters: $1 replica id (uuid).
-- Returns one row without information.
SELECT pg_advisory_xact_lock(9,
    ('x' || substr(digits, 1, 8))::bit(32)::integer # ('x' || substr(digits, 9, 8))::bit(32)::integer
    # ('x' || substr(digits, 17, 8))::bit(32)::integer # ('x' || substr(digits, 25, 8))::bit(32)::integer)
FROM (SELECT replace($1::uuid::text, '-', '') AS digits) AS replica;
