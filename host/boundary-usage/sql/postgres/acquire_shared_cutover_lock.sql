-- Acquires the cutover lock in shared mode, for a flush. The transaction holds the lock until its end.
--
-- Fails with error 55P03 after the transaction's lock_timeout.
--
-- Parameters: none.
-- Returns one row without information.
SELECT pg_advisory_xact_lock_shared(9);
