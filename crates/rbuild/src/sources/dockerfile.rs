//! Finding and reading the Dockerfile.
//!
//! It may be a stranger's: files are opened without waiting for a writer, must be regular, and
//! are read up to a limit.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rbuild_rooted::Root;

use super::context::{Opened, Origin, failed};
use crate::{BuildError, BuildRequest, DockerfileInput};

/// Largest Dockerfile or ignore file, in bytes.
pub(super) const MAX_TEXT: u64 = 16 << 20;

/// Names that are tried, in this order.
const DOCKERFILES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// A Dockerfile's text.
#[derive(Debug)]
pub(crate) struct Text {
    /// Its name in messages.
    pub(crate) name: String,
    /// The text; bytes that are no UTF-8 have become U+FFFD.
    pub(crate) text: String,
    /// Where it was read from, when that is a file of the host.
    pub(super) path: Option<PathBuf>,
}

impl Text {
    /// What a URL gave that is no archive.
    pub(super) fn alone(name: String, bytes: &[u8]) -> Result<Self, BuildError> {
        if bytes.len() as u64 > MAX_TEXT {
            let message = format!("{name} is neither a tar nor a Dockerfile: it is too long");
            return Err(BuildError::Request { message });
        }
        Ok(Self { name, text: String::from_utf8_lossy(bytes).into_owned(), path: None })
    }
}

/// Finds and reads the Dockerfile.
pub(crate) fn read_dockerfile(
    request: &BuildRequest,
    opened: &mut Opened,
) -> Result<Text, BuildError> {
    let bad = |message: String| BuildError::Request { message };
    let main = opened.main.as_ref();
    let (name, path, bytes) = match &request.dockerfile {
        DockerfileInput::Text { name, text } => {
            return Ok(Text { name: name.clone(), text: text.clone(), path: None });
        }
        // As people know it; a path as they wrote it.
        DockerfileInput::Path(path) => match (main, &opened.lone) {
            (_, Some(lone)) => {
                let path = path.display();
                return Err(bad(format!(
                    "{} is a Dockerfile by itself, so there is no place to find {path} in",
                    lone.name
                )));
            }
            (Some(main), _) if main.holds(path) => {
                let bytes = main.root.read_small(path, MAX_TEXT).map_err(|error| {
                    let (path, shown) = (path.display(), &main.shown);
                    bad(format!("failed to read dockerfile: {path} of {shown}: {error}"))
                })?;
                (path.display().to_string(), None, bytes)
            }
            _ => {
                let bytes =
                    read_regular(path).map_err(failed("cannot read the Dockerfile", path))?;
                (path.display().to_string(), Some(path.clone()), bytes)
            }
        },
        DockerfileInput::Default => {
            if let Some(lone) = opened.lone.take() {
                return Ok(lone);
            }
            let Some(main) = main else {
                let message = "there is neither a Dockerfile nor a directory to find one in";
                return Err(bad(message.to_owned()));
            };
            let (name, bytes) = read_default(&main.root, &main.shown)?;
            let directory = main.path.as_ref().filter(|_| main.origin == Origin::Directory);
            (name.to_owned(), directory.map(|path| path.join(name)), bytes)
        }
    };
    Ok(Text { name, text: String::from_utf8_lossy(&bytes).into_owned(), path })
}

fn read_default(root: &Root, shown: &str) -> Result<(&'static str, Vec<u8>), BuildError> {
    for name in DOCKERFILES {
        match root.read_small(name, MAX_TEXT) {
            Ok(bytes) => return Ok((name, bytes)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(BuildError::Request {
        message: format!(
            "failed to read dockerfile: there is no Dockerfile in {shown}; name one with -f"
        ),
    })
}

/// Reads a regular file of limited size.
pub(crate) fn read_regular(path: &Path) -> std::io::Result<Vec<u8>> {
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
