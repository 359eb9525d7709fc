-- Acquires the lock that orders claims of deliveries, so that each claim sees the earlier ones. The transaction holds
-- the lock until its end.
--
-- A replica's lock can have the same key by chance. Flushes of that replica then wait for claims, which is harmless.
-- Fails with error 55P03 after the transaction's lock_timeout.
--
-- Parameters: none.
-- Returns one row without information.
SELECT pg_advisory_xact_lock(9, 0);
