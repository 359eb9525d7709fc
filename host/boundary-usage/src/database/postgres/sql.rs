//! The statements for PostgreSQL, which the hosts in other languages share. See `sql/postgres/`.

use sqlx::AssertSqlSafe;

macro_rules! statements {
    ($($name:ident = $file:literal),+ $(,)?) => {
        $(pub(super) const $name: &str = include_str!(concat!("../../../sql/postgres/", $file));)+
    };
}

statements! {
    ACKNOWLEDGE_PERIOD = "acknowledge_period.sql",
    ACQUIRE_DELIVERY_LOCK = "acquire_delivery_lock.sql",
    ACQUIRE_EXCLUSIVE_CUTOVER_LOCK = "acquire_exclusive_cutover_lock.sql",
    ACQUIRE_REPLICA_LOCK = "acquire_replica_lock.sql",
    ACQUIRE_SHARED_CUTOVER_LOCK = "acquire_shared_cutover_lock.sql",
    ADD_CLIENT_DROPS = "add_client_drops.sql",
    BEGIN_COLLECTION = "begin_collection.sql",
    BEGIN_FLUSH = "begin_flush.sql",
    BEGIN_LOOKUP = "begin_lookup.sql",
    BEGIN_MIGRATION = "begin_migration.sql",
    BEGIN_READ = "begin_read.sql",
    CLAIM_DELIVERY = "claim_delivery.sql",
    COUNT_PRUNABLE = "count_prunable.sql",
    CREATE_MIGRATIONS_TABLE = "create_migrations_table.sql",
    DELETE_CLIENT_DROPS = "delete_client_drops.sql",
    DELETE_DAYS = "delete_days.sql",
    DELETE_PERIODS = "delete_periods.sql",
    DELETE_REPLICAS = "delete_replicas.sql",
    DELETE_ROWS = "delete_rows.sql",
    FIND_PERIOD = "find_period.sql",
    FIND_SCHEMA = "find_schema.sql",
    INSERT_HASHING_KEY = "insert_hashing_key.sql",
    INSERT_PERIOD = "insert_period.sql",
    INSERT_USAGE = "insert_usage.sql",
    READ_AGES = "read_ages.sql",
    READ_ALL_PERIODS = "read_all_periods.sql",
    READ_BACKOFF = "read_backoff.sql",
    READ_BEFORE = "read_before.sql",
    READ_COUNTS = "read_counts.sql",
    READ_DAY = "read_day.sql",
    READ_DAYS = "read_days.sql",
    READ_DELIVERY = "read_delivery.sql",
    READ_FINGERPRINT = "read_fingerprint.sql",
    READ_HASHING_KEY = "read_hashing_key.sql",
    READ_LIVE_REPLICAS = "read_live_replicas.sql",
    READ_MIGRATIONS = "read_migrations.sql",
    READ_OPEN_PERIOD = "read_open_period.sql",
    READ_PERIODS = "read_periods.sql",
    READ_REPLICAS = "read_replicas.sql",
    READ_ROWS = "read_rows.sql",
    READ_USAGE = "read_usage.sql",
    RECORD_FAILED_DELIVERY = "record_failed_delivery.sql",
    RECORD_MIGRATION = "record_migration.sql",
    SET_TRANSACTION = "set_transaction.sql",
    UPDATE_REQUESTS = "update_requests.sql",
    UPDATE_USAGE = "update_usage.sql",
    WRITE_BEFORE = "write_before.sql",
    WRITE_DAY = "write_day.sql",
}

/// Returns the statements that begin a transaction on the tables of a schema. `schema` is its quoted name.
pub(super) fn begin_on(schema: &str, begin: &str) -> AssertSqlSafe<String> {
    // The only inserted text is a quoted identifier.
    AssertSqlSafe(format!("{begin}{}", SET_TRANSACTION.replace(":\"schema\"", schema)))
}
