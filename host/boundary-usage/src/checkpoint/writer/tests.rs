//! Tests of a start with the checkpoint of an earlier process, with a real database and files.

use std::fs;
use std::path::{Path, PathBuf};

use boundary_usage_tracker::CompactThetaSketch;
use tempfile::TempDir;

use super::*;
use crate::database::Purpose;
use crate::records::{Sketch, Uniques, UniquesUpdate, Update};

const REPLICA: Uuid = Uuid::from_u128(7);

/// The last flush that the database has applied.
const APPLIED: u64 = 5;

/// A process with a database and state files, all in one temporary directory.
struct Process {
    directory: TempDir,
    database: Database,
    writer: Arc<CheckpointWriter>,
}

impl Process {
    /// Starts a process with an earlier process's checkpoint of these parts.
    async fn start(last_flush: u64, delta: Option<Snapshot>, offline: Option<Snapshot>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("usage.db").display());
        let database = Database::connect(&url).await.unwrap();
        let mut transaction = database.backend().begin(Purpose::Flush).await.unwrap();
        let sketch = || Sketch { count: 0, bytes: CompactThetaSketch::empty().to_bytes() };
        let uniques = UniquesUpdate::Delta(Uniques { workspaces: sketch(), users: sketch() });
        let update = Update { flush: APPLIED, uniques, allowed: 0, denied: 0 };
        transaction.upsert(REPLICA, &update).await.unwrap();
        transaction.commit().await.unwrap();

        let (key, state) = (database.backend().hashing_key().await.unwrap(), directory.path().join("state"));
        let find = || super::super::find(state.clone(), REPLICA, key, &database);
        let path = find().await.unwrap().files.path().to_owned();
        let ledger_state = LedgerState { last_flush, unflushed: Unflushed { delta, in_doubt: None } };
        let fingerprint = super::super::fingerprint(key);
        fs::write(&path, Checkpoint { replica: REPLICA, fingerprint, ledger_state, offline }.to_bytes()).unwrap();
        let found = find().await.unwrap();
        let ledger = Arc::new(Mutex::new(Ledger::new(key, found.offline())));
        let writer = Arc::new(CheckpointWriter::new(REPLICA, found, ledger, Handle::current()));
        Self { directory, database, writer }
    }

    /// Returns the number of state files whose names contain a text.
    fn files(&self, text: &str) -> usize {
        let state: PathBuf = self.directory.path().join("state");
        let names = fs::read_dir(state).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(text)).count()
    }

    fn has_checkpoint(&self) -> bool {
        Path::new(&self.writer.status().path).exists()
    }
}

fn snapshot(allowed: u64) -> Option<Snapshot> {
    let uniques =
        boundary_usage_tracker::Uniques { workspaces: CompactThetaSketch::empty(), users: CompactThetaSketch::empty() };
    Some(Snapshot { uniques, allowed, denied: 0 })
}

#[tokio::test]
async fn activity_of_an_earlier_process_is_unvalidated_until_it_is_validated() {
    for (delta, has_activity) in [(snapshot(1), true), (None, false)] {
        let process = Process::start(APPLIED, delta, None).await;
        assert!(process.writer.is_unvalidated());
        assert_eq!(process.writer.has_unvalidated_activity(), has_activity);
        process.writer.validate(&process.database).await.unwrap();
        assert!(!process.writer.is_unvalidated() && !process.writer.has_unvalidated_activity());
        assert_eq!(process.writer.status().restored, has_activity);
        assert_eq!(process.files(".refused-"), 0);
    }
}

#[tokio::test]
async fn an_old_checkpoint_is_moved_away_and_no_other_is_written_for_it() {
    let process = Process::start(APPLIED - 1, snapshot(1), None).await;
    process.writer.validate(&process.database).await.unwrap();
    assert_eq!((process.files(".refused-"), process.has_checkpoint()), (1, false));
    assert_eq!(lock(&process.writer.disk).restorable_up_to, 0);
    process.writer.write(WriteReason::Interval).await.unwrap();
    assert_eq!((process.writer.status().restored, process.writer.status().written), (false, 0));
}

#[tokio::test]
async fn an_old_checkpoint_with_later_activity_is_copied_and_replaced() {
    let process = Process::start(APPLIED - 1, snapshot(1), snapshot(2)).await;
    process.writer.validate(&process.database).await.unwrap();
    assert_eq!((process.files(".refused-"), process.has_checkpoint()), (1, true));
    process.writer.write(WriteReason::Interval).await.unwrap();
    assert_eq!((process.writer.status().restored, process.writer.status().written), (true, 1));
    let written = fs::read(process.writer.status().path).unwrap();
    assert_eq!(Checkpoint::from_bytes(&written).unwrap().requests(), (2, 0));
}

#[tokio::test]
async fn an_old_checkpoint_with_later_activity_alone_is_not_set_aside() {
    let process = Process::start(APPLIED - 1, None, snapshot(2)).await;
    process.writer.validate(&process.database).await.unwrap();
    assert_eq!((process.files(".refused-"), process.has_checkpoint()), (0, true));
    assert!(process.writer.status().restored);
}
