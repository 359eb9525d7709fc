//! How a flush is written.
//!
//! Each statement writes the row, and records the flush if that has changed one. So a flush that is not newer than the last one,
//! or finds a row where there should be none, or none where there should be one, writes nothing and answers no row.

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres};
use uuid::Uuid;

use crate::database::{UniquesUpdate, Update, rows};

macro_rules! write_statement {
    ($($stats:literal),+) => {
        concat!(
            "WITH written AS (",
            $($stats,)+
            "
                RETURNING s.replica_id
            )
            INSERT INTO boundary_usage_replicas (replica_id, last_flush, flushed_at)
            SELECT replica_id, $2, statement_timestamp() FROM written
            ON CONFLICT (replica_id) DO UPDATE SET last_flush = excluded.last_flush, flushed_at = excluded.flushed_at
            RETURNING replica_id"
        )
    };
}

const INSERT: &str = write_statement!(
    "
                INSERT INTO boundary_usage_stats AS s (
                    replica_id, allowed_requests, denied_requests, unique_workspaces_count, unique_users_count,
                    workspaces_sketch, users_sketch, window_start, updated_at
                )
                SELECT $1, $3, $4, $5, $6, $7, $8, statement_timestamp(), statement_timestamp()
                WHERE NOT EXISTS (SELECT FROM boundary_usage_replicas WHERE replica_id = $1 AND last_flush >= $2)
                ON CONFLICT (replica_id) DO NOTHING"
);

macro_rules! update_statement {
    ($sets:literal) => {
        write_statement!(
            "
                UPDATE boundary_usage_stats AS s SET
                    allowed_requests = s.allowed_requests + least($3, 9223372036854775807 - s.allowed_requests),
                    denied_requests = s.denied_requests + least($4, 9223372036854775807 - s.denied_requests),",
            $sets,
            "
                    updated_at = statement_timestamp()
                FROM boundary_usage_replicas AS r
                WHERE s.replica_id = $1 AND r.replica_id = $1 AND r.last_flush < $2"
        )
    };
}

const UPDATE: &str = update_statement!(
    "
                    unique_workspaces_count = $5,
                    unique_users_count = $6,
                    workspaces_sketch = $7,
                    users_sketch = $8,"
);

const UPDATE_REQUESTS: &str = update_statement!("");

/// The statement that writes an update.
pub(super) fn statement(replica: Uuid, update: &Update) -> Query<'_, Postgres, PgArguments> {
    let sql = match update.uniques {
        UniquesUpdate::Delta(_) => INSERT,
        UniquesUpdate::Cumulative(_) => UPDATE,
        UniquesUpdate::Unchanged => UPDATE_REQUESTS,
    };
    rows::bind_update(sqlx::query(sql).bind(replica), update)
}

/// Prepares what [`requests_and_commit`] executes, for as long as the connection lasts.
pub(super) fn prepare() -> String {
    format!("PREPARE boundary_usage_write_requests (uuid, bigint, bigint, bigint) AS {UPDATE_REQUESTS}")
}

/// Adds the request counts of an update that leaves the unique sets unchanged, and commits. Only the last statement is a
/// commit: after one that fails, the server carries out nothing more of what came with it.
pub(super) fn requests_and_commit(replica: Uuid, update: &Update) -> AssertSqlSafe<String> {
    let [flush, allowed, denied] = [update.flush, update.allowed, update.denied].map(rows::bigint);
    // What varies is a UUID and numbers, written by us.
    AssertSqlSafe(format!("EXECUTE boundary_usage_write_requests ('{replica}', {flush}, {allowed}, {denied}); COMMIT"))
}
