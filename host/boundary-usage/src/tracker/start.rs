//! The start of a tracker from a compiled component.

use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::status::Counters;
use super::worker::{Command, Worker, flush_loop};
use super::{Shared, Tracker};
use crate::capabilities::ReplicaContext;
use crate::checkpoint::{self, CheckpointWriter, Found};
use crate::component::{Instance, Plugin};
use crate::database::Database;
use crate::error::Error;
use crate::intake::Intake;
use crate::ledger::Ledger;
use crate::options::Options;

impl Plugin {
    /// Starts a tracker for a replica on a thread of its own.
    ///
    /// Two trackers that run at the same time must have different replica ids.
    ///
    /// # Errors
    ///
    /// - [`Error::Configuration`] if the replica id is nil or an option is out of range.
    /// - [`Error::State`] if the state directory cannot be used, or another process uses it for this replica.
    /// - Errors of the database.
    pub async fn start(&self, replica: Uuid, database: Database, options: Options) -> Result<Tracker, Error> {
        let context = replica_context(replica, database, &options).await?;
        let (tracker, worker) = new(self.clone(), context, options);
        let (ready, started) = oneshot::channel();
        let weak_commands = tracker.commands.downgrade();
        let run = move || run_thread(worker, weak_commands, ready);
        let thread = std::thread::Builder::new().name("boundary-usage".into()).spawn(run);
        thread.map_err(cannot_start)?;
        started.await.unwrap_or(Err(Error::Stopped))?;
        Ok(tracker)
    }

    /// Starts a tracker whose work is the returned future.
    ///
    /// The caller runs the future to its end on the caller's own thread. The future is not [`Send`], so use
    /// `tokio::task::LocalSet`, for example. Hosts with a single thread need this function. So do simulations, which
    /// need a reproducible order of events.
    ///
    /// The component can compute for up to [`Options::cpu_limit`] and blocks the thread meanwhile. Call
    /// [`Tracker::try_track`] on this thread: [`Tracker::track`] would wait for itself if the intake were full.
    ///
    /// The future ends after a [`shutdown`](Tracker::shutdown), or after the last flush when all handles are dropped.
    /// Dropping the future earlier loses unflushed activity.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Plugin::start`].
    pub async fn start_local(
        &self,
        replica: Uuid,
        database: Database,
        options: Options,
    ) -> Result<(Tracker, impl Future<Output = ()> + use<>), Error> {
        let context = replica_context(replica, database, &options).await?;
        let (tracker, worker) = new(self.clone(), context, options);
        let instance = worker.instantiate().await?;
        let run = run(worker, instance, tracker.commands.downgrade());
        Ok((tracker, run))
    }
}

/// Checks the arguments of a start and creates the context of the tracker's instances.
async fn replica_context(replica: Uuid, database: Database, options: &Options) -> Result<Arc<ReplicaContext>, Error> {
    if replica.is_nil() {
        return Err(Error::Configuration {
            message: "the replica id is the nil UUID; every replica has an id of its own".into(),
        });
    }
    options.check()?;
    let hashing_key = database.backend().hashing_key().await?;
    let found = match &options.state_directory {
        Some(directory) => Some(checkpoint::find(directory.clone(), replica, hashing_key, &database).await?),
        None => None,
    };
    let ledger = Ledger::new(hashing_key, found.as_ref().and_then(Found::offline));
    let ledger = Arc::new(Mutex::new(ledger));
    let writer = |found| CheckpointWriter::new(replica, found, ledger.clone(), database.runtime().clone());
    let checkpoint_writer = found.map(writer).map(Arc::new);
    if let Some(writer) = checkpoint_writer.as_ref().filter(|_| database.is_connected()) {
        writer.validate(&database).await?;
    }
    let flush_timeout = options.flush_timeout;
    Ok(Arc::new(ReplicaContext { replica, database, hashing_key, flush_timeout, ledger, checkpoint_writer }))
}

/// Creates the handle and the worker of a tracker.
fn new(plugin: Plugin, context: Arc<ReplicaContext>, options: Options) -> (Tracker, Worker) {
    let shared = Arc::new(Shared {
        replica: context.replica,
        shutdown_timeout: options.shutdown_timeout,
        intake: Intake::new(options.intake_capacity),
        counters: Mutex::new(Counters::new()),
        ledger: context.ledger.clone(),
        checkpoint_writer: context.checkpoint_writer.clone(),
    });
    if let Some(writer) = &shared.checkpoint_writer {
        writer.start(&options);
    }
    let (commands, receiver) = mpsc::channel(1);
    let worker = Worker { plugin, context, options, shared: shared.clone(), commands: receiver, stop: None };
    (Tracker { shared, commands }, worker)
}

/// Runs a tracker on the current thread.
fn run_thread(worker: Worker, commands: mpsc::WeakSender<Command>, ready: oneshot::Sender<Result<(), Error>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(cannot_start(error)));
            return;
        }
    };
    runtime.block_on(async {
        match worker.instantiate().await {
            Ok(instance) => {
                let _ = ready.send(Ok(()));
                run(worker, instance, commands).await;
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    });
}

/// Runs the worker and the flush loop until the tracker ends.
async fn run(worker: Worker, instance: Instance, commands: mpsc::WeakSender<Command>) {
    let writer = worker.context.checkpoint_writer.clone();
    let limit = worker.options.shutdown_timeout;
    let flushing = flush_loop(commands, worker.options.clone(), worker.context.replica);
    // The flush loop ends when the last handle is dropped. The worker then still has its last flush to do.
    let flushing = async {
        flushing.await;
        std::future::pending::<()>().await
    };
    tokio::select! {
        biased;
        () = worker.run(instance) => {}
        () = flushing => {}
    }
    // A shutdown has closed the writer already. This call closes the writer after the last handle was dropped without a
    // shutdown.
    if let Some(writer) = writer {
        writer.close(limit).await;
    }
}

fn cannot_start(error: std::io::Error) -> Error {
    Error::Component { message: "cannot start the tracker's thread".into(), source: Some(error.into()) }
}
