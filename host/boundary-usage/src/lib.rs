//! Usage tracking for egress boundaries: how many workspaces and users were active in a period, and how many of their
//! requests were let through or blocked, over all replicas of a proxy.
//!
//! The tracker is a WebAssembly component. This library loads it, hands it its only capabilities, a database transaction
//! and a lock, and runs it beside your proxy:
//!
//! ```text
//!  proxy threads      one thread for each tracker                     your Tokio runtime
//! ┌──────────────┐   ┌───────────────────────────────────────────┐   ┌───────────────────────────┐
//! │ track(w,u,a,d) ──▶ intake ──▶ component ──▶ capabilities ───────▶ transaction ──▶ database    │
//! └──────────────┘   │ (bounded)  (sandboxed)  (checked)          │   │ (SQLite or PostgreSQL)    │
//!                    └───────────────────────────────────────────┘   └───────────────────────────┘
//! ```
//!
//! ```
//! use boundary_usage::{CollectOptions, Collection, Database, Options, Plugin};
//! use uuid::Uuid;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! # let directory = tempfile::tempdir()?;
//! # std::env::set_current_dir(&directory)?;
//! let plugin = Plugin::embedded()?; // or Plugin::from_file(path); compile once, share
//! let database = Database::connect("sqlite:usage.db").await?; // or postgres://…
//! let tracker = plugin.start(Uuid::new_v4(), database.clone(), Options::default()).await?;
//!
//! let (workspace, owner) = (Uuid::new_v4(), Uuid::new_v4());
//! tracker.track(workspace, owner, 5, 2)?; // from any thread; does not wait for the database
//! tracker.flush().await?; // it flushes by itself every minute, too
//! tracker.shutdown().await?; // the last flush, with a time limit
//!
//! // Telemetry: close the period, get its summary, acknowledge its delivery.
//! let Collection::Closed(summary) = database.collect(CollectOptions::default()).await? else { unreachable!() };
//! assert_eq!((summary.unique_workspaces, summary.allowed_requests, summary.denied_requests), (1, 5, 2));
//! database.acknowledge(summary.period_id).await?;
//! # Ok(())
//! # }
//! ```
//!
//! What is promised:
//!
//! - **Period totals are true.** Uniques are those of the whole period and of all replicas together, counted by mergeable
//!   sketches: exact up to 16,384 ids, beyond that with a relative standard error of 0.78 %.
//! - **Exactly once.** A flush that fails is sent with the next one; one whose commit reply was lost is found out by its
//!   number; every activity falls wholly into one period.
//! - **Bounded.** A tracker's memory does not grow with the ids it sees nor with the time that the database is away.
//! - **Durable**, with a state directory: what was accepted survives a crash of the process, to the last checkpoint.
//! - **Contained.** The component is limited in memory and computing time; one that breaks is replaced, and its successor
//!   goes on where it was.
//!
//! Proxies built on hyper, axum, tonic or anything else that takes tower's services add a layer instead of calls: see the
//! module `tower`, of the feature of that name.

// Forbidden but for one call, which loads code that this library has compiled before: see `plugin/cache.rs`.
#![deny(unsafe_code)]

mod activity;
mod bindings;
mod capabilities;
pub mod certificates;
mod checkpoint;
mod clock;
mod collection;
mod component;
mod database;
mod error;
mod intake;
mod ledger;
mod options;
mod records;
mod summary;
mod threads;
#[cfg(feature = "tower")]
pub mod tower;
mod tracker;

pub use activity::Activity;
pub use checkpoint::{Checkpoint, CheckpointError, CheckpointStatus, KeyFile};
pub use clock::{Clock, ManualClock};
pub use collection::{CollectOptions, Collection};
pub use component::{CompileCache, Contract, Plugin};
pub use database::{
    Ages, Backend, DELIVERY_WAIT_MAX, Database, DatabaseStatus, Delivery, DeliveryClaim, DeliveryStatus, HashingKey,
    Lock, LockMode, PeriodStatus, Purpose, ReplicaStatus, RowStatus, Transaction,
};
pub use error::{Error, TrackError};
pub use options::Options;
pub use records::{DeletedRow, Flushed, OpenPeriod, Sketch, StoredUsage, Uniques, UniquesUpdate, Update};
pub use summary::Summary;
pub use tracker::{FlushDurations, Tracker, TrackerStatus};
