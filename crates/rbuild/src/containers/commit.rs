//! `commit`: what a container changed becomes a layer upon its image.

use std::path::{Path, PathBuf};

use rbuild_container::{Connection as Wire, Status};
use rbuild_image::layer::{PackOptions, UnpackOptions, pack, unpack_layer};
use rbuild_rooted::{Follow, Root};
use rbuild_types::{
    CancelToken, Ctx, Digest, HealthConfig, ImageConfig, Platform, Silent, signal_name,
    signal_number,
};
use serde_json::json;

use super::process::{DEFAULT_PATH, TERM};
use super::{Container, ContainerRecord, health};
use crate::images::grow::{Base, ImageWords};
use crate::images::nameless;
use crate::sources::image::ImageSource;
use crate::{BuildError, Engine, Pull};

/// What stops a container when nobody says otherwise.
const SIGTERM: i32 = 15;

/// How a container is made an image.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    /// Name and words of the image.
    pub words: ImageWords,
    /// Whether the container is paused meanwhile.
    pub pause: bool,
}

impl Engine {
    /// Makes an image of a container: its image, with what it changed as a layer, and what it was
    /// started with; its id. What is mounted is no part of it. One that runs is paused meanwhile
    /// unless the request says no; then a file that gets shorter while it is read is an error.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchImage`] when its image was removed; [`BuildError::Request`] for changes
    /// that are none.
    pub fn commit(
        &self,
        container: &str,
        request: &CommitRequest,
        cancel: &CancelToken,
    ) -> Result<Digest, BuildError> {
        let ctx = Ctx::new(&Silent, cancel);
        let container = self.container(container)?;
        let record = container.record();
        let _lease = self.store.lease()?;
        let found = self.find_image(&record.image_id.to_string())?;
        let name = found.reference.map_or_else(nameless, Ok)?.with_digest(found.manifest_digest);
        let image = ImageSource::new(self, Pull::Never, ctx).resolve(&name, &Platform::host())?;
        if image.manifest.config.digest != record.image_id {
            return Err(BuildError::NoSuchImage { name: record.image.clone() });
        }
        let config = started_with(record, &image.config)?;
        let base = Base { image, layers: record.layers.clone() };
        let created_by = record.spec.argv.join(" ");
        let scratch = self.store.scratch("commit")?;
        let state = container.state()?;
        // It goes on with the end of this process too.
        let _held = match request.pause && state.status == Status::Running && !state.paused {
            true => {
                let held = Wire::open(&container.directory).and_then(Wire::hold);
                Some(container.done(held)?)
            }
            false => None,
        };
        let mut fill =
            |root: &Root| container.copy_changes(root, &scratch.path().join("layer.tar"), cancel);
        let id = self.grow(Some(base), config, &request.words, created_by, &mut fill, ctx)?;
        container.happened("commit");
        Ok(id)
    }
}

impl Container {
    /// Writes what it changed into an empty directory, by way of a file, because it may be larger
    /// than the memory.
    fn copy_changes(
        &self,
        into: &Root,
        by_way_of: &Path,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        let upper = self.upper();
        if !upper.exists() {
            return Ok(());
        }
        let io = |source| BuildError::Io { what: "copy a container's files".to_owned(), source };
        let made = self.all_changes(cancel)?.made;
        let mut file = fs_err::File::create_new(by_way_of).map_err(io)?;
        pack(&Root::open(upper)?, &PackOptions::default(), &mut file, cancel)?;
        let file = fs_err::File::open(by_way_of).map_err(io)?;
        let lower = Root::from_fd(rbuild_snapshot::view(&self.lowers()?)?);
        let mut file = std::io::BufReader::new(file);
        unpack_layer(&mut file, into, Some(&lower), &UnpackOptions::default(), cancel)?;
        made.iter().rev().try_for_each(|path| remove_made(into, path))
    }
}

/// Removes what was made to be mounted over; the time of the directory that it is in stays.
fn remove_made(tree: &Root, path: &Path) -> Result<(), BuildError> {
    let parent = path.parent().map(PathBuf::from).unwrap_or_default();
    let (Some(above), Some(found)) =
        (tree.stat(&parent, Follow::No)?, tree.stat(path, Follow::No)?)
    else {
        return Ok(());
    };
    match found.is_dir() {
        true => tree.remove_dir(path)?,
        false => tree.remove(path)?,
    }
    Ok(tree.set_times(&parent, above.mtime, above.mtime)?)
}

/// The image's config, with what its containers start with as this one was started. What is for
/// whoever builds upon the image stays behind, as in Docker.
fn started_with(
    record: &ContainerRecord,
    config_of_image: &ImageConfig,
) -> Result<ImageConfig, BuildError> {
    let (spec, image) = (&record.spec, &config_of_image.config);
    let entrypoint = image.entrypoint.clone().unwrap_or_default();
    let command = image.cmd.clone().unwrap_or_default();
    let mut config = image.clone();
    if spec.argv != [entrypoint.clone(), command].concat() {
        let (entrypoint, command) = match spec.argv.strip_prefix(entrypoint.as_slice()) {
            Some(command) => (image.entrypoint.clone(), command.to_vec()),
            // Another one was given.
            None => match spec.argv.split_first() {
                Some((program, arguments)) => (Some(vec![program.clone()]), arguments.to_vec()),
                None => (None, Vec::new()),
            },
        };
        config.entrypoint = entrypoint;
        config.cmd = Some(command).filter(|command| !command.is_empty());
    }
    // What every container has is of no image.
    let path = format!("PATH={DEFAULT_PATH}");
    let hostname = format!("HOSTNAME={}", spec.hostname);
    let own = |variable: &&String| {
        image.env.contains(variable)
            || !(**variable == path
                || **variable == hostname
                || spec.terminal && **variable == TERM)
    };
    config.env = spec.env.iter().filter(own).cloned().collect();
    config.user = spec.user.clone();
    if spec.cwd != "/" || !image.working_dir.is_empty() {
        config.working_dir = spec.cwd.clone();
    }
    config.labels = record.labels.clone();
    if record.stop.signal != signal_number(&image.stop_signal).unwrap_or(SIGTERM) {
        config.stop_signal = signal_name(record.stop.signal);
    }
    for port in &record.exposed {
        config.exposed_ports.entry(port.clone()).or_insert_with(|| json!({}));
    }
    if record.health != health::checks(&HealthConfig::default(), config_of_image)? {
        config.healthcheck = Some(health::config(record.health.as_ref()));
    }
    config.on_build.clear();
    Ok(ImageConfig { config, ..config_of_image.clone() })
}
