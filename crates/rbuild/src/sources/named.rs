//! Named contexts of a request, sorted by what looks after them: the plan knows names, the solver
//! directories, the image source layouts.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use rbuild_plan::{ContextOptions, NamedContext, NamedContexts, Options, RemoteContext};
use rbuild_sandbox::linux::binfmt::Emulators;
use rbuild_types::Reference;

use super::layout::LayoutImage;
use crate::{BuildError, BuildRequest, NamedContextInput};

/// The named contexts of one build.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// For the plan.
    pub(crate) names: NamedContexts,
    /// Directories by name.
    pub(crate) directories: BTreeMap<String, PathBuf>,
    /// Images of layouts by the repository that stands for them.
    pub(crate) layouts: HashMap<String, LayoutImage>,
}

impl Named {
    /// The options of the plan: those of the request, and what only this machine knows.
    pub(crate) fn options(&self, request: &BuildRequest, emulators: &Emulators) -> Options {
        Options {
            contexts: self.names.clone(),
            emulated_platforms: emulators.platforms(),
            ..request.options.clone()
        }
    }
}

/// A host that no registry can have (RFC 2606): it stands for a layout where a reference is asked
/// for.
const LAYOUT_HOST: &str = "oci-layout.invalid";

/// Sorts the named contexts of a request.
pub(crate) fn settle(request: &BuildRequest) -> Result<Named, BuildError> {
    let mut named = Named::default();
    for (number, (name, input)) in request.contexts.iter().enumerate() {
        let subject = format!("build context {name}");
        let bad = |message: String| BuildError::Request { message };
        let context = match input {
            NamedContextInput::Directory(_) => NamedContext::Local,
            NamedContextInput::Image(image) if image == "scratch" => NamedContext::Scratch,
            NamedContextInput::Image(image) => {
                let reference =
                    image.parse().map_err(|error| bad(format!("{subject}: {error}")))?;
                NamedContext::Image { reference, shown: None }
            }
            NamedContextInput::OciLayout { path, tag, digest } => {
                let text = format!("{LAYOUT_HOST}/{number}");
                let reference: Reference =
                    text.parse().map_err(|error| bad(format!("{subject}: {error}")))?;
                let image = LayoutImage::new(path.clone(), tag.clone(), *digest);
                let shown = Some(image.to_string());
                named.layouts.insert(reference.repository(), image);
                NamedContext::Image { reference, shown }
            }
            NamedContextInput::Git(url) | NamedContextInput::Http(url) => {
                let parsed = RemoteContext::parse(url, ContextOptions::default());
                let parsed = parsed.map_err(|error| bad(format!("{subject}: {error}")))?;
                NamedContext::Remote(parsed.ok_or_else(|| {
                    bad(format!("{subject}: {url} is neither a git repository nor a URL"))
                })?)
            }
            NamedContextInput::Target(target) => {
                let message = format!(
                    "{subject}: target:{target} is not supported yet: targets of bake files are \
                     not known here; build that image and name it with docker-image://"
                );
                return Err(bad(message));
            }
        };
        let canonical =
            named.names.insert(name, context).map_err(|error| bad(error.to_string()))?;
        named.directories.remove(&canonical);
        if let NamedContextInput::Directory(path) = input {
            named.directories.insert(canonical, path.clone());
        }
    }
    Ok(named)
}
