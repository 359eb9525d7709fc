-- Begins the transaction that looks for the schema of the tables, with its time limits.
--
-- This transaction keeps the search path of the session, because that path determines the schema. Every other
-- transaction sets its own search path.
--
-- Parameters: none. The host sends all statements in one round trip.
-- Returns nothing.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '10s';
SET LOCAL idle_in_transaction_session_timeout = '15s';
