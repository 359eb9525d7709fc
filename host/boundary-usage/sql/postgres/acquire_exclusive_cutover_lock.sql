-- Acquires the cutover lock in exclusive mode, for a collection or a migration. The transaction holds the lock until
-- its end.
--
-- Fails with error 55P03 after the transaction's lock_timeout.
--
-- Parameters: none.
-- Returns one row without information.
SELECT pg_advisory_xact_lock(9);
