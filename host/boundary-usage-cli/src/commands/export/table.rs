//! The exported table: its columns, and the values of a row.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boundary_usage::{Day, PeriodStatus, Summary};
use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};

/// A table of days or of periods, with its columns.
pub(super) struct Table {
    /// The name of the list of rows in JSON.
    pub(super) name: &'static str,
    pub(super) columns: &'static [Column],
    pub(super) key_fingerprint: String,
}

/// A column.
#[derive(Clone, Copy)]
pub(super) struct Column {
    pub(super) name: &'static str,
    #[cfg_attr(not(feature = "parquet"), expect(dead_code, reason = "only Parquet has types"))]
    pub(super) kind: Kind,
}

/// The type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Count,
    Id,
    Flag,
    Date,
    Time,
    /// A time that can be absent.
    OptionalTime,
    Bytes,
}

/// A value. The variants correspond to the types of columns.
#[derive(Debug)]
pub(super) enum Value {
    Count(u64),
    Id(i64),
    Flag(bool),
    Date(NaiveDate),
    Time(DateTime<Utc>),
    Absent,
    Bytes(Vec<u8>),
}

/// The values of a row, in the order of the columns.
pub(super) type Row = Vec<Value>;

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind }
}

/// The columns of a day. The last two columns are the sketches.
const DAY: [Column; 9] = [
    column("day", Kind::Date),
    column("periods", Kind::Count),
    column("spans_midnight", Kind::Flag),
    column("allowed_requests", Kind::Count),
    column("denied_requests", Kind::Count),
    column("unique_workspaces", Kind::Count),
    column("unique_users", Kind::Count),
    column("workspaces_sketch", Kind::Bytes),
    column("users_sketch", Kind::Bytes),
];

const SKETCHES: usize = 2;

const PERIOD: [Column; 15] = [
    column("period_id", Kind::Id),
    column("period_start", Kind::Time),
    column("period_duration_ms", Kind::Count),
    column("unique_workspaces", Kind::Count),
    column("unique_users", Kind::Count),
    column("allowed_requests", Kind::Count),
    column("denied_requests", Kind::Count),
    column("replicas", Kind::Count),
    column("replica_workspaces_sum", Kind::Count),
    column("replica_users_sum", Kind::Count),
    column("stale_rows", Kind::Count),
    column("stale_allowed_requests", Kind::Count),
    column("stale_denied_requests", Kind::Count),
    column("client_dropped_logs", Kind::Count),
    column("delivered_at", Kind::OptionalTime),
];

impl Table {
    /// Returns the table of the days.
    pub(super) fn days(key_fingerprint: String, with_sketches: bool) -> Self {
        let columns = if with_sketches { &DAY } else { &DAY[..DAY.len() - SKETCHES] };
        Self { name: "days", columns, key_fingerprint }
    }

    /// Returns the table of the pruned days, which has the same columns.
    pub(super) fn pruned_days(key_fingerprint: String, with_sketches: bool) -> Self {
        Self { name: "pruned_days", ..Self::days(key_fingerprint, with_sketches) }
    }

    /// Returns the table of the closed periods.
    pub(super) fn periods(key_fingerprint: String) -> Self {
        Self { name: "periods", columns: &PERIOD, key_fingerprint }
    }

    /// Returns the row of a day.
    pub(super) fn day(&self, day: Day) -> Row {
        let mut row = vec![
            Value::Date(day.date),
            Value::Count(day.periods),
            Value::Flag(day.spans_midnight),
            Value::Count(day.allowed),
            Value::Count(day.denied),
            Value::Count(day.uniques.workspaces.count),
            Value::Count(day.uniques.users.count),
            Value::Bytes(day.uniques.workspaces.bytes),
            Value::Bytes(day.uniques.users.bytes),
        ];
        row.truncate(self.columns.len());
        row
    }

    /// Returns the row of a period.
    pub(super) fn period(&self, period: PeriodStatus) -> Row {
        let PeriodStatus { summary, delivered_at, .. } = period;
        let Summary { period_id, period_start, period_duration_ms, .. } = summary;
        let counts = [
            period_duration_ms,
            summary.unique_workspaces,
            summary.unique_users,
            summary.allowed_requests,
            summary.denied_requests,
            summary.replicas,
            summary.replica_workspaces_sum,
            summary.replica_users_sum,
            summary.stale_rows,
            summary.stale_allowed_requests,
            summary.stale_denied_requests,
            summary.client_dropped_logs,
        ];
        let mut row = vec![Value::Id(period_id), Value::Time(period_start)];
        row.extend(counts.map(Value::Count));
        row.push(delivered_at.map_or(Value::Absent, Value::Time));
        row
    }
}

impl Value {
    /// Returns the value as the text of a CSV cell or of a JSON string.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Count(count) => count.to_string(),
            Self::Id(id) => id.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Date(date) => date.to_string(),
            Self::Time(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            Self::Absent => String::new(),
            Self::Bytes(bytes) => STANDARD.encode(bytes),
        }
    }
}
