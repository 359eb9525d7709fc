//! The rules that the tracker keeps, each as a test named after what it promises.

#![forbid(unsafe_code)]
// All of this is tests, also the functions that are not test functions themselves.
#![allow(clippy::unwrap_used)]

/// What a crash of the host leaves, and how the next start goes on from it: D3.
mod checkpoint;
/// Compiled components, kept between processes.
mod compile_cache;
/// A component that breaks or reaches for more than it may.
mod containment;
/// What the component asks for and offers, and what a wrong one is told: R9.
mod contract;
/// Flushes on both kinds of database: R4, R5, R8, D3, D6.
mod database;
/// A component whose updates or results are false, or that leaves a transaction open.
mod false_updates;
/// The program itself, killed and started again.
mod killed;
/// The files of the state directory: of other databases, unreadable, stale after a failover.
mod state_files;
/// What `track` and `flush` promise while they run beside each other: R1 to R4, R10, D2, D3, D5.
mod tracker;
/// The end of a tracker: how long it tries to flush, and what its callers get when its thread is gone.
mod worker;

/// Collections on both kinds of database: C1, C2, C3, D4, D7, D8, D9.
mod collection;

/// What the roles in PostgreSQL may and may not do: R9.
mod authority;

/// Making the schema, and refusing one that is not ours to change.
mod migrations;

/// TLS to PostgreSQL: who is trusted, and who is not.
mod tls;

/// Delivery of summaries, to a receiver that does what it likes: D7.
mod delivery;

/// How often a receiver that fails is tried, by one replica and by several.
mod delivery_back_off;

/// StoredUsage times that a clock which was ahead has left in the future.
mod future_times;

/// Certificates: files that are missing or hold none, and TLS errors in words.
mod certificates;

/// The layer for proxies that are made of tower's services.
mod tower_layer;

/// The example proxy, with curl.
mod forward_proxy;

/// What is never shown, whatever goes wrong.
mod secrets;

/// Input that nobody wrote on purpose.
mod fuzzing;

/// The scenarios as text, through everything, on each database.
mod scenarios;

/// PostgreSQL killed, restarted, cut off, full, busy: D2, D3, R6, R7.
mod outages_postgres;
/// A SQLite file that is locked, damaged or read-only, a full disk, a process that is killed: D2, D3.
mod outages_sqlite;

/// How the tests run the program: no tests.
mod program;

/// A SQLite file that is deleted or replaced while it is open.
mod replaced_files;

/// PostgreSQL with settings that break what depends on them.
mod hostile_settings;

/// Database URLs as users write them.
mod database_urls;

/// Commands that only read, as a user who may only read.
mod reading_only;

/// The command line as a user runs it: answers, exit codes, secrets.
mod cli;

/// The program under a limit of its address space.
mod address_space;

/// `replay`: D1 from end to end, bad lines.
mod replay;

/// `collect` and `status`: databases that do not exist, output that cannot be written, commits without a reply.
mod collect_command;

/// Help, manual and completions, in the programs that show them.
mod manual;

/// Untrusted text on its way to a terminal.
mod untrusted_text;

/// `serve`: signals, sockets, intervals: R7, C3, D5, D10.
mod serve;

/// Signals that stop `serve`, while it serves and while it starts.
mod signals;

/// `serve` before its first connection to the database.
mod start_without_database;

/// Owners whose ids do not count.
mod ignored_owners;

/// Output that cannot be written.
mod output;

/// Environment variables and durations.
mod environment;

/// What `serve` answers over HTTP.
mod http;

/// Which `Host` headers HTTP accepts.
mod http_hosts;

/// The page, in a real browser.
mod page;

/// Great numbers on the page, also on a small phone.
mod page_numbers;

/// The spans of flushes and collections.
mod traces;

/// The same, as a collector of OpenTelemetry gets them.
#[cfg(feature = "opentelemetry")]
mod opentelemetry;

/// What is in `deploy/`, read by the tools that it is for.
mod deploy;

/// The audit socket, with a boundary client's bytes.
mod audit_socket;

/// What a stop of the audit sockets leaves: nothing unread, and the socket files.
mod audit_stop;

/// Sockets that a supervisor passes on.
mod socket_activation;

/// Socket files that are removed or replaced while `serve` runs.
mod socket_files;

/// How much clients can hold and how much they can log: descriptors, idle connections, repeated warnings.
mod client_limits;

/// Several replicas in several processes: D4, D6, R8.
mod processes;

/// The packages for those who build from them.
mod packages;

/// The style, and that every rule has a test.
mod tidy;

/// Thousands of random runs with faults everywhere, in virtual time: D1 to D4, R3 to R8, C1.
mod simulation;
