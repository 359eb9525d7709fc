//! Usage tracking for egress boundaries.

#![forbid(unsafe_code)]

mod activity;
mod clock;
mod collection;
mod database;
mod error;
mod ledger;
mod options;
mod plugin;
mod tracker;

pub use activity::Activity;
pub use clock::{Clock, ManualClock};
pub use collection::{CollectOptions, Collection, Summary, TakenRow};
pub use database::{
    Backend, Database, DatabaseStatus, HashingKey, Lock, LockMode, OpenPeriod, PeriodStatus, Purpose, ReplicaStatus,
    RowStatus, Stored, Transaction, UniqueSet, Uniques, Update,
};
pub use error::{Error, TrackError};
pub use options::Options;
pub use plugin::{Contract, Plugin};
pub use tracker::{Flushed, Tracker, TrackerStatus};
