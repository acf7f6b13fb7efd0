//! What Python's installers leave, and what they lock.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::lists::{fields, text};
use crate::package::{Kind, Package, Take, give};

/// The package that a `METADATA` or `PKG-INFO` file describes.
pub fn metadata(bytes: &[u8]) -> Option<Package> {
    let text = text(bytes);
    // A description follows the first empty line.
    let end = text.find("\n\n").or_else(|| text.find("\r\n\r\n")).unwrap_or(text.len());
    let mut package = Package::new(Kind::Pypi, "", "");
    let (mut licence, mut expression) = (String::new(), String::new());
    for (name, value) in fields(&text[..end]) {
        match name {
            "Name" => package.name = normal(value),
            "Version" => package.version = value.to_owned(),
            "License" if value != "UNKNOWN" => licence = value.to_owned(),
            "License-Expression" => expression = value.to_owned(),
            "Author" if value != "UNKNOWN" => package.supplier = value.to_owned(),
            _ => {}
        }
    }
    package.licences = vec![if expression.is_empty() { licence } else { expression }];
    (!package.name.is_empty()).then_some(package)
}

/// Names of Python packages that mean the same are one (PEP 503).
pub(crate) fn normal(name: &str) -> String {
    let words = name.split(['-', '_', '.']).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("-")
}

#[derive(Deserialize)]
struct Pipfile {
    #[serde(default)]
    default: BTreeMap<String, Pinned>,
    #[serde(default)]
    develop: BTreeMap<String, Pinned>,
}

#[derive(Deserialize)]
struct Pinned {
    #[serde(default)]
    version: String,
}

/// Packages of `Pipfile.lock`.
pub fn pipfile_lock(bytes: &[u8], take: Take<'_>) -> Result<(), String> {
    let Pipfile { default, develop } =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let packages = default.into_iter().chain(develop).map(|(name, pinned)| {
        Package::new(Kind::Pypi, normal(&name), pinned.version.trim_start_matches('='))
    });
    give(packages, take);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::all;

    #[test]
    fn metadata_ends_at_the_description() {
        let text = "Metadata-Version: 2.1\nName: Flask_Login\nVersion: 0.6.3\nLicense: MIT\n\
                    Author: A\n\nName: other\n";
        let package = metadata(text.as_bytes()).unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("flask-login", "0.6.3"));
        assert_eq!(package.licences, ["MIT"]);
        assert!(metadata(b"Version: 1\n").is_none());
        let text = b"Name: a\nLicense: a text\nLicense-Expression: MIT\n";
        assert_eq!(metadata(text).unwrap().licences, ["MIT"]);
    }

    #[test]
    fn pinned_versions_lose_their_operator() {
        let text = br#"{"default": {"A": {"version": "==1.0"}}, "develop": {"b": {}}}"#;
        let packages = all(|take| pipfile_lock(text, take).unwrap());
        assert_eq!((packages[0].name.as_str(), packages[0].version.as_str()), ("a", "1.0"));
        assert_eq!(packages[1].version, "");
    }
}
