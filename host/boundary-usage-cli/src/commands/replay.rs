//! `replay`: recorded activity goes the same way as live activity, as fast as the component takes it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use boundary_usage::{Flushed, Options, Plugin, Tracker};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::runtime::Handle;
use tracing::warn;
use uuid::Uuid;

use super::connect;
use crate::cli::Global;
use crate::configuration::parse_id;
use crate::recording::{BadLine, Recording};

/// Track recorded activity: JSON Lines, one activity a line.
///
///   {"workspace":"UUID","owner":"UUID","allowed":1,"denied":0}
///
/// A bad line stops the replay; what came before it is in the database then.
#[derive(Args)]
#[command(after_help = EXAMPLES, verbatim_doc_comment)]
pub struct Arguments {
    /// The recordings, in order; `-` is stdin.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Flush after each N activities, besides the end.
    #[arg(long, value_name = "N")]
    flush_every: Option<NonZeroU64>,

    /// Skip and count bad lines instead of stopping at the first.
    #[arg(long)]
    skip_invalid: bool,

    /// The replica in whose name to track. [default: random]
    #[arg(long, value_name = "UUID", value_parser = parse_id)]
    replica: Option<Uuid>,
}

const EXAMPLES: &str = "\
Examples:
  boundary-usage replay monday.jsonl tuesday.jsonl
  zcat week.jsonl.gz | boundary-usage replay - --skip-invalid --flush-every 1000";

/// The flushes of a replay are those that were asked for; this keeps the tracker from adding its own.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What a replay did.
#[derive(Debug, Default, Serialize)]
struct Replayed {
    activities: u64,
    skipped: u64,
    flushes: u64,
    seconds: f64,
}

pub(super) async fn run(global: &Global, arguments: Arguments) -> Result<()> {
    let started = Instant::now();
    let database = connect(global).await?;
    let plugin = Plugin::embedded().context("cannot load the component")?;
    let replica = arguments.replica.unwrap_or_else(Uuid::new_v4);
    let options = Options { flush_interval: NEVER, ..Options::default() };
    let tracker = plugin.start(replica, database.clone(), options).await.context("cannot start the tracker")?;

    let replay = Replay::new(arguments, tracker.clone());
    // Reading files and waiting for a full intake both block.
    let (mut replayed, stopped) = tokio::task::spawn_blocking(move || replay.run()).await?;
    // What came before a bad line is kept, so the last flush comes first.
    let flushed = tracker.shutdown().await.context("the last flush failed; activity since the flush before it is lost");
    database.close().await;
    let flushed = match (flushed, stopped) {
        (Ok(flushed), Ok(())) => flushed,
        (Ok(_), Err(stopped)) => {
            bail!("{stopped:#}\nthe {} activities before it are in the database", replayed.activities)
        }
        (Err(error), Ok(())) => return Err(error),
        (Err(error), Err(stopped)) => return Err(error.context(format!("{stopped:#}"))),
    };
    replayed.count(flushed);
    replayed.seconds = started.elapsed().as_secs_f64();
    global.format.print(&replayed, || replayed.human())
}

impl Replayed {
    fn count(&mut self, flushed: Flushed) {
        self.flushes += u64::from(flushed != Flushed::Idle);
    }

    fn human(&self) -> String {
        let Self { activities, skipped, flushes, seconds } = self;
        let skipped = if *skipped == 0 { String::new() } else { format!(", {skipped} bad lines skipped") };
        format!("{activities} activities{skipped}, {flushes} flushes, {seconds:.2} s")
    }
}

/// A replay on its way through the files.
struct Replay {
    arguments: Arguments,
    tracker: Tracker,
    runtime: Handle,
    progress: ProgressBar,
    replayed: Replayed,
}

impl Replay {
    fn new(arguments: Arguments, tracker: Tracker) -> Self {
        let progress = progress(&arguments.files);
        Self { arguments, tracker, runtime: Handle::current(), progress, replayed: Replayed::default() }
    }

    /// Answers what was done, and what stopped it.
    fn run(mut self) -> (Replayed, Result<()>) {
        let files = std::mem::take(&mut self.arguments.files);
        let stopped = files.iter().try_for_each(|file| self.replay(file));
        self.progress.finish_and_clear();
        (self.replayed, stopped)
    }

    fn replay(&mut self, file: &Path) -> Result<()> {
        let reader: Box<dyn BufRead> = match file.to_str() {
            Some("-") => Box::new(io::stdin().lock()),
            _ => {
                let opened =
                    File::open(file).with_context(|| format!("cannot open the recording {}", file.display()))?;
                Box::new(BufReader::new(opened))
            }
        };
        for line in Recording::new(reader) {
            let line = line.with_context(|| format!("cannot read the recording {}", name(file)))?;
            match line.content {
                Some(Ok(activity)) => {
                    let (allowed, denied) = (activity.allowed, activity.denied);
                    self.tracker.track(activity.workspace, activity.owner, allowed, denied)?;
                    self.replayed.activities += 1;
                    self.flush_when_due()?;
                }
                Some(Err(bad)) => self.skip(file, line.number, &bad)?,
                None => {}
            }
            self.progress.inc(line.bytes);
        }
        Ok(())
    }

    fn skip(&mut self, file: &Path, line: u64, bad: &BadLine) -> Result<()> {
        if !self.arguments.skip_invalid {
            return Err(anyhow!("{}:{line}: {bad}", name(file)));
        }
        self.replayed.skipped += 1;
        self.progress.suspend(|| tracing::info!("skipped {}:{line}: {bad}", name(file)));
        Ok(())
    }

    fn flush_when_due(&mut self) -> Result<()> {
        let due = self.arguments.flush_every.is_some_and(|every| self.replayed.activities.is_multiple_of(every.get()));
        if !due {
            return Ok(());
        }
        match self.runtime.block_on(self.tracker.flush()) {
            Ok(flushed) => self.replayed.count(flushed),
            // The tracker keeps the data; the next flush sends it, and the last one must succeed.
            Err(error) if error.is_retryable() => {
                let error: &dyn std::error::Error = &error;
                self.progress.suspend(|| warn!(error, "a flush failed; the next one sends its activity again"));
            }
            Err(error) => return Err(error).context("a flush failed"),
        }
        Ok(())
    }
}

fn name(file: &Path) -> String {
    if file == Path::new("-") { "stdin".into() } else { file.display().to_string() }
}

/// A bar on a terminal; nothing elsewhere. Without the sizes of all files it cannot tell how far it is, and counts.
fn progress(files: &[PathBuf]) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let sizes =
        files.iter().map(|file| file.metadata().ok().filter(|metadata| metadata.is_file()).map(|file| file.len()));
    let (bar, template) = match sizes.sum::<Option<u64>>() {
        Some(size) => (ProgressBar::new(size), "{bar:40} {percent:>3} %  {bytes} of {total_bytes}, {eta} left"),
        None => (ProgressBar::no_length(), "{spinner} {bytes} read, {bytes_per_sec}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is a constant"))
}
