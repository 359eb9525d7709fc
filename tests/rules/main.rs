//! The rules that the tracker keeps, each as a test named after what it promises.

#![forbid(unsafe_code)]
// All of this is tests, also the functions that are not test functions themselves.
#![allow(clippy::unwrap_used)]

/// What a crash of the host leaves, and how the next start goes on from it: D3.
mod checkpoint;
/// A component that breaks or reaches for more than it may.
mod containment;
/// What the component asks for and offers, and what a wrong one is told: R9.
mod contract;
/// Flushes on both kinds of database: R4, R5, R8, D3, D6.
mod database;
/// The program itself, killed and started again.
mod killed;
/// What `track` and `flush` promise while they run beside each other: R1 to R4, R10, D2, D3, D5.
mod tracker;

/// Collections on both kinds of database: C1, C2, C3, D4, D7, D8, D9.
mod collection;

/// What the roles in PostgreSQL may and may not do: R9.
mod authority;

/// Making the schema, and refusing one that is not ours to change.
mod migrations;

/// The scenarios as text, through everything, on each database.
mod scenarios;
