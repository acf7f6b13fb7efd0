//! Annotations: texts on the documents of an image, which are not in its config.
//!
//! BuildKit's four places (its `docs/annotations.md`). Those for one platform count more than those
//! for all, and later ones more than earlier ones.

use rbuild_image::manifest::Annotations;
use rbuild_types::Platform;

use crate::BuildError;

/// One text, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// The document or descriptor.
    pub place: AnnotationPlace,
    /// The image that it is for; `None` for all.
    pub platform: Option<Platform>,
    /// Its name, such as `org.opencontainers.image.title`.
    pub name: String,
    /// Its text.
    pub value: String,
}

/// What is annotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnotationPlace {
    /// The manifest of an image.
    Manifest,
    /// What names that manifest: in the index of several images, else in the layout.
    ManifestDescriptor,
    /// The index of several images.
    Index,
    /// What names that index, in a layout.
    IndexDescriptor,
}

/// The annotations of one place.
pub(crate) fn of(
    all: &[Annotation],
    place: AnnotationPlace,
    platform: Option<&Platform>,
) -> Annotations {
    let here = || all.iter().filter(|one| one.place == place);
    let general = here().filter(|one| one.platform.is_none());
    let special = here().filter(|one| one.platform.is_some() && one.platform.as_ref() == platform);
    general.chain(special).map(|one| (one.name.clone(), one.value.clone())).collect()
}

/// Refuses what would stand nowhere, given the platforms that are built.
pub(crate) fn check<'a>(
    all: impl Iterator<Item = &'a Annotation>,
    platforms: &[Platform],
    is_index: bool,
) -> Result<(), BuildError> {
    let needs_index = |one: &Annotation| {
        matches!(one.place, AnnotationPlace::Index | AnnotationPlace::IndexDescriptor)
    };
    for one in all {
        let name = &one.name;
        if !is_index && needs_index(one) {
            let message = format!(
                "annotation {name:?} is for an index, and an image for one platform has none: name \
                 several platforms, or annotate the manifest"
            );
            return Err(BuildError::Request { message });
        }
        if let Some(platform) = one.platform.as_ref().filter(|it| !platforms.contains(it)) {
            let built: Vec<_> = platforms.iter().map(ToString::to_string).collect();
            let built = built.join(", ");
            let message =
                format!("annotation {name:?} is for {platform}, and what is built is for {built}");
            return Err(BuildError::Request { message });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_special_one_counts_more() {
        let one = |place, platform: Option<&str>, value: &str| Annotation {
            place,
            platform: platform.map(|text| text.parse().unwrap()),
            name: "a".to_owned(),
            value: value.to_owned(),
        };
        use AnnotationPlace::{Index, Manifest};
        let all = [
            one(Manifest, Some("linux/arm64"), "arm"),
            one(Manifest, None, "all"),
            one(Index, None, "index"),
        ];
        let value = |place, platform: &str| {
            of(&all, place, Some(&platform.parse().unwrap())).get("a").cloned()
        };
        assert_eq!(value(Manifest, "linux/arm64").as_deref(), Some("arm"));
        assert_eq!(value(Manifest, "linux/amd64").as_deref(), Some("all"));
        assert_eq!(value(Index, "linux/amd64").as_deref(), Some("index"));
        let arm = ["linux/arm64".parse().unwrap()];
        assert!(check(all.iter(), &arm, true).is_ok());
        assert!(check(all[..2].iter(), &arm, false).is_ok());
        assert!(check(all.iter(), &arm, false).unwrap_err().to_string().contains("\"a\""));
        let elsewhere = ["linux/amd64".parse().unwrap()];
        let error = check(all.iter(), &elsewhere, true).unwrap_err().to_string();
        assert!(error.contains("linux/arm64") && error.contains("linux/amd64"), "{error}");
    }
}
