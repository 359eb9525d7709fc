//! The rules of the design, each with a test that names it: `rule_promise`.

/// Flushes on both kinds of database: R4, R5, R8, D3, D6.
mod database;

/// Collections on both kinds of database: C1, C2, C3, D4, D7, D8, D9.
mod collection;

/// What the roles in PostgreSQL may and may not do: R9.
mod authority;

/// Making the schema, and refusing one that is not ours to change.
mod migrations;
