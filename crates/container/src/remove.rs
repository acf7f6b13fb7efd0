//! Removes a container's directory.

use std::collections::BTreeMap;
use std::path::Path;

use rbuild_rooted::Root;
use serde::Deserialize;

use crate::ContainerError;
use crate::events::Event;

/// The engine's file that says what a container is.
const CONFIG: &str = "config.json";

/// What is said of a container when it goes.
#[derive(Default, Deserialize)]
struct Config {
    image: String,
    labels: BTreeMap<String, String>,
}

/// Removes the directory of a container, in which nothing is mounted. The caller holds its lock.
///
/// It goes in one step, by a rename into `tmp/` of the store, so that nobody sees half a container;
/// there the lock on the directory says that somebody is at it.
///
/// # Errors
///
/// [`ContainerError::File`] when it cannot be moved. What cannot be removed there, the next who opens
/// the store removes.
pub fn remove(directory: &Path) -> Result<(), ContainerError> {
    let (Some(containers), Some(name)) = (directory.parent(), directory.file_name()) else {
        return Ok(());
    };
    let failed =
        |source| ContainerError::File { action: "remove", path: directory.to_owned(), source };
    let tmp = containers.with_file_name("tmp");
    fs_err::create_dir_all(&tmp).map_err(failed)?;
    let held = fs_err::File::open(directory).map_err(failed)?;
    held.file().lock().map_err(failed)?;
    // One that was never made whole is none.
    let config = fs_err::read(directory.join(CONFIG)).ok();
    let gone = config.map(|config| {
        // What cannot be read is removed too.
        let config: Config = serde_json::from_slice(&config).unwrap_or_default();
        let image = ("image".to_owned(), config.image);
        let attributes = config.labels.into_iter().chain([image]).collect();
        Event::of_container(directory, "destroy").or_all(&attributes)
    });
    fs_err::rename(directory, tmp.join(name)).map_err(failed)?;
    if let Some(gone) = gone {
        gone.note_beside(directory);
    }
    let _ = Root::open(&tmp).and_then(|tmp| tmp.remove_all(name));
    Ok(())
}
