//! The identity of the files of an open database, to detect their replacement.
//!
//! SQLite continues to use a file that was deleted or replaced, and no other process sees its writes. Therefore the
//! files at the paths are compared with the opened ones before each transaction and after each commit.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The identity of an existing file: its device and its inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Returns the identity of the file at a path.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        Some(Self { device: file.dev(), inode: file.ino() })
    }
}

/// The files that a connection has open.
///
/// The files stay in place while the connection is open, unless another program moves them.
#[derive(Default)]
pub(super) struct OpenFiles {
    /// The database.
    pub(super) database: Option<FileId>,
    /// The write-ahead log.
    pub(super) log: Option<FileId>,
    /// The index of the log, which all processes share.
    pub(super) index: Option<FileId>,
}

/// The state of a file that no process has open. Any write changes this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quiet {
    file: FileId,
    length: u64,
    modified: (i64, i64),
}

/// The paths of a database, and the identity of its opened file.
pub(super) struct Files {
    /// The path in the URL, for messages.
    shown: PathBuf,
    /// The absolute path, which does not depend on the working directory.
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The database in use. `None` before the first connection and after a replacement was detected.
    open: Option<FileId>,
    /// The log of a database that was replaced.
    stale_log: Option<FileId>,
}

impl Files {
    pub(super) fn new(shown: PathBuf) -> Self {
        let path = std::path::absolute(&shown).unwrap_or_else(|_| shown.clone());
        Self { shown, path, state: Mutex::default() }
    }

    /// Returns the path for messages.
    pub(super) fn shown(&self) -> &Path {
        &self.shown
    }

    /// Returns the absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the files that are at the paths now.
    pub(super) fn now(&self) -> OpenFiles {
        let [database, log, index] = ["", "-wal", "-shm"].map(|suffix| FileId::at(&self.beside(suffix)));
        OpenFiles { database, log, index }
    }

    /// Describes what happened to the database in use, if it is no longer at its path.
    pub(super) fn moved(&self) -> Option<String> {
        let open = self.lock().open;
        open.and_then(|open| self.what_happened_to(open))
    }

    /// Describes what happened to this database, if it is no longer at its path.
    pub(super) fn what_happened_to(&self, open: FileId) -> Option<String> {
        let shown = self.shown.display();
        match FileId::at(&self.path) {
            Some(now) if now == open => None,
            Some(_) => Some(format!("`{shown}` was replaced by another file")),
            None => Some(format!("`{shown}` was deleted")),
        }
    }

    /// Describes what happened to a connection's log or its index, if they are no longer at their paths.
    pub(super) fn log_moved(&self, open: &OpenFiles) -> Option<String> {
        let now = self.now();
        let moved = [("-wal", open.log, now.log), ("-shm", open.index, now.index)];
        let (suffix, ..) = moved.into_iter().find(|(_, open, now)| open.is_some() && open != now)?;
        Some(format!("`{}{suffix}` was deleted or replaced", self.shown.display()))
    }

    /// Records the database in use.
    pub(super) fn opened(&self, database: Option<FileId>) {
        self.lock().open = database;
    }

    /// Records that no database is in use, and moves the log of the replaced one away.
    ///
    /// SQLite would apply the old log to the new database at the path and damage it. Returns the new path of the log,
    /// unless the log is empty or the database is still in place.
    pub(super) fn abandoned(&self, open: &OpenFiles) -> Option<PathBuf> {
        let database = self.lock().open.take().or(open.database)?;
        if FileId::at(&self.path) == Some(database) {
            return None;
        }
        let (log, index) = (self.beside("-wal"), self.beside("-shm"));
        if open.index.is_some() && FileId::at(&index) == open.index {
            // If this fails, the next connection fails, too.
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

    /// Returns whether the log at its path belongs to a replaced database and could not be moved away.
    pub(super) fn has_stale_log(&self) -> bool {
        let stale = self.lock().stale_log;
        stale.is_some() && FileId::at(&self.beside("-wal")) == stale
    }

    /// Returns the state of the database file if no process has it open.
    ///
    /// A process that has the file open keeps a log or a journal beside it.
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

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// Returns the files of an open database whose place another file has taken.
    ///
    /// `log` is the content of the database's log.
    fn replaced(log: &str) -> (TempDir, Files, OpenFiles) {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path().join("usage.db"));
        for (suffix, content) in [("", "old"), ("-wal", log), ("-shm", "index"), (".new", "new")] {
            fs::write(files.beside(suffix), content).unwrap();
        }
        let open = files.now();
        files.opened(open.database);
        fs::rename(files.beside(".new"), files.path()).unwrap();
        (directory, files, open)
    }

    #[test]
    fn the_log_of_a_replaced_database_is_set_aside_and_its_index_is_removed() {
        let (_directory, files, open) = replaced("log");
        let aside = files.abandoned(&open).expect("the log holds something");
        assert_eq!(fs::read_to_string(aside).unwrap(), "log");
        assert!(!files.beside("-wal").exists() && !files.beside("-shm").exists() && !files.has_stale_log());
    }

    #[test]
    fn an_empty_log_of_a_replaced_database_is_removed() {
        let (_directory, files, open) = replaced("");
        assert_eq!(files.abandoned(&open), None);
        assert!(!files.beside("-wal").exists() && !files.beside("-shm").exists());
    }

    #[test]
    fn the_log_and_index_of_a_database_in_its_place_stay() {
        let (_directory, files, open) = replaced("log");
        files.opened(FileId::at(files.path()));
        assert_eq!(files.abandoned(&open), None);
        assert!(files.beside("-wal").exists() && files.beside("-shm").exists());
    }

    #[test]
    fn a_log_and_an_index_that_were_not_open_stay() {
        let (_directory, files, open) = replaced("log");
        for suffix in ["-wal", "-shm"] {
            fs::write(files.beside(".other"), "other").unwrap();
            fs::rename(files.beside(".other"), files.beside(suffix)).unwrap();
        }
        for open in [open, OpenFiles::default()] {
            files.opened(Some(FileId { device: 0, inode: 0 }));
            assert_eq!(files.abandoned(&open), None);
            assert!(files.beside("-wal").exists() && files.beside("-shm").exists());
        }
    }

    #[test]
    fn a_log_that_cannot_be_set_aside_is_stale_until_it_is_deleted() {
        let (_directory, files, open) = replaced("log");
        let inode = open.database.unwrap().inode;
        fs::create_dir(files.beside(&format!("-wal.{inode}"))).unwrap();
        assert!(!files.has_stale_log());
        assert_eq!(files.abandoned(&open), None);
        assert!(files.has_stale_log());
        fs::remove_file(files.beside("-wal")).unwrap();
        assert!(!files.has_stale_log());
    }
}
