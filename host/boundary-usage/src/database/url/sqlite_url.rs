//! SQLite URLs: `sqlite:PATH`, optionally with `?mode=rwc` or `?mode=rw`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{percent_decode, wrong};
use crate::error::Error;

/// A parsed SQLite URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::database) struct SqliteUrl {
    /// The path of the file.
    pub(in crate::database) path: PathBuf,
    /// Whether a missing file is created.
    pub(in crate::database) create: bool,
}

/// Parses a SQLite URL and checks its path, without opening the file.
pub(in crate::database) fn sqlite(url: &str) -> Result<SqliteUrl, Error> {
    let rest = url.strip_prefix("sqlite:").unwrap_or(url);
    let (encoded, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let encoded = match encoded.strip_prefix("//") {
        // The messages below show the URL. A URL meant for PostgreSQL may contain a password.
        Some(path) if path.split('/').next().is_some_and(|authority| authority.contains('@')) => {
            return Err(wrong("a SQLite URL has no user, password or host; expected `sqlite:PATH`".to_owned()));
        }
        Some(path) => path,
        None => encoded,
    };
    let path = decoded(encoded)?;
    let create = match parameters {
        "" | "mode=rwc" => true,
        "mode=rw" => false,
        _ => {
            return Err(wrong(format!(
                "`sqlite:{encoded}`: the only parameters are `mode=rwc` (the default) and `mode=rw`"
            )));
        }
    };
    check(&path)?;
    Ok(SqliteUrl { path, create })
}

fn decoded(encoded: &str) -> Result<PathBuf, Error> {
    let path = String::from_utf8(percent_decode(encoded).bytes);
    let path = path.map_err(|_| wrong(format!("`sqlite:{encoded}`: the path is not UTF-8 when it is decoded")))?;
    if path.contains('\0') {
        return Err(wrong(format!("`sqlite:{encoded}`: the path contains a zero byte")));
    }
    if path.is_empty() || path == ":memory:" {
        let message = "a SQLite database must be a file, or its connections would each have a database of their own";
        return Err(wrong(format!("the SQLite URL names no file: {message}; expected `sqlite:PATH`")));
    }
    // SQLite would parse such a name as a URI with parameters.
    if path.starts_with("file:") {
        return Err(wrong(format!("`sqlite:{encoded}`: a path must not begin with `file:`; write `./file:…`")));
    }
    Ok(path.into())
}

/// Checks that the path is a regular file, or a missing file in an existing directory.
fn check(path: &Path) -> Result<(), Error> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(file) if file.is_dir() => {
            return Err(wrong(format!("`{shown}` is a directory; name a file in it, such as `{shown}/usage.db`")));
        }
        Ok(file) if !file.is_file() => return Err(wrong(format!("`{shown}` is not a regular file; name one"))),
        Ok(_) => return Ok(()),
        // SQLite creates a missing file, and reports other faults when it opens the file.
        Err(_) => {}
    }
    let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) else { return Ok(()) };
    let shown = directory.display();
    match std::fs::metadata(directory) {
        Ok(directory) if directory.is_dir() => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(wrong(format!("there is no directory `{shown}`; create it, or correct the path")))
        }
        Ok(_) => Err(wrong(format!("`{shown}` is not a directory; correct the path"))),
        Err(error) => Err(wrong(format!("cannot read the directory `{shown}`: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_paths_are_relative_or_absolute_with_and_without_slashes() {
        for (url, path) in [
            ("sqlite:usage.db", "usage.db"),
            ("sqlite://usage.db", "usage.db"),
            ("sqlite:/tmp/usage.db", "/tmp/usage.db"),
            ("sqlite:///tmp/usage.db", "/tmp/usage.db"),
            ("sqlite:usage.db?mode=rwc", "usage.db"),
            ("sqlite:my%20usage.db", "my usage.db"),
            ("sqlite:sqlite:x", "sqlite:x"),
        ] {
            assert_eq!(sqlite(url).unwrap(), SqliteUrl { path: path.into(), create: true }, "{url}");
        }
        assert!(!sqlite("sqlite:usage.db?mode=rw").unwrap().create);
    }

    #[test]
    fn databases_in_memory_and_missing_directories_are_refused() {
        let refused = ["sqlite:", "sqlite::memory:", "sqlite://:memory:", "sqlite:x?mode=memory", "sqlite:x?mode=ro"];
        let encoded = ["sqlite:%3Amemory:", "sqlite:file%3Ax", "sqlite:a%00b", "sqlite:%FF"];
        let paths = ["sqlite:file:x?mode=rwc", "sqlite:no/such/directory/usage.db", "sqlite:/tmp"];
        for url in refused.into_iter().chain(encoded).chain(paths) {
            assert!(matches!(sqlite(url), Err(Error::Configuration { .. })), "{url}");
        }
    }

    #[test]
    fn errors_of_unusable_paths_have_a_reason() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(check(&file).is_ok() && check(&directory.path().join("new.db")).is_ok());
        for (path, reason) in [
            (directory.path().to_owned(), "is a directory"),
            ("/dev/null".into(), "is not a regular file"),
            (directory.path().join("missing/usage.db"), "there is no directory"),
            (file.join("usage.db"), "is not a directory"),
            (file.join("deeper/usage.db"), "cannot read the directory"),
        ] {
            let message = check(&path).unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
        }
    }

    #[test]
    fn messages_do_not_show_a_password() {
        for url in ["sqlite://u:hunter2@h/d", "sqlite://u:hunter2@h", "sqlite:x.db?key=hunter2"] {
            let message = sqlite(url).unwrap_err().to_string();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
