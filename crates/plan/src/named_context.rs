//! Named contexts: what `--build-context` puts in the place of a stage, an image or a directory.

use std::collections::BTreeMap;

use rbuild_types::{Platform, Reference};

use crate::RemoteContext;

/// What a name of `--build-context` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory that the caller's world knows by the name of the context.
    Local,
    /// An image.
    Image {
        /// What is asked of [`crate::ImageConfigs`].
        reference: Reference,
        /// What steps show, where the reference says nothing to people.
        shown: Option<String>,
    },
    /// Files that lie elsewhere.
    Remote(RemoteContext),
    /// An empty root filesystem.
    Scratch,
}

/// Named contexts of one build. Names are compared as image names: `alpine`, `alpine:latest` and
/// `docker.io/library/alpine` are one.
#[derive(Debug, Clone, Default)]
pub struct NamedContexts(BTreeMap<String, NamedContext>);

/// Why a name cannot be that of a context.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContextNameError {
    /// It means something already.
    #[error("the build context {name:?} cannot be replaced: choose another name")]
    Reserved {
        /// The name.
        name: String,
    },
    /// It is neither a stage's nor an image's.
    #[error("invalid context name {name:?}: {problem}")]
    Invalid {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Between a name and the platform that it holds for.
const FOR_PLATFORM: &str = "::";

impl NamedContexts {
    /// Adds one, in the place of what had its name. Gives the name in its one form; a name may
    /// end with `::` and a platform, which is then the only one that it holds for.
    ///
    /// # Errors
    ///
    /// `context` and `scratch` mean something else, and what no `FROM` can hold is no name.
    pub fn insert(
        &mut self,
        name: &str,
        context: NamedContext,
    ) -> Result<String, ContextNameError> {
        let name = canonical(name)?;
        self.0.insert(name.clone(), context);
        Ok(name)
    }

    /// The context of that name, one for just this platform first, with its whole name.
    pub fn find(&self, name: &str, platform: &Platform) -> Option<(&str, &NamedContext)> {
        if self.0.is_empty() {
            return None;
        }
        let name = plain(name).ok()?;
        let platform =
            Platform::normalised(&platform.os, &platform.architecture, platform.variant.as_deref());
        let found = self
            .0
            .get_key_value(&format!("{name}{FOR_PLATFORM}{platform}"))
            .or_else(|| self.0.get_key_value(&name));
        found.map(|(name, context)| (name.as_str(), context))
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn canonical(name: &str) -> Result<String, ContextNameError> {
    let invalid = |problem: String| ContextNameError::Invalid { name: name.to_owned(), problem };
    let (word, platform) = match name.split_once(FOR_PLATFORM) {
        None => (name, None),
        Some((word, platform)) => {
            let platform: Platform =
                platform.parse().map_err(|error| invalid(format!("{error}")))?;
            (word, Some(platform))
        }
    };
    let word = plain(word).map_err(invalid)?;
    if matches!(word.as_str(), "context" | "scratch") {
        return Err(ContextNameError::Reserved { name: word });
    }
    Ok(match platform {
        None => word,
        Some(platform) => format!("{word}{FOR_PLATFORM}{platform}"),
    })
}

/// The short form of an image's name, without the tag that is the default.
fn plain(name: &str) -> Result<String, String> {
    let reference: Reference = name.parse().map_err(|error| format!("{error}"))?;
    let familiar = reference.familiar();
    Ok(familiar.strip_suffix(":latest").map(str::to_owned).unwrap_or(familiar))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str], name: &str, platform: &str) -> Option<String> {
        let mut contexts = NamedContexts::default();
        for name in names {
            contexts.insert(name, NamedContext::Local).unwrap();
        }
        let platform = platform.parse().unwrap();
        contexts.find(name, &platform).map(|(name, _)| name.to_owned())
    }

    #[test]
    fn a_name_has_one_form() {
        for (given, asked) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("docker.io/library/alpine:latest", "alpine"),
            ("alpine:latest", "alpine"),
            ("alpine:3", "library/alpine:3"),
        ] {
            assert!(found(&[given], asked, "linux/amd64").is_some(), "{given} {asked}");
        }
        assert_eq!(found(&["alpine"], "alpine:3", "linux/amd64"), None);
        assert_eq!(found(&["base"], "Base", "linux/amd64"), None);
    }

    #[test]
    fn a_context_for_the_platform_comes_first() {
        let names = ["base", "base::linux/arm64/v8", "base::arm/v7"];
        let find = |platform: &str| found(&names, "base", platform).unwrap();
        assert_eq!(find("linux/amd64"), "base");
        assert_eq!(find("linux/arm64"), "base::linux/arm64");
        assert_eq!(find("linux/arm/v6"), "base");
        assert_eq!(found(&["base::linux/arm64"], "base", "linux/amd64"), None);
    }

    #[test]
    fn names_that_mean_something_are_refused() {
        let refused = |name: &str| {
            NamedContexts::default().insert(name, NamedContext::Scratch).unwrap_err().to_string()
        };
        for name in ["context", "scratch", "context:latest", "scratch::linux/arm64"] {
            assert!(refused(name).contains("cannot be replaced"), "{name}");
        }
        for name in ["", "Upper", "a b", "a::", "a::what/is/this/here", "::linux/arm64"] {
            assert!(refused(name).starts_with("invalid context name"), "{name}");
        }
    }
}
