//! The cache of compiled components. Compilation takes seconds; loading takes milliseconds.
//!
//! A cache entry is machine code that enforces the sandbox, so it must be trustworthy. An entry is used only if this
//! user or root owns the file and its directory, no other user can write to them, and its checksum is right. Any other
//! entry is compiled again and replaced. The entry's name is a hash of the component, the runtime's version and the
//! engine's settings. The cache is optional. A failure of the cache is logged, and the component is compiled again.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// The place of the compile cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CompileCache {
    /// `boundary-usage` in the user's cache directory: the first of `$CACHE_DIRECTORY` (set by systemd),
    /// `$XDG_CACHE_HOME` and `~/.cache`. Disabled if none of these variables is set.
    #[default]
    User,
    /// This directory, which is created if it is missing.
    ///
    /// A directory to which other users can write is ignored.
    Directory(PathBuf),
    /// Disabled: compile every time.
    Off,
}

/// The length of the checksum before an entry's code, in bytes.
const CHECKSUM_BYTES: usize = 32;

/// The maximum length of an entry, in bytes.
const ENTRY_BYTES_MAX: u64 = 64 << 20;

impl CompileCache {
    /// Loads the component from the cache, or compiles and stores it.
    pub(super) fn compile(&self, engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Component> {
        let Some(directory) = self.directory() else {
            return Component::from_binary(engine, bytes);
        };
        let entry = directory.join(name(engine, bytes));
        if let Some(component) = load(engine, &directory, &entry) {
            return Ok(component);
        }
        let component = Component::from_binary(engine, bytes)?;
        if let Err(error) = store(&directory, &entry, &component) {
            tracing::debug!(entry = %entry.display(), %error, "cannot store the compiled component in the cache");
        }
        Ok(component)
    }

    fn directory(&self) -> Option<PathBuf> {
        let set = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
        match self {
            Self::User => {
                let parent = set("CACHE_DIRECTORY").or_else(|| set("XDG_CACHE_HOME"));
                let parent = parent.or_else(|| Some(set("HOME")?.join(".cache")));
                // A relative directory would depend on the working directory.
                parent.filter(|parent| parent.is_absolute()).map(|parent| parent.join("boundary-usage"))
            }
            Self::Directory(directory) => Some(directory.clone()),
            Self::Off => None,
        }
    }
}

fn name(engine: &Engine, bytes: &[u8]) -> String {
    let mut settings = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut settings);
    let hash = Sha256::new().chain_update(settings.finish().to_be_bytes()).chain_update(bytes).finalize();
    let hexadecimal: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hexadecimal}.compiled")
}

/// Loads an entry; returns `None` if it is missing or not trustworthy.
fn load(engine: &Engine, directory: &Path, entry: &Path) -> Option<Component> {
    let bytes = match read(directory, entry) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(entry = %entry.display(), %error, "cannot use the cached component; compiling it again");
            return None;
        }
    };
    deserialize(engine, &bytes[CHECKSUM_BYTES..])
        .inspect_err(|error| tracing::debug!(entry = %entry.display(), %error, "compiled for another runtime"))
        .ok()
}

#[allow(unsafe_code)]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: The code must come from `Component::serialize`. `read` has verified the checksum of the code, and that
    // only this user or root can have written the code. This user and root could also replace the program itself, so
    // they are trusted.
    unsafe { Component::deserialize(engine, code) }
}

/// Reads an entry and verifies its owner, mode and checksum.
fn read(directory: &Path, entry: &Path) -> io::Result<Vec<u8>> {
    check_trust(&std::fs::metadata(directory)?, "its directory")?;
    let mut file = File::open(entry)?;
    let metadata = file.metadata()?;
    check_trust(&metadata, "the file")?;
    if !metadata.is_file() || metadata.len() > ENTRY_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a cache entry"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    match bytes.split_first_chunk::<CHECKSUM_BYTES>() {
        Some((checksum, code)) if checksum[..] == Sha256::digest(code)[..] => Ok(bytes),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it is damaged")),
    }
}

fn store(directory: &Path, entry: &Path, component: &Component) -> Result<(), Box<dyn std::error::Error>> {
    let code = component.serialize()?;
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    check_trust(&std::fs::metadata(directory)?, "its directory")?;
    // The rename is atomic, so other processes see a complete entry or none. The temporary name is unique to this
    // process.
    let partial = entry.with_extension(format!("{}.partial", std::process::id()));
    let written = write(&partial, &code).and_then(|()| std::fs::rename(&partial, entry));
    if written.is_err() {
        // The next attempt overwrites a file that cannot be removed.
        let _ = std::fs::remove_file(&partial);
    }
    Ok(written?)
}

fn write(path: &Path, code: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&Sha256::digest(code))?;
    file.write_all(code)
}

/// Returns an error unless only this user or root can have written the file.
fn check_trust(metadata: &Metadata, what: &str) -> io::Result<()> {
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us && metadata.uid() != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{what} belongs to another user")));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("other users can write to {what}")));
    }
    Ok(())
}
