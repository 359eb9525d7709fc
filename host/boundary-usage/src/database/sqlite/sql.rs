//! The statements for SQLite, which the hosts in other languages share. See `sql/sqlite/`.

macro_rules! statements {
    ($($name:ident = $file:literal),+ $(,)?) => {
        $(pub(super) const $name: &str = include_str!(concat!("../../../sql/sqlite/", $file));)+
    };
}

statements! {
    ACKNOWLEDGE_PERIOD = "acknowledge_period.sql",
    ADD_CLIENT_DROPS = "add_client_drops.sql",
    BEGIN_COLLECTION = "begin_collection.sql",
    BEGIN_FLUSH = "begin_flush.sql",
    BEGIN_MIGRATION = "begin_migration.sql",
    BEGIN_READ = "begin_read.sql",
    CLAIM_DELIVERY = "claim_delivery.sql",
    COUNT_PRUNABLE = "count_prunable.sql",
    CREATE_MIGRATIONS_TABLE = "create_migrations_table.sql",
    DELETE_CLIENT_DROPS = "delete_client_drops.sql",
    DELETE_DAYS = "delete_days.sql",
    DELETE_NEXT_ROW = "delete_next_row.sql",
    DELETE_PERIODS = "delete_periods.sql",
    DELETE_REPLICAS = "delete_replicas.sql",
    FIND_MIGRATIONS_TABLE = "find_migrations_table.sql",
    FIND_PERIOD = "find_period.sql",
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
    READ_HASHING_KEY = "read_hashing_key.sql",
    READ_LIVE_REPLICAS = "read_live_replicas.sql",
    READ_MIGRATIONS = "read_migrations.sql",
    READ_OPEN_PERIOD = "read_open_period.sql",
    READ_PERIODS = "read_periods.sql",
    READ_REPLICAS = "read_replicas.sql",
    READ_ROWS = "read_rows.sql",
    READ_USAGE = "read_usage.sql",
    RECORD_FAILED_DELIVERY = "record_failed_delivery.sql",
    RECORD_FLUSH = "record_flush.sql",
    RECORD_MIGRATION = "record_migration.sql",
    UPDATE_REQUESTS = "update_requests.sql",
    UPDATE_USAGE = "update_usage.sql",
    WRITE_BEFORE = "write_before.sql",
    WRITE_DAY = "write_day.sql",
}
