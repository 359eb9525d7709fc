//! The cache of compiled components is used only if other users cannot write to it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use boundary_usage::{CompileCache, CompileOptions, Plugin};

fn load(directory: &Path) {
    let cache = CompileCache::Directory(directory.to_owned());
    let options = CompileOptions { cache, ..CompileOptions::default() };
    let plugin = Plugin::with_options(Plugin::embedded_bytes(), &options).unwrap();
    assert_eq!(plugin.contract().exports, ["flush", "track"]);
}

/// Returns the files of a cache directory.
fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Returns the inode number, which changes when a file is replaced.
fn identity(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

#[test]
fn a_compiled_component_is_cached_and_a_damaged_entry_is_replaced() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("made/when/missing");
    load(&directory);
    let [entry] = &entries(&directory)[..] else { panic!("not one entry") };
    let (kept, whole) = (identity(entry), fs::read(entry).unwrap());
    for path in [entry, &directory] {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o077, 0, "{} is not private", path.display());
    }

    load(&directory);
    assert_eq!(identity(entry), kept, "a valid entry is not written again");

    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for damaged in [&damaged[..], &whole[..whole.len() / 2], b"short"] {
        fs::write(entry, damaged).unwrap();
        // The inode number of an older file may have been reused, so this compares with the damaged file only.
        let damaged = identity(entry);
        load(&directory);
        assert_eq!(fs::read(entry).unwrap().len(), whole.len());
        assert_ne!(identity(entry), damaged, "a damaged entry is replaced");
    }
    assert_eq!(entries(&directory).len(), 1, "the directory has only the entry");
}

#[test]
fn entries_that_other_users_can_write_to_are_not_trusted() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    load(directory.path());
    assert!(entries(directory.path()).is_empty(), "nothing is cached where other users can write");

    fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
    load(directory.path());
    let [entry] = &entries(directory.path())[..] else { panic!("not one entry") };
    let kept = identity(entry);
    fs::set_permissions(entry, Permissions::from_mode(0o666)).unwrap();
    load(directory.path());
    assert_ne!(identity(entry), kept, "an entry that other users can write to is replaced");
}
