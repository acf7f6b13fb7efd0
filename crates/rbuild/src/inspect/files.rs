//! Images that are in archives and layouts and not in the store.

use rbuild_image::manifest::Descriptor;
use rbuild_types::Ctx;

use crate::images::Wanted;
use crate::sources::layout::LayoutImage;
use crate::{BuildError, Engine, LoadSource, NamedContextInput};

/// Brings the bytes of the image into the store that a text names by the transports of skopeo and
/// podman, or by BuildKit's for layouts. `None` for a text that names none of them. The caller has
/// a lease, which is all that keeps the bytes.
pub(super) fn read(
    engine: &Engine,
    text: &str,
    ctx: Ctx<'_>,
) -> Result<Option<Descriptor>, BuildError> {
    let Some((transport, place)) = text.split_once(':') else { return Ok(None) };
    let (path, name) = match place.split_once(':') {
        Some((path, name)) => (path, Some(name.to_owned())),
        None => (place, None),
    };
    let archive = |path: &str, name| {
        let wanted = Wanted { name, platform: None };
        engine.gather(LoadSource::Path(path.into()), wanted, ctx)
    };
    let gathered = match transport {
        "oci-layout" => match NamedContextInput::parse(text)? {
            NamedContextInput::OciLayout { path, tag, digest } => {
                engine.gather_of_layout(&LayoutImage::new(path, tag, digest), ctx)
            }
            _ => return Ok(None),
        },
        "oci" => engine.gather_of_layout(&LayoutImage::new(path.into(), name, None), ctx),
        "oci-archive" | "docker-archive" => archive(path, name),
        "dir" => archive(place, None),
        _ => return Ok(None),
    };
    gathered?.only_one().map(Some).map_err(|error| match error {
        BuildError::Request { message } => {
            BuildError::Request { message: format!("{text}: {message}") }
        }
        error => error,
    })
}
