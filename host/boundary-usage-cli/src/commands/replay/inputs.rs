//! The recordings of a replay.
//!
//! Each recording is opened and checked before anything is tracked.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::failure::{Failure, UsageError};
use crate::printable;
use crate::replay_file::{FORMAT_BYTES, ForeignFormat, check_format};

/// A recording that was opened and checked.
pub(super) struct Input {
    /// The recording's name in messages.
    pub(super) name: String,
    /// The recording's size, if it is a regular file.
    pub(super) size: Option<u64>,
    source: Source,
}

enum Source {
    Stdin,
    /// A regular file.
    ///
    /// The file is opened again for reading, because the number of open files is limited.
    Path(PathBuf),
    /// A pipe or another file that can be read only once, and therefore stays open.
    Stream(File),
}

/// Opens and checks every recording, and reports all faults together.
pub(super) fn check(files: &[PathBuf]) -> Result<Vec<Input>> {
    let (mut inputs, mut faults) = (Vec::new(), Vec::new());
    let mut seen = HashMap::new();
    for path in files {
        match Input::open(path) {
            Ok((input, identity)) => {
                if let Some(first) = identity.and_then(|identity| seen.insert(identity, input.name.clone())) {
                    bail!(UsageError(same_file(&first, &input.name)));
                }
                inputs.push(input);
            }
            Err(fault) => faults.push(fault),
        }
    }
    match faults.as_slice() {
        [] => Ok(inputs),
        [fault] => bail!(Failure(format!("{fault}; nothing was tracked"))),
        faults => {
            let faults: String = faults.iter().map(|fault| format!("\n  - {fault}")).collect();
            bail!(Failure(format!("cannot read all recordings; nothing was tracked:{faults}")))
        }
    }
}

fn same_file(first: &str, second: &str) -> String {
    let which =
        if first == second { format!("{first} is given twice") } else { format!("{first} and {second} are one file") };
    format!("{which}, and its activities would count twice; give each recording once")
}

/// Device and inode of a file.
type Identity = (u64, u64);

impl Input {
    /// Opens and checks a recording.
    ///
    /// A device such as `/dev/null` has no identity, so it may be given several times.
    fn open(path: &Path) -> Result<(Self, Option<Identity>), String> {
        let is_stdin = path == Path::new("-");
        let name = if is_stdin { "stdin".to_owned() } else { printable::path(path) };
        let failed = |error: io::Error| format!("cannot open the recording {name}: {}", printable::printable(error));
        let mut file = if is_stdin {
            File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?)
        } else {
            File::open(path).map_err(failed)?
        };
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(format!("cannot read the recording {name}: it is a directory; give the files in it"));
        }
        let is_regular = metadata.is_file();
        if is_regular {
            let mut start = [0; FORMAT_BYTES];
            let position = file.stream_position().map_err(failed)?;
            let length = file.read_at(&mut start, position).map_err(failed)?;
            check_format(&start[..length]).map_err(|fault| foreign(&name, &fault))?;
        }
        let identity = (is_stdin || !metadata.file_type().is_char_device()).then_some((metadata.dev(), metadata.ino()));
        let source = match (is_stdin, is_regular) {
            (true, _) => Source::Stdin,
            (false, true) => Source::Path(path.to_owned()),
            (false, false) => Source::Stream(file),
        };
        Ok((Self { name, size: is_regular.then_some(metadata.len()), source }, identity))
    }

    /// Returns a reader of the recording.
    ///
    /// The format of a pipe is checked here, because a pipe can be read only once.
    pub(super) fn read(self) -> Result<Box<dyn BufRead>, String> {
        let failed =
            |error: io::Error| format!("cannot read the recording {}: {}", self.name, printable::printable(error));
        let mut reader: Box<dyn BufRead> = match self.source {
            Source::Stdin => Box::new(io::stdin().lock()),
            Source::Path(path) => Box::new(BufReader::new(File::open(path).map_err(failed)?)),
            Source::Stream(file) => Box::new(BufReader::new(file)),
        };
        let mut start = Vec::with_capacity(FORMAT_BYTES);
        reader.by_ref().take(FORMAT_BYTES as u64).read_to_end(&mut start).map_err(failed)?;
        check_format(&start).map_err(|fault| foreign(&self.name, &fault))?;
        Ok(Box::new(io::Cursor::new(start).chain(reader)))
    }
}

fn foreign(name: &str, fault: &ForeignFormat) -> String {
    format!("cannot read the recording {name}: {fault}")
}
