//! What Composer locks and installs.

use serde::Deserialize;

use crate::package::{Kind, Package, Take, give};

#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    Lists(Lists),
    /// What Composer 1 installed.
    List(Vec<Described>),
}

#[derive(Deserialize)]
struct Lists {
    #[serde(default)]
    packages: Vec<Described>,
    #[serde(default, rename = "packages-dev")]
    for_development: Vec<Described>,
}

#[derive(Deserialize)]
struct Described {
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    license: Vec<String>,
}

/// Packages of `composer.lock`, or of `vendor/composer/installed.json`.
pub fn composer(bytes: &[u8], take: Take<'_>) -> Result<(), String> {
    let read = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let lists = match read {
        Document::Lists(Lists { packages, for_development }) => [packages, for_development],
        Document::List(packages) => [packages, Vec::new()],
    };
    let packages = lists.into_iter().flatten().map(|described| {
        let Described { name, version, license } = described;
        // Several licences are a choice.
        let licences = vec![license.join(" OR ")];
        Package { licences, ..Package::new(Kind::Composer, name, version) }
    });
    give(packages, take);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::all;

    #[test]
    fn both_forms_are_read() {
        let lock = br#"{"packages": [{"name": "a/b", "version": "v1", "license": ["MIT", "X"]}],
                        "packages-dev": [{"name": "c/d", "version": "2"}]}"#;
        let packages = all(|take| composer(lock, take).unwrap());
        assert_eq!((packages[0].name.as_str(), packages[0].version.as_str()), ("a/b", "v1"));
        assert_eq!(packages[0].licences, ["MIT OR X"]);
        assert_eq!(packages.len(), 2);
        let list = br#"[{"name": "a/b", "version": "1"}]"#;
        assert_eq!(all(|take| composer(list, take).unwrap()).len(), 1);
        assert!(composer(b"no", &mut |_| true).is_err());
    }
}
