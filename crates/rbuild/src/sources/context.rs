//! The Dockerfile and the local build context.
//!
//! Both may be a stranger's: files are opened without waiting for a writer, must be regular, and
//! are read up to a limit; links in a context lead nowhere but inside it.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rbuild_cache::Store;
use rbuild_parser::ignore_file::Patterns;
use rbuild_rooted::Root;
use rbuild_solver::{Context, RememberedDigests};
use rbuild_types::{Ctx, Event};

use crate::{BuildError, BuildRequest, ContextInput, DockerfileInput};

/// Largest Dockerfile or ignore file, in bytes.
const MAX_TEXT: u64 = 16 << 20;

/// Names that are tried, in this order.
const DOCKERFILES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// A Dockerfile's text.
#[derive(Debug)]
pub(crate) struct Text {
    /// Its name in messages.
    pub(crate) name: String,
    /// The text; bytes that are no UTF-8 have become U+FFFD.
    pub(crate) text: String,
    /// Where it was read from.
    path: Option<PathBuf>,
}

/// Finds and reads the Dockerfile.
pub(crate) fn read_dockerfile(request: &BuildRequest) -> Result<Text, BuildError> {
    let (path, bytes) = match &request.dockerfile {
        DockerfileInput::Text { name, text } => {
            return Ok(Text { name: name.clone(), text: text.clone(), path: None });
        }
        DockerfileInput::Path(path) => {
            let bytes = read_regular(path).map_err(failed("cannot read the Dockerfile", path))?;
            (path.clone(), bytes)
        }
        DockerfileInput::Default => {
            let ContextInput::Directory(directory) = &request.context else {
                return Err(BuildError::Request {
                    message: "there is neither a Dockerfile nor a directory to find one in"
                        .to_owned(),
                });
            };
            let root = open_directory(directory)?;
            read_default(&root, directory)?
        }
    };
    let name = match &request.dockerfile {
        // As people know it; a path as they wrote it.
        DockerfileInput::Path(path) => path.display().to_string(),
        _ => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    Ok(Text { name, text: String::from_utf8_lossy(&bytes).into_owned(), path: Some(path) })
}

fn read_default(root: &Root, directory: &Path) -> Result<(PathBuf, Vec<u8>), BuildError> {
    for name in DOCKERFILES {
        match root.read_small(name, MAX_TEXT) {
            Ok(bytes) => return Ok((directory.join(name), bytes)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(BuildError::Request {
        message: format!(
            "failed to read dockerfile: there is no Dockerfile in {}; name one with -f",
            directory.display()
        ),
    })
}

/// Opens the context, if there is one.
pub(crate) fn open(
    store: &Store,
    request: &BuildRequest,
    text: &Text,
    ctx: Ctx<'_>,
) -> Result<Option<Context>, BuildError> {
    let ContextInput::Directory(directory) = &request.context else { return Ok(None) };
    let root = open_directory(directory)?;
    let path = fs_err::canonicalize(directory)
        .map_err(failed("cannot open the build context", directory))?;
    let ignore = match read_ignore_file(&root, text)? {
        None => Patterns::default(),
        Some((name, source_text)) => {
            let (patterns, diagnostics) = Patterns::parse(&source_text);
            if diagnostics.iter().any(rbuild_types::Diagnostic::is_error) {
                return Err(BuildError::Dockerfile { name, source_text, diagnostics });
            }
            for warning in diagnostics {
                let message = format!("{name}: {}", warning.message);
                ctx.report(Event::Notice { message });
            }
            patterns
        }
    };
    let stamps = RememberedDigests::new(store.stat_cache(&path.to_string_lossy())?);
    Ok(Some(Context { path, root, ignore, stamps }))
}

fn open_directory(directory: &Path) -> Result<Root, BuildError> {
    let failed = failed("cannot open the build context", directory);
    let metadata = fs_err::metadata(directory).map_err(&failed)?;
    if !metadata.is_dir() {
        return Err(failed(std::io::Error::other("it is not a directory")));
    }
    Ok(Root::open(directory)?)
}

/// The ignore file beside the Dockerfile if there is one, else that of the context.
fn read_ignore_file(root: &Root, text: &Text) -> Result<Option<(String, String)>, BuildError> {
    if let Some(path) = &text.path {
        // Nobody named this file, so it may be a stranger's link and must not lead elsewhere.
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".dockerignore");
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        match Root::open(parent)?.read_small(&name, MAX_TEXT) {
            Ok(bytes) => {
                let name = name.to_string_lossy().into_owned();
                return Ok(Some((name, String::from_utf8_lossy(&bytes).into_owned())));
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    for name in [".dockerignore", ".containerignore"] {
        match root.read_small(name, MAX_TEXT) {
            Ok(bytes) => {
                return Ok(Some((name.to_owned(), String::from_utf8_lossy(&bytes).into_owned())));
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

fn failed(what: &'static str, path: &Path) -> impl Fn(std::io::Error) -> BuildError {
    move |source| BuildError::Input { what, path: path.to_owned(), source }
}

/// Reads a regular file of limited size.
fn read_regular(path: &Path) -> std::io::Result<Vec<u8>> {
    // Opening a FIFO for reading would wait for a writer.
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_TEXT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(std::io::Error::other(format!("it is larger than {MAX_TEXT} bytes")));
    }
    Ok(bytes)
}
