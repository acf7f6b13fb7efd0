//! Image configs: the last step from a build's result to the bytes that name the image.

use rbuild_types::{Digest, History, ImageConfig, RootFs};

use crate::error::ImageError;
use crate::json;

/// Puts the layers and the time into the config that the instructions made, and gives its bytes.
///
/// `config` is the plan's: history and all, base's history in front. History items that made a layer
/// must be as many as `diff_ids`; base images without any history (older tools wrote none) are
/// allowed. The bytes are canonical: no spaces, fields in a fixed order.
pub fn assemble(
    config: &ImageConfig,
    diff_ids: &[Digest],
    created: Option<&str>,
) -> Result<Vec<u8>, ImageError> {
    let layers = config.history.iter().filter(|item| !item.empty_layer).count();
    if layers != diff_ids.len() && !config.history.is_empty() {
        let problem = format!("history names {layers} layers, but there are {}", diff_ids.len());
        return Err(ImageError::document("image config", problem));
    }
    let mut config = config.clone();
    config.rootfs = RootFs { diff_ids: diff_ids.to_vec(), ..RootFs::default() };
    if let Some(created) = created {
        config.created = Some(created.to_owned());
    }
    json::bytes(&config, "image config")
}

/// The config of the same image whose layers, tar by tar, have these digests: the same bytes where
/// it says so already.
pub fn with_diff_ids(
    bytes: Vec<u8>,
    diff_ids: impl Iterator<Item = Digest>,
) -> Result<Vec<u8>, ImageError> {
    let mut config = parse_config(&bytes)?;
    let diff_ids: Vec<Digest> = diff_ids.collect();
    if config.rootfs.diff_ids == diff_ids {
        return Ok(bytes);
    }
    config.rootfs.diff_ids = diff_ids;
    json::bytes(&config, "image config")
}

/// Gives each layer an item of the history: some tools write none for those of a base. Where there
/// are more items than layers, the oldest had none, as BuildKit has it.
pub fn complete_history(config: &mut ImageConfig) {
    let layers = config.rootfs.diff_ids.len();
    let known = config.history.iter().filter(|item| !item.empty_layer).count();
    for _ in known..layers {
        let created = config.created.clone();
        config.history.push(History { created, ..History::default() });
    }
    let spare = known.saturating_sub(layers);
    for item in config.history.iter_mut().filter(|item| !item.empty_layer).take(spare) {
        item.empty_layer = true;
    }
}

/// Parses an image config from a stranger.
pub fn parse_config(bytes: &[u8]) -> Result<ImageConfig, ImageError> {
    json::parse(bytes, "image config")
}
