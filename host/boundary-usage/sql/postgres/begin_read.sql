-- Begins a transaction that reads one state of the database, with its time limits.
--
-- set_transaction.sql must follow in the same round trip.
--
-- Parameters: none.
-- Returns nothing.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '30s';
SET LOCAL idle_in_transaction_session_timeout = '15s';
