//! Usage tracking for egress boundaries.
//!
//! This library counts the workspaces and users that were active in a period, and their allowed and denied requests,
//! over all replicas of a proxy.
//!
//! The tracker is a WebAssembly component. This library loads the component and runs it beside your proxy. The
//! component has two capabilities only, a database transaction and a lock:
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
//! tracker.flush().await?; // the tracker also flushes every minute
//! tracker.shutdown().await?; // the last flush, with a time limit
//!
//! // A collection closes the period and returns its summary, whose delivery is acknowledged.
//! let Collection::Closed(summary) = database.collect(CollectOptions::default()).await? else { unreachable!() };
//! assert_eq!((summary.unique_workspaces, summary.allowed_requests, summary.denied_requests), (1, 5, 2));
//! database.acknowledge(summary.period_id).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The library promises:
//!
//! - **True totals.** Unique counts cover the whole period and all replicas.
//!   Mergeable sketches count exactly up to 16,384 ids, and with a relative standard error of 0.78 % above.
//! - **Exactly once.** The next flush carries the activity of a failed one.
//!   The flush number shows whether a commit without a reply was applied. Every activity belongs to exactly one period.
//! - **Bounded memory.** It depends neither on the number of ids nor on the length of an outage of the database.
//! - **Durability**, with a state directory. Accepted activity survives a crash, up to the last checkpoint.
//! - **Containment.** The component's memory and computing time are limited.
//!   If the component crashes, a new instance continues from the host's ledger.
//!
//! Proxies that use tower's services, for example with hyper, axum or tonic, can add a layer instead of calls. Enable
//! the feature `tower` and see the module of that name.
//!
//! | module | duty |
//! | --- | --- |
//! | `intake` | queues activity from the proxy's threads |
//! | `tracker` | runs the worker: forwards activity, flushes, restarts the component |
//! | `component` | compiles the component and runs an instance of it |
//! | `capabilities` | implements transactions and locks for the component, and checks each call |
//! | `database` | stores usage in SQLite or PostgreSQL |
//! | `connecting` | makes the first connection to a database that may be down |
//! | `collection` | closes a period and returns its summary |
//! | `history` | adds periods to days, and reports actives and retention |
//! | `pruning` | deletes old periods, idle replicas and old days |
//! | `checkpoint` | keeps unflushed activity on disk |
//! | `ledger` | runs the tracker's rules natively, to check and to replace the component |

// A single call is exempt, which loads machine code from the compile cache. See `component/compile_cache.rs`.
#![deny(unsafe_code)]

mod activity;
mod bindings;
mod capabilities;
pub mod certificates;
mod checkpoint;
mod clock;
mod collection;
mod component;
mod connecting;
mod database;
mod error;
mod failed_attempts;
mod history;
mod intake;
mod ledger;
mod options;
mod pruning;
mod records;
mod summary;
mod threads;
#[cfg(feature = "tower")]
pub mod tower;
mod tracker;

pub use activity::Activity;
pub use checkpoint::{Checkpoint, CheckpointError, CheckpointStatus, KeyFile, stored_replica};
pub use clock::{Clock, ManualClock};
pub use collection::{CollectOptions, Collection};
pub use component::{CompileCache, CompileOptions, Contract, Plugin};
pub use connecting::{Connecting, FirstConnection};
pub use database::{
    Ages, Backend, DELIVERY_WAIT_MAX, Database, DatabaseStatus, Delivery, DeliveryClaim, DeliveryStatus, HashingKey,
    KeyFingerprint, LiveReplicas, Lock, LockMode, Number, PeriodStatus, PruneLimits, Pruned, Purpose, ReplicaStatus,
    RowStatus, StatusScope, Transaction,
};
pub use error::{Error, TrackError};
pub use failed_attempts::FailedAttempts;
pub use history::{
    CohortActivity, CohortCounts, CohortRow, Estimated, History, HistoryReader, Report, ReportOptions, ReportRange,
    ReportRow, Retention, WindowActivity, WindowCounts, WindowLength,
};
pub use options::Options;
pub use pruning::PruneOptions;
pub use records::{Day, DeletedRow, Flushed, OpenPeriod, Sketch, StoredUsage, Uniques, UniquesUpdate, Update};
pub use summary::Summary;
pub use tracker::{FlushDurations, Tracker, TrackerStatus};
