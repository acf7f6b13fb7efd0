//! Base images: what they are, and what is said when they are not there.

use rbuild_parser::lint::rules::INVALID_BASE_IMAGE_PLATFORM;
use rbuild_parser::suggest;
use rbuild_types::{Diagnostic, ImageConfig, Platform, Reference, ReferenceError, Span};

use super::Lowering;
use super::stage::State;
use crate::image_configs::{ImageError, ResolvedImage};

impl Lowering<'_> {
    /// The state upon an image.
    pub(super) fn state_of(&self, image: &ResolvedImage, platform: Platform) -> State {
        let knows_base = !self.unknown_images.contains(&image.reference);
        State { knows_base, ..State::of_image(image, platform) }
    }

    /// The platform of a stage that asks for none. When nobody else asks for one either, a base
    /// that this machine can run decides.
    pub(super) fn platform_upon(&self, image: &ResolvedImage) -> Platform {
        let same = |platform: &&Platform| {
            platform.os == image.platform.os && platform.architecture == image.platform.architecture
        };
        let implicit = self.options.platforms.is_empty() && !same(&&self.platform);
        let emulated = self.options.emulated_platforms.iter().find(same).filter(|_| implicit);
        emulated.unwrap_or(&self.platform).clone()
    }

    /// The image `name`.
    pub(super) fn image(
        &mut self,
        name: &str,
        platform: &Platform,
        span: Span,
        index: usize,
    ) -> Result<ResolvedImage, Diagnostic> {
        let reference = self
            .images
            .reference(name)
            .map_err(|error| self.wrong_reference(name, &error, span, index))?;
        let subject = reference.to_string();
        self.image_of(name, &subject, reference, platform, span, index)
    }

    /// The image that `reference` names, which the Dockerfile knows as `name` and messages as
    /// `subject`; asked for once.
    pub(super) fn image_of(
        &mut self,
        name: &str,
        subject: &str,
        reference: Reference,
        platform: &Platform,
        span: Span,
        index: usize,
    ) -> Result<ResolvedImage, Diagnostic> {
        let key = (reference, platform.clone());
        if let Some(image) = self.known_images.get(&key) {
            return Ok(image.clone());
        }
        let image = match self.images.config(&key.0, platform) {
            Ok(image) => image,
            Err(ImageError::NotAsked) => self.unknown_image(&key.0, platform),
            Err(error) => return Err(self.no_image(name, subject, &error, span, index)),
        };
        self.known_images.insert(key, image.clone());
        Ok(image)
    }

    /// What stands in for an image that nobody was asked for: it sets nothing.
    fn unknown_image(&mut self, reference: &Reference, platform: &Platform) -> ResolvedImage {
        self.unknown_images.insert(reference.clone());
        let config = ImageConfig {
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            ..ImageConfig::default()
        };
        ResolvedImage { reference: reference.clone(), platform: platform.clone(), config }
    }

    fn wrong_reference(
        &self,
        name: &str,
        error: &ReferenceError,
        span: Span,
        index: usize,
    ) -> Diagnostic {
        let message = format!("failed to parse stage name {name:?}: {error}");
        self.help_stage(name, index, Diagnostic::error("invalid-reference", span, message))
    }

    fn no_image(
        &self,
        name: &str,
        subject: &str,
        error: &ImageError,
        span: Span,
        index: usize,
    ) -> Diagnostic {
        let message = format!("failed to resolve source metadata for {subject}: {error}");
        match error {
            ImageError::NotFound { .. } => {
                self.help_stage(name, index, Diagnostic::error("image", span, message))
            }
            ImageError::Platform { available, .. } if !available.is_empty() => {
                let names: Vec<_> = available.iter().map(Platform::to_string).collect();
                let help = format!("the image has: {}", names.join(", "));
                Diagnostic::error("platform", span, message).help(help)
            }
            ImageError::Platform { .. } => Diagnostic::error("platform", span, message),
            ImageError::NotAsked | ImageError::Other { .. } => {
                Diagnostic::error("image", span, message)
            }
        }
    }

    /// Where a name was no image, a stage was perhaps meant.
    fn help_stage(&self, name: &str, index: usize, error: Diagnostic) -> Diagnostic {
        let lower = name.to_lowercase();
        if let Some(stage) = self.stages.by_name(&lower) {
            let span = self.dockerfile.stages[stage].span;
            return if stage < index {
                let stage = self.stages.name(stage);
                error.label(span, "this stage").help(format!("did you mean `{stage}`?"))
            } else {
                error
                    .label(span, "a stage of that name is defined only here")
                    .help("move the stage above the one that uses it")
            };
        }
        match suggest(&lower, self.stages.names_before(index)) {
            Some(stage) => error.help(format!("did you mean the stage `{stage}`?")),
            None => error,
        }
    }

    pub(super) fn warn_platform(
        &mut self,
        name: &str,
        actual: &Platform,
        expected: &Platform,
        span: Span,
    ) {
        if actual.os != expected.os || actual.architecture != expected.architecture {
            let message = format!(
                "Base image {name} was pulled with platform \"{actual}\", expected \"{expected}\" \
                 for current build"
            );
            self.warnings.push(INVALID_BASE_IMAGE_PLATFORM.warning(span, message));
        }
    }
}
