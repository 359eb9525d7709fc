//! Conversions between rows and records, for both kinds of database.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, SecondsFormat, TimeDelta, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::delivery::Destination;
use super::migration::AppliedMigration;
use super::{
    Ages, DatabaseStatus, KeyFingerprint, LiveReplicas, Number, PeriodStatus, Pruned, ReplicaStatus, RowStatus,
    StatusScope,
};
use crate::error::Error;
use crate::records::{Day, DeletedRow, OpenPeriod, Sketch, StoredUsage, Uniques, UniquesUpdate, Update};
use crate::summary::{Summary, SummaryBuilder};

pub(super) type Decoded<T> = Result<T, sqlx::Error>;

/// A row whose cells are read by column name. The databases have different types for ids and times.
pub(super) trait Cells {
    fn integer(&self, column: &'static str) -> Decoded<Option<i64>>;
    fn bytes(&self, column: &'static str) -> Decoded<Option<Vec<u8>>>;
    fn time(&self, column: &'static str) -> Decoded<Option<DateTime<Utc>>>;
    fn text(&self, column: &'static str) -> Decoded<Option<String>>;
    fn id(&self, column: &'static str) -> Decoded<Uuid>;
    fn date(&self, column: &'static str) -> Decoded<NaiveDate>;
    fn flag(&self, column: &'static str) -> Decoded<bool>;

    fn replica(&self) -> Decoded<Uuid> {
        self.id("replica_id")
    }

    /// Reads a count, which must not be negative.
    fn count(&self, column: &'static str) -> Decoded<u64> {
        let count = self.integer(column)?.ok_or_else(|| missing(column))?;
        u64::try_from(count).map_err(|error| sqlx::Error::ColumnDecode { index: column.into(), source: error.into() })
    }

    fn timestamp(&self, column: &'static str) -> Decoded<DateTime<Utc>> {
        self.time(column)?.ok_or_else(|| missing(column))
    }
}

pub(super) fn missing(column: &'static str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.into(), source: "it is null".into() }
}

macro_rules! cells {
    ($row:ty, $id:ty) => {
        impl Cells for $row {
            fn integer(&self, column: &'static str) -> Decoded<Option<i64>> {
                self.try_get(column)
            }
            fn bytes(&self, column: &'static str) -> Decoded<Option<Vec<u8>>> {
                self.try_get(column)
            }
            fn time(&self, column: &'static str) -> Decoded<Option<DateTime<Utc>>> {
                self.try_get(column)
            }
            fn text(&self, column: &'static str) -> Decoded<Option<String>> {
                self.try_get(column)
            }
            fn date(&self, column: &'static str) -> Decoded<NaiveDate> {
                self.try_get(column)
            }
            fn flag(&self, column: &'static str) -> Decoded<bool> {
                self.try_get(column)
            }
            fn id(&self, column: &'static str) -> Decoded<Uuid> {
                self.try_get::<$id, _>(column).map(Into::into)
            }
        }
    };
}

cells!(PgRow, Uuid);
cells!(SqliteRow, uuid::fmt::Hyphenated);

/// Reads the result of `read_usage.sql`.
pub(super) fn stored(row: &impl Cells) -> Decoded<StoredUsage> {
    let uniques = match row.integer("unique_workspaces_count")? {
        Some(_) => Some(uniques(row)?),
        None => None,
    };
    let last_flush = row.integer("last_flush")?.map_or(Ok(0), |_| row.count("last_flush"))?;
    Ok(StoredUsage { last_flush, uniques })
}

/// Reads a deleted row.
pub(super) fn deleted(row: &impl Cells) -> Decoded<DeletedRow> {
    Ok(DeletedRow {
        replica: row.replica()?,
        uniques: uniques(row)?,
        allowed: row.count("allowed_requests")?,
        denied: row.count("denied_requests")?,
        updated_at: row.timestamp("updated_at")?,
    })
}

fn uniques(row: &impl Cells) -> Decoded<Uniques> {
    unique_sets(row, "unique_workspaces_count", "unique_users_count")
}

fn unique_sets(row: &impl Cells, workspaces: &'static str, users: &'static str) -> Decoded<Uniques> {
    let set = |count, sketch| {
        let bytes = row.bytes(sketch)?.ok_or_else(|| missing(sketch))?;
        Ok::<_, sqlx::Error>(Sketch { count: row.count(count)?, bytes })
    };
    Ok(Uniques { workspaces: set(workspaces, "workspaces_sketch")?, users: set(users, "users_sketch")? })
}

/// Reads the result of `read_open_period.sql`.
pub(super) fn open_period(row: &impl Cells) -> Decoded<OpenPeriod> {
    let (start, now) = (row.timestamp("period_start")?, row.timestamp("now")?);
    Ok(OpenPeriod { start, now, has_usage: row.flag("has_usage")? })
}

/// Reads a day of the history.
pub(super) fn day(row: &impl Cells) -> Decoded<Day> {
    Ok(Day {
        date: row.date("day")?,
        periods: row.count("periods")?,
        spans_midnight: row.flag("spans_midnight")?,
        allowed: row.count("allowed_requests")?,
        denied: row.count("denied_requests")?,
        uniques: unique_sets(row, "unique_workspaces", "unique_users")?,
    })
}

/// Returns the numbers of a day, in the order of $4 to $7 of `write_day.sql`.
pub(super) fn day_numbers(day: &Day) -> [i64; 4] {
    [day.allowed, day.denied, day.uniques.workspaces.count, day.uniques.users.count].map(bigint)
}

/// The result of `read_counts.sql`.
pub(super) struct Counts {
    rows: u64,
    allowed_requests: u64,
    denied_requests: u64,
    replica_workspaces_sum: u64,
    replica_users_sum: u64,
    client_dropped_logs: u64,
    replicas: u64,
    periods: u64,
    undelivered: u64,
}

/// Reads the result of `read_counts.sql`.
pub(super) fn counts(row: &impl Cells) -> Decoded<Counts> {
    Ok(Counts {
        rows: row.count("rows")?,
        allowed_requests: row.count("allowed_requests")?,
        denied_requests: row.count("denied_requests")?,
        replica_workspaces_sum: row.count("replica_workspaces_sum")?,
        replica_users_sum: row.count("replica_users_sum")?,
        client_dropped_logs: row.count("client_dropped_logs")?,
        replicas: row.count("replicas")?,
        periods: row.count("periods")?,
        undelivered: row.count("undelivered")?,
    })
}

/// The listed rows of the open period.
///
/// The rows are summed one by one, because all their sketches together can be large.
pub(super) struct OpenRows {
    scope: StatusScope,
    period_start: DateTime<Utc>,
    so_far: SummaryBuilder,
    damaged: Vec<String>,
}

impl OpenRows {
    pub(super) fn new(scope: StatusScope, open: OpenPeriod) -> Self {
        Self { scope, period_start: open.start, so_far: SummaryBuilder::new(open, None), damaged: Vec::new() }
    }

    pub(super) fn add(&mut self, row: &impl Cells) -> Decoded<RowStatus> {
        if let Err(error) = self.so_far.add(&deleted(row)?) {
            self.damaged.push(error.to_string());
        }
        row_status(row)
    }

    /// Combines these rows and the results of the other statements into the status.
    pub(super) fn status(
        self,
        counts: &Counts,
        mut rows: Vec<RowStatus>,
        replicas: Vec<ReplicaStatus>,
        periods: Vec<PeriodStatus>,
        key_fingerprint: Option<KeyFingerprint>,
    ) -> DatabaseStatus {
        let Self { scope, period_start, so_far, damaged } = self;
        rows.sort_by_key(|row| std::cmp::Reverse((row.updated_at, row.replica)));
        let mut so_far = Summary { client_dropped_logs: counts.client_dropped_logs, ..so_far.finish().summary };
        let more_rows = Number { count: counts.rows, at_least: false }.without(rows.len());
        if more_rows.count > 0 {
            so_far = Summary {
                allowed_requests: counts.allowed_requests,
                denied_requests: counts.denied_requests,
                replicas: counts.rows,
                replica_workspaces_sum: counts.replica_workspaces_sum,
                replica_users_sum: counts.replica_users_sum,
                ..so_far
            };
        }
        let counted = |count| Number::counted(count, scope.count());
        DatabaseStatus {
            period_start,
            so_far,
            damaged,
            key_fingerprint,
            more_rows,
            rows,
            more_replicas: counted(counts.replicas).without(replicas.len()),
            replicas,
            more_periods: counted(counts.periods).without(periods.len()),
            periods,
            undelivered: counted(counts.undelivered),
        }
    }
}

/// Reads the result of `count_prunable.sql`.
pub(super) fn prunable(row: &impl Cells) -> Decoded<Pruned> {
    Ok(Pruned {
        periods: row.count("periods")?,
        undelivered_kept: row.count("undelivered_kept")?,
        replicas: row.count("replicas")?,
        days: row.count("days")?,
    })
}

fn row_status(row: &impl Cells) -> Decoded<RowStatus> {
    Ok(RowStatus {
        replica: row.replica()?,
        unique_workspaces: row.count("unique_workspaces_count")?,
        unique_users: row.count("unique_users_count")?,
        allowed_requests: row.count("allowed_requests")?,
        denied_requests: row.count("denied_requests")?,
        window_start: row.timestamp("window_start")?,
        updated_at: row.timestamp("updated_at")?,
    })
}

pub(super) fn replica_status(row: &impl Cells) -> Decoded<ReplicaStatus> {
    Ok(ReplicaStatus {
        replica: row.replica()?,
        last_flush: row.count("last_flush")?,
        flushed_at: row.timestamp("flushed_at")?,
    })
}

/// Converts a count to the databases' integer type. It saturates.
pub(super) fn bigint(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Formats a time as SQLite stores it.
pub(super) fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Reads the result of `read_backoff.sql`.
pub(super) fn destination(row: &impl Cells) -> Decoded<Destination> {
    let wait =
        |column| Ok::<_, sqlx::Error>(row.integer(column)?.map(|ms| Duration::from_millis(ms.try_into().unwrap_or(0))));
    Ok(Destination {
        failures: row.count("failures")?,
        first_due: wait("first_due_ms")?,
        last_due: wait("last_due_ms")?,
    })
}

/// Reads the result of `read_live_replicas.sql`.
pub(super) fn live_replicas(row: &impl Cells) -> Decoded<LiveReplicas> {
    let longest_silent = match row.integer("age_ms")? {
        Some(age) => Some((row.replica()?, TimeDelta::milliseconds(age))),
        None => None,
    };
    Ok(LiveReplicas { count: row.count("live")?, longest_silent })
}

/// Reads the result of `read_ages.sql`.
pub(super) fn ages(row: &impl Cells) -> Decoded<Ages> {
    let age = |column| Ok::<_, sqlx::Error>(row.integer(column)?.and_then(TimeDelta::try_milliseconds));
    let open_period = age("open_period_ms")?.ok_or_else(|| missing("open_period_ms"))?;
    Ok(Ages { open_period, oldest_undelivered: age("oldest_undelivered_ms")? })
}

/// Reads the hashing key.
pub(super) fn key(row: &impl Cells) -> Decoded<Vec<u8>> {
    row.bytes("hashing_key")?.ok_or_else(|| missing("hashing_key"))
}

/// Reads the fingerprint of the hashing key.
pub(super) fn fingerprint(row: &PgRow) -> Decoded<KeyFingerprint> {
    row.text("key_fingerprint")?.map(KeyFingerprint::computed).ok_or_else(|| missing("key_fingerprint"))
}

/// Returns the flush number and the request counts of an update, in the order of the statements' parameters.
pub(super) fn update_numbers(update: &Update) -> [i64; 3] {
    [update.flush, update.allowed, update.denied].map(bigint)
}

/// Returns the sketches that an update writes.
pub(super) fn sketches(update: &Update) -> Option<&Uniques> {
    match &update.uniques {
        UniquesUpdate::Delta(uniques) | UniquesUpdate::Cumulative(uniques) => Some(uniques),
        UniquesUpdate::Unchanged => None,
    }
}

/// Reads an applied migration.
pub(super) fn applied_migration(row: &impl Cells) -> Decoded<AppliedMigration> {
    let version = row.integer("version")?.ok_or_else(|| missing("version"))?;
    let checksum = row.bytes("checksum")?.ok_or_else(|| missing("checksum"))?;
    Ok(AppliedMigration { version, checksum })
}

/// Returns the error of a flush that is not newer than the replica's last one, or whose row has changed.
pub(super) fn old_flush(replica: Uuid, flush: u64) -> Error {
    let what = format!("flush {flush} of replica {replica}, or a later one, was already written");
    let hint = "make sure that no second process runs under this id, and that no old checkpoint was restored";
    Error::Conflict { message: format!("{what}; {hint}") }
}

/// Returns the error of an acknowledgement for a period that does not exist.
pub(super) fn no_such_period(period: i64) -> Error {
    Error::Refused { message: format!("there is no closed period {period}; see the status for the closed periods") }
}
