//! Integration tests of the product's rules, and their table of contents.
//!
//! Each test is named after the behaviour that it checks. A prefix such as `r5` or `d3` names a rule of
//! `docs/architecture.md`.

#![forbid(unsafe_code)]
// The lint would also apply to helper functions, and a panic is how a test fails.
#![allow(clippy::unwrap_used)]

// The component and the worker that runs it.

/// The cache of compiled components.
mod compile_cache;
/// Components that crash or exceed their authority.
mod containment;
/// The built component imports and exports exactly its world (R9).
mod contract;
/// Components with false updates, false results or open transactions (R5).
mod false_updates;
/// `track`, `flush` and shutdown (R1 to R4, R6, R7, R10, D2, D3, D5, D10).
mod tracker;
/// The end of a tracker: its last flush, and calls after its worker ended (D5).
mod worker;

// Checkpoints.

/// Crashes at any stage of a flush, and untrustworthy files (D3, D5).
mod checkpoint;
/// `serve`, killed with SIGKILL and started again.
mod killed;
/// State directories with foreign, unreadable or stale files (D3).
mod state_files;

// Databases.

/// Privileges of the PostgreSQL roles (R9).
mod authority;
/// Certificate files and messages of TLS errors.
mod certificates;
/// The command `check`.
mod check_command;
/// Flushes on both kinds of database (R4, R5, R8, D2, D3, D6).
mod database;
/// Database URLs of SQLite and PostgreSQL.
mod database_urls;
/// A standby of PostgreSQL, and the failover to it (D2, D3).
mod failover;
/// PostgreSQL settings that would change results or durability.
mod hostile_settings;
/// Log lines of failures that repeat.
mod log_lines;
/// Creation and migration of the schema.
mod migrations;
/// The command `monitor`.
mod monitor_command;
/// Outages of PostgreSQL (D2, D3, D6, D7).
mod outages_postgres;
/// Outages of SQLite files (D2, D3, D6).
mod outages_sqlite;
/// PostgreSQL behind PgBouncer, with fewer connections than replicas (D3).
mod poolers;
/// The kinds of PostgreSQL's errors: whether to try again, and whether a commit was applied (D3).
mod postgres_errors;
/// The prose: banned words, line lengths and sentence lengths.
mod prose;
/// Commands that only read, for users without write access.
mod reading_only;
/// SQLite files that are deleted or replaced while they are open.
mod replaced_files;
/// Logs, errors and debug output without passwords.
mod secrets;
/// TLS connections to PostgreSQL.
mod tls;
/// Data of earlier schemas.
mod upgrades;

// Collection and delivery.

/// Logs that clients dropped, from the audit socket to the payload.
mod client_drops;
/// Collections on both kinds of database (C1 to C3, D4, D7 to D9).
mod collection;
/// The command `deliver`, and signed deliveries.
mod deliver_command;
/// Delivery of summaries (D7).
mod delivery;
/// Attempts at a receiver that fails.
mod delivery_back_off;
/// Stored times in the future, after the clock was ahead.
mod future_times;
/// Days and reports (H1 to H3, H7, H8).
mod history;
/// The status of a large database, and the plans of its statements.
mod large_database;
/// The deletion of old periods, idle replicas and old days (H6, D3).
mod pruning;

// Proxies that embed the library.

/// The example proxy, with curl as its client.
mod forward_proxy;
/// The layer for services of the crate `tower`.
mod tower_layer;

// The command line.

/// A limit of the address space.
mod address_space;
/// Output, exit codes and errors of commands (R9, C1, C2, D7, D8).
mod cli;
/// The commands `collect` and `status` when something fails (D3).
mod collect_command;
/// Environment variables and durations.
mod environment;
/// The command `export`, as CSV and JSON.
mod export_command;
/// The command `export`, as Parquet.
mod export_parquet;
/// The layout: modules, file names and the table of rules.
mod layout;
/// Help, manual and shell completions.
mod manual;
/// Output that cannot be written.
mod output;
/// Support for tests that run the program. This module has no tests.
mod program;
/// The command `prune`, and the pruning of `serve`.
mod prune_command;
/// The command `replay` (D1).
mod replay;
/// The commands `report` and `init` (H2, H4, H5, H7).
mod report_command;
/// Untrusted text in output and logs.
mod untrusted_text;

// The command `serve`.

/// The audit socket and the bytes of a boundary client.
mod audit_socket;
/// Frames and socket files at a stop.
mod audit_stop;
/// Limits for descriptors, idle connections and repeated warnings.
mod client_limits;
/// Owners whose ids do not count.
mod ignored_owners;
/// Replicas in several processes (D4, D6, R8).
mod processes;
/// The reload of the configuration on SIGHUP, and the notifications of a supervisor.
mod reload;
/// Signals, sockets and intervals (R7, C3, D5, D10).
mod serve;
/// Signals that stop `serve`.
mod signals;
/// Sockets that a supervisor opens.
mod socket_activation;
/// Socket files that are removed or replaced while `serve` runs.
mod socket_files;
/// A start while PostgreSQL is down.
mod start_without_database;

// Monitoring.

/// The pages of the history in a real browser.
mod history_page;
/// Metrics, status and health over HTTP (D10).
mod http;
/// `Host` headers that HTTP accepts.
mod http_hosts;
/// Traces as an OpenTelemetry collector receives them.
#[cfg(feature = "opentelemetry")]
mod opentelemetry;
/// The status page in a real browser.
mod page;
/// Large numbers on the status page.
mod page_numbers;
/// The spans of flushes and collections (D10).
mod traces;

// The whole project.

/// The files in `deploy/`.
mod deploy;
/// Parsers with invalid input.
mod fuzzing;
/// The packages for users who build from them.
mod packages;
/// The scenarios of `tests/scenarios` on each database.
mod scenarios;
/// Random runs with faults in virtual time (R3 to R8, C1, D1 to D4).
mod simulation;
/// The style of the code, and a test for each rule.
mod tidy;
