//! Compiled components, kept between processes: to compile one takes seconds, to load it milliseconds.
//!
//! What is loaded is machine code, and runs outside the sandbox that it is supposed to be. So an entry counts only if
//! nobody but this user and root can have written it, directory included, and if its checksum holds; everything else is
//! compiled anew and replaced. Its name is a hash of the component, of the runtime's version and of the engine's
//! settings: a change of any of them is another entry. The cache is never needed: what fails here costs time and a line
//! in the log.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Where compiled components are kept between processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CompileCache {
    /// `boundary-usage` in the user's cache directory: `$CACHE_DIRECTORY` (systemd sets it), `$XDG_CACHE_HOME` or
    /// `~/.cache`, the first that there is. None when there is none of them.
    #[default]
    User,
    /// This directory. It is made when missing; one that others than its owner can write to is not used.
    Directory(PathBuf),
    /// Nowhere: compile every time.
    Off,
}

/// The checksum in front of an entry's code, in bytes.
const CHECKSUM_BYTES: usize = 32;

/// An entry that is longer is not one of ours, in bytes.
const ENTRY_BYTES_MAX: u64 = 64 << 20;

impl CompileCache {
    /// The component, loaded if it has been compiled before; else compiled, and kept for the next time.
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
            tracing::debug!(entry = %entry.display(), %error, "the compiled component is not kept");
        }
        Ok(component)
    }

    fn directory(&self) -> Option<PathBuf> {
        let set = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
        match self {
            Self::User => {
                let parent = set("CACHE_DIRECTORY").or_else(|| set("XDG_CACHE_HOME"));
                let parent = parent.or_else(|| Some(set("HOME")?.join(".cache")));
                // A relative directory would depend on where the process happens to run.
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

/// `None` when there is no entry, or none that can be trusted.
fn load(engine: &Engine, directory: &Path, entry: &Path) -> Option<Component> {
    let bytes = match read(directory, entry) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(entry = %entry.display(), %error, "the compiled component is not used, and is compiled anew");
            return None;
        }
    };
    deserialize(engine, &bytes[CHECKSUM_BYTES..])
        .inspect_err(|error| tracing::debug!(entry = %entry.display(), %error, "compiled for another runtime"))
        .ok()
}

#[allow(unsafe_code)]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the code must be what `Component::serialize` has made. `read` has seen that only this user or root can have
    // written it, which this process trusts with its own program too, and that it is whole, by its checksum.
    unsafe { Component::deserialize(engine, code) }
}

/// The entry, if it can be trusted.
fn read(directory: &Path, entry: &Path) -> io::Result<Vec<u8>> {
    check_trust(&std::fs::metadata(directory)?, "its directory")?;
    let mut file = File::open(entry)?;
    let metadata = file.metadata()?;
    check_trust(&metadata, "the file")?;
    if !metadata.is_file() || metadata.len() > ENTRY_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a file of ours"));
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
    // Written aside and renamed: another process sees the whole entry or none. The name is this process's own.
    let partial = entry.with_extension(format!("{}.partial", std::process::id()));
    let written = write(&partial, &code).and_then(|()| std::fs::rename(&partial, entry));
    if written.is_err() {
        // What cannot be removed is overwritten the next time.
        let _ = std::fs::remove_file(&partial);
    }
    Ok(written?)
}

fn write(path: &Path, code: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&Sha256::digest(code))?;
    file.write_all(code)
}

/// Whether only this user or root can have written it.
fn check_trust(metadata: &Metadata, what: &str) -> io::Result<()> {
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us && metadata.uid() != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{what} belongs to another user")));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{what} can be written to by others")));
    }
    Ok(())
}
