//! The files that an open database consists of, to notice when others are put in their place.
//!
//! SQLite keeps using a file that was deleted or replaced: it has it open, and no other process will ever see what it
//! writes. So the files at their paths are compared with those that were opened, before each transaction and after each
//! commit.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Identifies a file as long as it exists: its device and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file that is at a path now.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        Some(Self { device: file.dev(), inode: file.ino() })
    }
}

/// The files that a connection has open. They stay in their places as long as the connection is open, unless something
/// other than SQLite moves them.
#[derive(Default)]
pub(super) struct OpenFiles {
    /// The database.
    pub(super) database: Option<FileId>,
    /// The write-ahead log.
    pub(super) log: Option<FileId>,
    /// The index of the log, which all processes share.
    pub(super) index: Option<FileId>,
}

/// What a file without a writer looks like. A writer changes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Quiet {
    file: FileId,
    length: u64,
    modified: (i64, i64),
}

/// The paths of a database, and what was there when it was opened.
pub(super) struct Files {
    /// As the URL names it, for messages.
    shown: PathBuf,
    /// The same, whatever the working directory is later.
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The database in use; `None` before the first connection, and after it was found replaced.
    open: Option<FileId>,
    /// A log that belongs to a database which was replaced.
    stale_log: Option<FileId>,
}

impl Files {
    pub(super) fn new(shown: PathBuf) -> Self {
        let path = std::path::absolute(&shown).unwrap_or_else(|_| shown.clone());
        Self { shown, path, state: Mutex::default() }
    }

    /// Where the database is, for messages.
    pub(super) fn shown(&self) -> &Path {
        &self.shown
    }

    /// Where the database is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The files that are in place now.
    pub(super) fn now(&self) -> OpenFiles {
        let [database, log, index] = ["", "-wal", "-shm"].map(|suffix| FileId::at(&self.beside(suffix)));
        OpenFiles { database, log, index }
    }

    /// What happened to the database in use, if it is no longer at its path.
    pub(super) fn moved(&self) -> Option<String> {
        let open = self.lock().open;
        open.and_then(|open| self.what_happened_to(open))
    }

    /// What happened to this database, if it is no longer at its path.
    pub(super) fn what_happened_to(&self, open: FileId) -> Option<String> {
        let shown = self.shown.display();
        match FileId::at(&self.path) {
            Some(now) if now == open => None,
            Some(_) => Some(format!("`{shown}` was replaced by another file")),
            None => Some(format!("`{shown}` was deleted")),
        }
    }

    /// What happened to the log of a connection or its index, if they are no longer in their places.
    pub(super) fn log_moved(&self, open: &OpenFiles) -> Option<String> {
        let now = self.now();
        let moved = [("-wal", open.log, now.log), ("-shm", open.index, now.index)];
        let (suffix, ..) = moved.into_iter().find(|(_, open, now)| open.is_some() && open != now)?;
        Some(format!("`{}{suffix}` was deleted or replaced", self.shown.display()))
    }

    /// This file is the database in use from now on.
    pub(super) fn opened(&self, database: Option<FileId>) {
        self.lock().open = database;
    }

    /// No file is in use. If the database was replaced, its log and the index of that are taken away from the new
    /// one, because SQLite would take them for a part of it, and damage it. Returns where a log is now that still
    /// holds something.
    pub(super) fn abandoned(&self, open: &OpenFiles) -> Option<PathBuf> {
        let database = self.lock().open.take().or(open.database)?;
        if FileId::at(&self.path) == Some(database) {
            return None;
        }
        let (log, index) = (self.beside("-wal"), self.beside("-shm"));
        if open.index.is_some() && FileId::at(&index) == open.index {
            // If this fails, the next connection does, too.
            let _ = std::fs::remove_file(index);
        }
        if open.log.is_none() || FileId::at(&log) != open.log {
            return None;
        }
        if std::fs::metadata(&log).is_ok_and(|log| log.len() == 0) {
            let _ = std::fs::remove_file(&log);
            return None;
        }
        let aside = self.beside(&format!("-wal.{}", database.inode));
        match std::fs::rename(&log, &aside) {
            Ok(()) => Some(aside),
            Err(_) => {
                self.lock().stale_log = open.log;
                None
            }
        }
    }

    /// Whether the log at its path belongs to a database that was replaced, and could not be taken away.
    pub(super) fn has_stale_log(&self) -> bool {
        let stale = self.lock().stale_log;
        stale.is_some() && FileId::at(&self.beside("-wal")) == stale
    }

    /// What the database looks like, if no process has it open. A process that has keeps a log or a journal beside it.
    pub(super) fn quiet(&self) -> Option<Quiet> {
        if ["-wal", "-journal"].iter().any(|suffix| self.beside(suffix).exists()) {
            return None;
        }
        let file = std::fs::metadata(&self.path).ok()?;
        Some(Quiet {
            file: FileId { device: file.dev(), inode: file.ino() },
            length: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
        })
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
