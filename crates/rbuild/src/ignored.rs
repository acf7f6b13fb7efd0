//! The ignore file, for checks: they read it without opening the context for a build.

use std::path::{Path, PathBuf};

use rbuild_parser::ignore_file::Patterns;
use rbuild_rooted::Root;
use rbuild_types::Diagnostic;

use crate::{BuildError, BuildRequest, ContextInput, DockerfileInput};

/// Largest ignore file, in bytes.
const MAX_TEXT: u64 = 16 << 20;

/// The rules for the context of a request; `dockerfile` is the name of its Dockerfile.
pub(crate) fn patterns(request: &BuildRequest, dockerfile: &str) -> Result<Patterns, BuildError> {
    let ContextInput::Directory(directory) = &request.context else {
        return Ok(Patterns::default());
    };
    for path in candidates(request, directory, dockerfile) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let parent = if parent == Path::new("") { Path::new(".") } else { parent };
        // Nobody named this file, so it may be a stranger's link and must not lead elsewhere.
        match Root::open(parent)?.read_small(name, MAX_TEXT) {
            Ok(bytes) => return parse(name.to_string_lossy().into_owned(), &bytes),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Patterns::default())
}

/// Where it may be: the one of the Dockerfile comes first.
fn candidates(request: &BuildRequest, directory: &Path, dockerfile: &str) -> Vec<PathBuf> {
    let beside = match &request.dockerfile {
        DockerfileInput::Path(path) => {
            let mut name = path.file_name().unwrap_or_default().to_os_string();
            name.push(".dockerignore");
            Some(path.with_file_name(name))
        }
        DockerfileInput::Default => Some(directory.join(format!("{dockerfile}.dockerignore"))),
        DockerfileInput::Text { .. } => None,
    };
    let plain = [".dockerignore", ".containerignore"].map(|name| directory.join(name));
    beside.into_iter().chain(plain).collect()
}

fn parse(name: String, bytes: &[u8]) -> Result<Patterns, BuildError> {
    let source_text = String::from_utf8_lossy(bytes).into_owned();
    let (patterns, diagnostics) = Patterns::parse(&source_text);
    match diagnostics.iter().any(Diagnostic::is_error) {
        true => Err(BuildError::Dockerfile { name, source_text, diagnostics }),
        false => Ok(patterns),
    }
}
