//! `replay`: tracks recorded activity as fast as the component accepts it.
//!
//! `inputs` opens and checks the recordings, `progress` records how far the replay is, and `stopped` reports a replay
//! that did not complete.

mod inputs;
mod progress;
mod stopped;

use std::io::{self, IsTerminal};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use boundary_usage::{Error, Flushed, Options, Plugin, Tracker};
use clap::{Args, ValueHint};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime::Handle;
use tracing::warn;
use uuid::Uuid;

use self::inputs::Input;
use self::progress::{Position, Progress, Replayed, State};
use super::connect;
use crate::arguments::{Global, parse_id};
use crate::failure::Failure;
use crate::output;
use crate::replay_file::{BadLine, Line, Recording};
use crate::signals::{StopSignal, StopSignals};

/// Track recorded activity: JSON Lines, one object on each line.
///
/// Every recording is opened and checked before anything is tracked. An invalid line, SIGINT, SIGTERM, SIGQUIT and
/// SIGHUP stop the replay: the activities before it are flushed, and the error states their number, and the file and
/// line at which to continue. The exit code after a signal is 128 plus the signal's number. A recording that is
/// replayed twice counts twice.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Recordings, in this order. `-` is stdin.
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    files: Vec<PathBuf>,

    /// Activities between flushes. [default: one flush at the end]
    #[arg(long, value_name = "N")]
    flush_every: Option<NonZeroU64>,

    /// Skip and count invalid lines. With -v, log each of them. The command still fails if no line is valid.
    #[arg(long)]
    skip_invalid: bool,

    /// Replica id under which the activities are tracked. [default: random]
    #[arg(long, value_name = "UUID", value_parser = parse_id)]
    replica: Option<Uuid>,
}

const EXAMPLES: &str = "\
Format:
One JSON object on each line, in UTF-8, with exactly these members.
Blank lines are skipped. A line has at most 65536 bytes.

  workspace  UUID of the workspace
  owner      UUID of the user who owns it
  allowed    number of allowed requests, from 0 to 18446744073709551615
  denied     number of denied requests, in the same range

  {\"workspace\":\"0193a1b2-0000-7000-8000-000000000001\",\
\"owner\":\"0193a1b2-0000-7000-8000-0000000000aa\",\"allowed\":5,\"denied\":2}

Examples:
  boundary-usage replay monday.jsonl tuesday.jsonl
  zcat week.jsonl.gz | boundary-usage replay - --flush-every 1000
  boundary-usage replay --skip-invalid -v old.jsonl
  tail -n +4711 stopped.jsonl | boundary-usage replay -";

/// A flush interval that is never reached, because the replay requests its flushes.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The pauses before retries of the last flush, in milliseconds.
const LAST_FLUSH_PAUSES: [u64; 5] = [100, 200, 400, 800, 1_600];

pub(crate) async fn run(global: &Global, arguments: Arguments) -> Result<ExitCode> {
    let started = Instant::now();
    // The recordings are checked first, so that invalid arguments create no database.
    let inputs = inputs::check(&arguments.files)?;
    let names: Vec<_> = inputs.iter().map(|input| input.name.clone()).collect();
    let mut signals = StopSignals::listen()?;
    let database = connect(global).await?;
    let plugin = Plugin::embedded().context("cannot load the component")?;
    let replica = arguments.replica.unwrap_or_else(Uuid::new_v4);
    let options = Options { flush_interval: NEVER, ..Options::default() };
    let tracker = plugin.start(replica, database.clone(), options).await.context("cannot start the tracker")?;

    let replay = Replay::new(&arguments, &inputs, tracker.clone());
    let (progress, bar) = (replay.progress.clone(), replay.bar.clone());
    // Reading a file and waiting for a full intake both block the thread.
    let mut reading = tokio::task::spawn_blocking(move || replay.run(inputs));
    let stopped = tokio::select! {
        read = &mut reading => read?.err().map(|error| (output::explain(&error), None)),
        signal = signals.next() => Some((format!("stopped by {}", signal.name), Some(signal))),
    };
    progress.state().closed = true;
    bar.finish_and_clear();
    let flushed = tokio::select! {
        flushed = finish(&tracker, &progress) => flushed,
        signal = signals.next_but_hangup() => {
            let reason = format!("stopped immediately by a second {}", signal.name);
            progress.state().in_doubt = true;
            let advice = stopped::advice(&progress.state(), false, replica, &names);
            return stop(&format!("{reason}\n{advice}"), Some(signal));
        }
    };
    database.close().await;

    let mut state = progress.state();
    let failure = match (flushed, stopped) {
        (Ok(()), None) => None,
        (Ok(()), Some((reason, signal))) => Some((reason, true, signal)),
        (Err(error), None) => Some((format!("the last flush failed: {}", output::explain(&error.into())), false, None)),
        (Err(error), Some((reason, signal))) => {
            Some((format!("{reason}; the last flush failed: {}", output::explain(&error.into())), false, signal))
        }
    };
    if let Some((reason, flushed, signal)) = failure {
        return stop(&format!("{reason}\n{}", stopped::advice(&state, flushed, replica, &names)), signal);
    }
    if let (0, Some(first)) = (state.replayed.activities, &state.first_skipped) {
        bail!("no line is an activity; {} were skipped, the first is {first}", state.replayed.skipped);
    }
    state.replayed.seconds = started.elapsed().as_secs_f64();
    let replayed = state.replayed.clone();
    let done = || format!("the replay is complete: {} in the database", activities(replayed.activities));
    global.format.print_change(&replayed, || replayed.human(), done)?;
    Ok(ExitCode::SUCCESS)
}

/// Reports a replay that did not complete.
fn stop(message: &str, signal: Option<StopSignal>) -> Result<ExitCode> {
    let Some(signal) = signal else { bail!(Failure(message.to_owned())) };
    output::print_error(&format!("error: {message}"));
    Ok(signal.exit_code())
}

/// Flushes the tracked activity and stops the tracker.
///
/// A failed flush is retried. If a commit has no reply, the retry determines whether it was applied.
async fn finish(tracker: &Tracker, progress: &Progress) -> Result<(), Error> {
    let record = |outcome: &Result<Flushed, Error>| {
        let mut state = progress.state();
        let carried = state.mark();
        state.flushed(outcome, carried);
    };
    for pause in LAST_FLUSH_PAUSES {
        let outcome = tracker.flush().await;
        record(&outcome);
        match outcome {
            Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(pause)).await,
            _ => break,
        }
    }
    let outcome = tracker.shutdown().await;
    record(&outcome);
    outcome.map(drop)
}

fn activities(count: u64) -> String {
    if count == 1 { "1 activity".into() } else { format!("{count} activities") }
}

impl Replayed {
    fn human(&self) -> String {
        let Self { skipped, flushes, seconds, .. } = self;
        let skipped = if *skipped == 0 { String::new() } else { format!(", {skipped} invalid lines skipped") };
        let flushes = if *flushes == 1 { "1 flush".into() } else { format!("{flushes} flushes") };
        format!("{}{skipped}, {flushes}, {seconds:.2} s", activities(self.activities))
    }
}

/// A running replay.
struct Replay {
    flush_every: Option<NonZeroU64>,
    skip_invalid: bool,
    tracker: Tracker,
    runtime: Handle,
    bar: ProgressBar,
    progress: Arc<Progress>,
}

impl Replay {
    fn new(arguments: &Arguments, inputs: &[Input], tracker: Tracker) -> Self {
        Self {
            flush_every: arguments.flush_every,
            skip_invalid: arguments.skip_invalid,
            tracker,
            runtime: Handle::current(),
            bar: bar(inputs),
            progress: Arc::new(Progress::new()),
        }
    }

    fn run(self, inputs: Vec<Input>) -> Result<()> {
        for (number, input) in inputs.into_iter().enumerate() {
            self.replay(number, input)?;
            let mut state = self.progress.state();
            if state.closed {
                return Ok(());
            }
            state.next = Position { input: number + 1, line: 1 };
        }
        Ok(())
    }

    fn replay(&self, number: usize, input: Input) -> Result<()> {
        let name = input.name.clone();
        let reader = input.read().map_err(Failure)?;
        for line in Recording::new(reader) {
            let line = line.with_context(|| format!("cannot read the recording {name}"))?;
            let flush = {
                let mut state = self.progress.state();
                if state.closed {
                    return Ok(());
                }
                let tracked = self.handle(&mut state, &name, &line)?;
                state.next = Position { input: number, line: line.number + 1 };
                tracked && self.flush_every.is_some_and(|every| state.replayed.activities.is_multiple_of(every.get()))
            };
            if flush {
                self.flush()?;
            }
            self.bar.inc(line.bytes);
        }
        Ok(())
    }

    /// Tracks or skips a line. Returns whether the line was tracked.
    fn handle(&self, state: &mut State, name: &str, line: &Line) -> Result<bool> {
        match &line.content {
            Some(Ok(activity)) => {
                self.tracker.track(activity.workspace, activity.owner, activity.allowed, activity.denied)?;
                state.replayed.activities += 1;
                Ok(true)
            }
            Some(Err(bad)) => self.skip(state, name, line.number, bad).map(|()| false),
            None => Ok(false),
        }
    }

    fn skip(&self, state: &mut State, name: &str, number: u64, bad: &BadLine) -> Result<()> {
        let skipped = format!("{name}:{number}: {bad}");
        if !self.skip_invalid {
            bail!(Failure(skipped));
        }
        state.replayed.skipped += 1;
        self.bar.suspend(|| tracing::info!("skipped {skipped}"));
        state.first_skipped.get_or_insert(skipped);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        // The state is not locked during the flush, because a signal must not wait for the flush.
        let carried = self.progress.state().mark();
        let outcome = self.runtime.block_on(self.tracker.flush());
        self.progress.state().flushed(&outcome, carried);
        match outcome {
            Ok(_) | Err(Error::Stopped) => Ok(()),
            // The tracker keeps the activity, and a later flush sends it. The last flush must succeed.
            Err(error) if error.is_retryable() => {
                let error: &dyn std::error::Error = &error;
                self.bar.suspend(|| warn!(error, "a flush failed; the next flush carries its activity"));
                Ok(())
            }
            Err(error) => Err(error).context("a flush failed"),
        }
    }
}

/// Creates a progress bar, which is hidden unless stderr is a terminal.
///
/// If the size of a recording is unknown, the bar shows the number of bytes read.
fn bar(inputs: &[Input]) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match inputs.iter().map(|input| input.size).sum::<Option<u64>>() {
        Some(size) => (ProgressBar::new(size), "{bar:40} {percent:>3} %  {bytes} of {total_bytes}, {eta} left"),
        None => (ProgressBar::no_length(), "{spinner} {bytes} read, {bytes_per_sec}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is a constant"))
}
