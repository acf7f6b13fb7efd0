//! Images of the store as archives and layouts.

use rbuild_cache::ImageRecord;
use rbuild_types::{CancelToken, Ctx, Platform, Progress, Reference};

use super::push::descriptor;
use crate::export::archive::Parcel;
use crate::export::package::Package;
use crate::export::stored::{Chosen, StoredImage};
use crate::sources::image::ImageSource;
use crate::{BuildError, Encoding, Engine, ImageForm, Output, Pull};

/// What is saved, and as what.
#[derive(Debug, Clone)]
pub struct SaveRequest {
    /// Names or ids. A name without a tag stands for all its tags, as in Docker; an image that is
    /// named by its id has no name in the archive.
    pub images: Vec<String>,
    /// An archive or a layout.
    pub output: Output,
    /// Of an index, only the image for this platform. A `docker load` archive holds one in any case:
    /// without this, that for this machine.
    pub platform: Option<Platform>,
    /// The form of the layers; `None` is what is usual for the output: uncompressed for `docker
    /// load`, else gzip.
    pub form: Option<ImageForm>,
}

impl Engine {
    /// Writes images to one archive or layout.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchImage`], [`BuildError::Image`], [`BuildError::Io`].
    pub fn save_images(
        &self,
        request: &SaveRequest,
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        let ctx = Ctx::new(progress, cancel);
        let _lease = self.store.lease()?;
        let images = ImageSource::new(self, Pull::Missing, ctx);
        let is_docker = matches!(request.output, Output::DockerArchive(_));
        let usual = match is_docker {
            true => ImageForm { encoding: Encoding::Uncompressed, ..ImageForm::default() },
            false => ImageForm::default(),
        };
        let form = request.form.unwrap_or(usual);
        let chosen = match &request.platform {
            Some(platform) => Chosen::One(platform.clone()),
            None if is_docker => Chosen::Runs,
            None => Chosen::All,
        };
        let mut packages = Vec::new();
        for (record, names) in self.to_save(&request.images)? {
            let from = self.known_as(&record)?.into_iter().next();
            let image = StoredImage {
                top: descriptor(&record),
                from: &from.map_or_else(super::nameless, Ok)?,
                chosen: chosen.clone(),
            };
            packages.push((Package::stored(self, &image, &form, &images, ctx)?, names));
        }
        let parcel =
            Parcel(packages.iter().map(|(package, names)| (package, names.clone())).collect());
        match &request.output {
            Output::OciArchive(destination) => parcel.to_oci(destination, ctx),
            Output::OciLayout(path) => parcel.to_layout(path, ctx),
            Output::DockerArchive(destination) => parcel.to_docker(destination, ctx),
            _ => Err(BuildError::Request {
                message: "images are saved to archives and layouts".to_owned(),
            }),
        }
    }

    /// Images, each once, with the names that they were asked for by.
    fn to_save(&self, wanted: &[String]) -> Result<Vec<(ImageRecord, Vec<Reference>)>, BuildError> {
        let mut all: Vec<(ImageRecord, Vec<Reference>)> = Vec::new();
        for text in wanted {
            let mut found = Vec::new();
            if let Ok(name) = self.reference(text)
                && !Reference::is_exact(text)
            {
                let tags = self.tags_in(&name)?.into_iter();
                found.extend(tags.map(|(record, name)| (record, Some(name))));
            }
            if found.is_empty() {
                let record = self.find_image(text)?;
                // One that was named by its id has no name.
                let name = self.found_by(&record, text);
                found.push((record, name));
            }
            for (record, name) in found {
                let known = all
                    .iter_mut()
                    .find(|(known, _)| known.manifest_digest == record.manifest_digest);
                match known {
                    Some((_, names)) => names.extend(name.filter(|name| !names.contains(name))),
                    None => all.push((record, name.into_iter().collect())),
                }
            }
        }
        Ok(all)
    }
}
