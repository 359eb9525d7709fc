//! The signals that stop `serve` and `replay`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal that stops the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopSignal {
    /// The signal's name, including `SIG`.
    pub name: &'static str,
    number: u8,
}

impl StopSignal {
    const HANGUP: Self = Self { name: "SIGHUP", number: 1 };
    const INTERRUPT: Self = Self { name: "SIGINT", number: 2 };
    const QUIT: Self = Self { name: "SIGQUIT", number: 3 };
    const TERMINATE: Self = Self { name: "SIGTERM", number: 15 };

    /// Returns 128 plus the signal's number, as shells show it.
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(128 + self.number)
    }

    /// Returns whether the signal is SIGHUP, sent when the terminal is closed.
    pub fn is_hangup(self) -> bool {
        self == Self::HANGUP
    }
}

/// A receiver of the signals that stop the process.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    /// `None` if SIGHUP was ignored when the process started, as under `nohup`.
    hangup: Option<Signal>,
}

impl StopSignals {
    /// Installs handlers. From now on the signals no longer end the process.
    ///
    /// # Errors
    ///
    /// Returns an error if a handler cannot be installed.
    pub fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            hangup: (!ignores_hangup()).then(|| listen(SignalKind::hangup())).transpose()?,
        })
    }

    /// Waits for a signal.
    pub async fn next(&mut self) -> StopSignal {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        // If SIGTERM and SIGHUP are pending, SIGTERM comes first. As the second one it would end the process.
        tokio::select! {
            biased;
            _ = self.terminate.recv() => StopSignal::TERMINATE,
            _ = self.interrupt.recv() => StopSignal::INTERRUPT,
            _ = self.quit.recv() => StopSignal::QUIT,
            _ = hangup => StopSignal::HANGUP,
        }
    }

    /// Waits for a signal other than SIGHUP.
    ///
    /// A terminal that closes sends SIGHUP more than once, and systemd sends it right after SIGTERM (`SendSIGHUP=`).
    pub async fn next_but_hangup(&mut self) -> StopSignal {
        loop {
            let signal = self.next().await;
            if !signal.is_hangup() {
                return signal;
            }
        }
    }
}

/// Returns whether SIGHUP is ignored, as under `nohup`. With a handler installed, the signal would no longer be
/// ignored.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}
