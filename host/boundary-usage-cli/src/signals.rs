//! The signals that stop `serve` and `replay`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal that asked for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopSignal {
    /// Its name, with `SIG`.
    pub name: &'static str,
    number: u8,
}

impl StopSignal {
    const HANGUP: Self = Self { name: "SIGHUP", number: 1 };
    const INTERRUPT: Self = Self { name: "SIGINT", number: 2 };
    const QUIT: Self = Self { name: "SIGQUIT", number: 3 };
    const TERMINATE: Self = Self { name: "SIGTERM", number: 15 };

    /// The exit code of a process that the signal ended, as shells show it: 128 and its number.
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(128 + self.number)
    }

    /// Whether the terminal of the process has closed, so that nobody reads its output any more.
    pub fn is_hangup(self) -> bool {
        self == Self::HANGUP
    }
}

/// Receives the signals that ask for the end.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    /// `None` if SIGHUP was ignored when the process started, as under `nohup`.
    hangup: Option<Signal>,
}

impl StopSignals {
    /// From now on these signals do not end the process by themselves.
    ///
    /// # Errors
    ///
    /// If a handler cannot be installed.
    pub fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            hangup: (!ignores_hangup()).then(|| listen(SignalKind::hangup())).transpose()?,
        })
    }

    /// Waits for the first request to stop.
    pub async fn next(&mut self) -> StopSignal {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => StopSignal::TERMINATE,
            _ = self.interrupt.recv() => StopSignal::INTERRUPT,
            _ = self.quit.recv() => StopSignal::QUIT,
            _ = hangup => StopSignal::HANGUP,
        }
    }

    /// Waits for a request to end at once. SIGHUP is none: a terminal that closes sends it more than once, and systemd
    /// sends it right after SIGTERM (`SendSIGHUP=`).
    pub async fn next_but_hangup(&mut self) -> StopSignal {
        loop {
            let signal = self.next().await;
            if !signal.is_hangup() {
                return signal;
            }
        }
    }
}

/// Whether SIGHUP is ignored. A process inherits that over `exec`, and a handler would undo what `nohup` did.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}
