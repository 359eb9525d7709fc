//! The output of an export: stdout, or a file that is replaced when the export is complete.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use tempfile::NamedTempFile;

use crate::printable;

/// The output of an export.
pub(super) enum Destination {
    Stdout,
    /// A temporary file beside the file that it replaces.
    ///
    /// Dropping this value deletes the temporary file.
    File {
        temporary: NamedTempFile,
        path: PathBuf,
    },
}

impl Destination {
    /// Opens stdout, or creates a temporary file.
    ///
    /// # Errors
    ///
    /// Returns an error if the path does not lead to a regular file, or if the directory cannot be written.
    pub(super) fn open(file: Option<&Path>) -> Result<Self> {
        let Some(file) = file else { return Ok(Self::Stdout) };
        let shown = printable::path(file);
        // If the file is a link, the file that it leads to is replaced.
        let path = match fs::canonicalize(file) {
            Ok(path) if !path.is_file() => bail!("{shown} is not a regular file; name a new file, or omit --output"),
            Ok(path) if is_database(&path) => {
                bail!("{shown} is a SQLite database, which would be lost; name a new file")
            }
            Ok(path) => path,
            Err(_) => file.to_owned(),
        };
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        // The umask restricts this mode, as it does for any new file.
        builder.prefix(".boundary-usage-export-").permissions(Permissions::from_mode(0o666));
        let temporary = builder.tempfile_in(directory.unwrap_or(Path::new(".")));
        let temporary = temporary.with_context(|| format!("cannot create a file beside {shown}"))?;
        if let Ok(replaced) = fs::metadata(&path) {
            let kept = temporary.as_file().set_permissions(replaced.permissions());
            kept.with_context(|| format!("cannot give a new file the mode of {shown}"))?;
        }
        Ok(Self::File { temporary, path })
    }

    /// Returns a writer to the output.
    pub(super) fn writer(&self) -> io::Result<Box<dyn Write + Send>> {
        match self {
            Self::Stdout => Ok(Box::new(io::stdout())),
            Self::File { temporary, .. } => Ok(Box::new(temporary.as_file().try_clone()?)),
        }
    }

    /// Moves the file into place.
    pub(super) fn complete(self) -> Result<()> {
        let Self::File { temporary, path } = self else { return Ok(()) };
        let written = temporary.as_file().sync_all();
        let moved = written.and_then(|()| temporary.persist(&path).map_err(|error| error.error));
        moved.map(drop).map_err(|error| unchanged(error, &path))
    }

    /// Returns the error of a failed write. A closed pipe, as in `… | head -1`, is no failure.
    pub(super) fn failed(&self, error: io::Error) -> Result<()> {
        match self {
            Self::Stdout if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            Self::Stdout => Err(error).context("cannot write to stdout"),
            Self::File { path, .. } => Err(unchanged(error, path)),
        }
    }
}

fn unchanged(error: io::Error, path: &Path) -> anyhow::Error {
    let path = printable::path(path);
    anyhow!(error).context(format!("cannot write {path}, which is unchanged"))
}

/// Returns whether a file has the header of a SQLite database.
fn is_database(path: &Path) -> bool {
    const HEADER: &[u8] = b"SQLite format 3\0";
    let mut start = [0; HEADER.len()];
    fs::File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut start)).is_ok() && start == HEADER
}
