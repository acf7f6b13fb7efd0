//! Ignore files: that of the Dockerfile, of the command line, of a directory.

use std::path::{Path, PathBuf};

use rbuild_parser::ignore_file::Patterns;
use rbuild_rooted::{Root, RootedError};
use rbuild_types::{Ctx, Diagnostic, Event};

use super::dockerfile::{MAX_TEXT, read_regular};
use crate::BuildError;

/// Names at the root of a directory, in this order.
const NAMES: [&str; 2] = [".dockerignore", ".containerignore"];

/// Rules and the file that they are from.
#[derive(Debug, Default)]
pub(crate) struct IgnoreFile {
    pub(crate) name: String,
    /// Where it lies on the host, unless it is the file of a directory.
    pub(crate) path: Option<PathBuf>,
    pub(crate) patterns: Patterns,
}

/// The file that a user named.
pub(crate) fn of_user(path: &Path, ctx: Ctx<'_>) -> Result<IgnoreFile, BuildError> {
    let bytes = read_regular(path).map_err(|source| BuildError::Input {
        what: "cannot read the ignore file",
        path: path.to_owned(),
        source,
    })?;
    let parsed = parse(path.display().to_string(), &bytes, ctx)?;
    Ok(IgnoreFile { path: Some(lasting(path)), ..parsed })
}

/// A path that means the same from every directory. What has no real path, as a pipe has none, is
/// not there later, which must not make another file of it.
pub(super) fn lasting(path: &Path) -> PathBuf {
    let real = fs_err::canonicalize(path).or_else(|_| std::path::absolute(path));
    real.unwrap_or_else(|_| path.to_owned())
}

/// The file beside the Dockerfile if there is one, else that of the directory.
pub(crate) fn of_build(
    root: &Root,
    dockerfile: Option<&Path>,
    ctx: Ctx<'_>,
) -> Result<IgnoreFile, BuildError> {
    if let Some(path) = dockerfile {
        // Nobody named this file, so it may be a stranger's link and must not lead elsewhere.
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".dockerignore");
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        if let Some(bytes) = read(&Root::open(parent)?, &name)? {
            let parsed = parse(name.to_string_lossy().into_owned(), &bytes, ctx)?;
            return Ok(IgnoreFile { path: Some(lasting(&parent.join(name))), ..parsed });
        }
    }
    of_directory(root, ctx)
}

/// The file at the root of a directory; no rules without one.
pub(crate) fn of_directory(root: &Root, ctx: Ctx<'_>) -> Result<IgnoreFile, BuildError> {
    for name in NAMES {
        if let Some(bytes) = read(root, name.as_ref())? {
            return parse(name.to_owned(), &bytes, ctx);
        }
    }
    Ok(IgnoreFile::default())
}

fn read(root: &Root, name: &std::ffi::OsStr) -> Result<Option<Vec<u8>>, RootedError> {
    match root.read_small(name, MAX_TEXT) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(name: String, bytes: &[u8], ctx: Ctx<'_>) -> Result<IgnoreFile, BuildError> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (patterns, diagnostics) = Patterns::parse(&text);
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(BuildError::Dockerfile { name, source_text: text, diagnostics });
    }
    for warning in diagnostics {
        let message = format!("{name}: {}", warning.message);
        ctx.report(Event::Notice { message });
    }
    Ok(IgnoreFile { name, path: None, patterns })
}

#[cfg(test)]
mod tests {
    use rbuild_types::{CancelToken, Silent};

    use super::*;

    #[test]
    fn the_file_beside_the_dockerfile_counts_before_those_of_the_directory() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let cancel = CancelToken::default();
        let dockerfile = folder.path().join("Dockerfile");
        let found = |dockerfile: Option<&Path>| {
            of_build(&root, dockerfile, Ctx::new(&Silent, &cancel)).unwrap().name
        };
        assert_eq!(found(Some(&dockerfile)), "");
        for name in [".containerignore", ".dockerignore", "Dockerfile.dockerignore"] {
            fs_err::write(folder.path().join(name), "a\n").unwrap();
            assert_eq!(found(Some(&dockerfile)), name);
        }
        assert_eq!(found(None), ".dockerignore");
        assert_eq!(found(Some(&folder.path().join("other"))), ".dockerignore");
    }
}
