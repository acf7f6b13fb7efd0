//! What npm, Yarn and pnpm install and lock.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::lists::text;
use crate::package::{Kind, Package, Take, give};

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
    license: Option<License>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum License {
    Text(String),
    /// As npm packages had it until 2014.
    Typed {
        #[serde(rename = "type")]
        kind: String,
    },
    Other(IgnoredAny),
}

fn licences(license: Option<License>) -> Vec<String> {
    match license {
        Some(License::Text(text)) => vec![text],
        Some(License::Typed { kind }) => vec![kind],
        Some(License::Other(_)) | None => Vec::new(),
    }
}

/// The package that a `package.json` describes.
pub fn package_json(bytes: &[u8]) -> Result<Option<Package>, String> {
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let package = Package::new(Kind::Npm, manifest.name, manifest.version);
    let is_package = !package.name.is_empty() && !package.version.is_empty();
    Ok(is_package.then(|| Package { licences: licences(manifest.license), ..package }))
}

#[derive(Deserialize)]
struct Lock {
    /// By the directory, since npm 7.
    #[serde(default)]
    packages: BTreeMap<String, Locked>,
    /// By the name, before.
    #[serde(default)]
    dependencies: BTreeMap<String, Nested>,
}

#[derive(Deserialize)]
struct Locked {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
    license: Option<License>,
    #[serde(default)]
    link: bool,
}

#[derive(Deserialize)]
struct Nested {
    #[serde(default)]
    version: String,
    #[serde(default)]
    dependencies: BTreeMap<String, Nested>,
}

/// Packages of `package-lock.json`.
pub fn package_lock(bytes: &[u8], take: Take<'_>) -> Result<(), String> {
    let lock: Lock = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let packages = lock.packages.into_iter().filter_map(|(directory, locked)| {
        // What is not below node_modules is what the file is for.
        let (_, name) = directory.rsplit_once("node_modules/").filter(|_| !locked.link)?;
        let name = if locked.name.is_empty() { name.to_owned() } else { locked.name };
        let package = Package::new(Kind::Npm, name, locked.version);
        Some(Package { licences: licences(locked.license), ..package })
    });
    let mut packages = packages.peekable();
    if packages.peek().is_none() {
        nested(lock.dependencies, take);
    }
    give(packages, take);
    Ok(())
}

/// serde_json follows no more than 128 levels, so this goes no deeper.
fn nested(dependencies: BTreeMap<String, Nested>, take: Take<'_>) -> bool {
    dependencies.into_iter().all(|(name, locked)| {
        take(Package::new(Kind::Npm, name, locked.version)) && nested(locked.dependencies, take)
    })
}

/// Packages of `yarn.lock`, in the form of Yarn 1 or of those after it.
pub fn yarn_lock(bytes: &[u8], take: Take<'_>) {
    let text = text(bytes);
    let mut name = None;
    for line in text.lines() {
        if !line.starts_with([' ', '#']) {
            let first = line.trim_end_matches(':').split(", ").next().unwrap_or_default();
            name = described(first.trim_matches('"'));
            continue;
        }
        let Some(version) = line.strip_prefix("  version") else { continue };
        let version = version.trim_start_matches(':').trim().trim_matches('"');
        // Since Yarn 2, packages of the workspace itself have this one.
        if let Some(name) = name.take()
            && version != "0.0.0-use.local"
            && !take(Package::new(Kind::Npm, name, version))
        {
            return;
        }
    }
}

/// The name in `@scope/name@^1.0` or `name@npm:^1.0`. In `alias@npm:name@^1.0` it is that of the
/// package, not the one under which it is installed.
fn described(descriptor: &str) -> Option<&str> {
    let (name, range) = divided(descriptor)?;
    let aliased = range.strip_prefix("npm:").and_then(divided);
    Some(aliased.map_or(name, |(name, _)| name))
}

/// What is before and behind the `@` that ends a name; one that begins it is of a scope.
fn divided(descriptor: &str) -> Option<(&str, &str)> {
    let (at, _) = descriptor.char_indices().skip(1).find(|(_, letter)| *letter == '@')?;
    Some((&descriptor[..at], &descriptor[at + 1..]))
}

#[derive(Deserialize)]
struct Pnpm {
    #[serde(default)]
    packages: BTreeMap<String, IgnoredAny>,
}

/// Packages of `pnpm-lock.yaml`.
pub fn pnpm_lock(bytes: &[u8], take: Take<'_>) -> Result<(), String> {
    let options = serde_saphyr::options! { with_snippet: false };
    let read = serde_saphyr::from_str_with_options(&text(bytes), options);
    let lock: Pnpm = read.map_err(|error| error.to_string())?;
    give(lock.packages.keys().filter_map(|key| pnpm_package(key)), take);
    Ok(())
}

/// `/name/1.0_peer@2` at first, then `/name@1.0(peer@2)`, now `name@1.0`.
fn pnpm_package(key: &str) -> Option<Package> {
    let key = key.trim_start_matches('/').split('(').next().unwrap_or_default();
    let is_version = |text: &str| text.starts_with(|letter: char| letter.is_ascii_digit());
    let old = key.rsplit_once('/').map(|(name, last)| (name, last.split('_').next().unwrap_or("")));
    let old = old.filter(|(_, version)| is_version(version) && !version.contains('@'));
    // What has no version is a directory, a URL or a repository.
    let new =
        || key.rsplit_once('@').filter(|(name, version)| !name.is_empty() && is_version(version));
    old.or_else(new).map(|(name, version)| Package::new(Kind::Npm, name, version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::{all, given};

    fn read(packages: &[Package]) -> Vec<String> {
        packages.iter().map(|package| format!("{}={}", package.name, package.version)).collect()
    }

    #[test]
    fn manifests_have_licences_in_three_forms() {
        let licences = |text: &str| {
            let text = format!(r#"{{"name": "a", "version": "1", "license": {text}}}"#);
            package_json(text.as_bytes()).unwrap().unwrap().licences
        };
        assert_eq!(licences("\"MIT\""), ["MIT"]);
        assert_eq!(licences(r#"{"type": "MIT", "url": "u"}"#), ["MIT"]);
        assert!(licences("[1]").is_empty());
        assert!(package_json(br#"{"type": "module"}"#).unwrap().is_none());
    }

    #[test]
    fn lock_files_of_npm_are_read_old_and_new() {
        let new = br#"{"packages": {"": {"version": "9"}, "lib": {"version": "8"},
            "node_modules/a": {"version": "1", "license": "MIT"},
            "node_modules/a/node_modules/@s/b": {"version": "2"},
            "node_modules/lib": {"link": true}}, "dependencies": {"a": {"version": "1"}}}"#;
        assert_eq!(read(&all(|take| package_lock(new, take).unwrap())), ["a=1", "@s/b=2"]);
        let old = br#"{"dependencies": {"a": {"version": "1",
            "dependencies": {"b": {"version": "2"}}}}}"#;
        assert_eq!(read(&all(|take| package_lock(old, take).unwrap())), ["a=1", "b=2"]);
        for lock in [&new[..], old] {
            assert_eq!(given(1, |take| package_lock(lock, take).unwrap()), 1);
        }
    }

    #[test]
    fn lock_files_of_yarn_are_read_old_and_new() {
        let old = "# yarn lockfile v1\n\n\"@s/a@^1.0\", \"@s/a@^1.1\":\n  version \"1.1.0\"\n  \
                   dependencies:\n    version \"^9\"\n\nb@~2:\n  version \"2.0.1\"\n";
        assert_eq!(read(&all(|take| yarn_lock(old.as_bytes(), take))), ["@s/a=1.1.0", "b=2.0.1"]);
        let new = "__metadata:\n  version: 6\n\n\"a@npm:^1\":\n  version: 1.0.0\n\n\
                   \"me@workspace:.\":\n  version: 0.0.0-use.local\n";
        assert_eq!(read(&all(|take| yarn_lock(new.as_bytes(), take))), ["a=1.0.0"]);
        assert_eq!(given(1, |take| yarn_lock(old.as_bytes(), take)), 1);
    }

    #[test]
    fn an_alias_is_the_package_that_it_stands_for() {
        for (descriptor, name) in [
            ("alias@npm:lodash@^4", "lodash"),
            ("@my/alias@npm:@s/b@~1", "@s/b"),
            ("a@npm:latest", "a"),
            ("a@npm:@s/b", "a"),
            ("a@patch:a@npm%3A1.0#fix", "a"),
        ] {
            assert_eq!(described(descriptor), Some(name), "{descriptor}");
        }
    }

    #[test]
    fn lock_files_of_pnpm_are_read_in_all_forms() {
        let text = "lockfileVersion: '9.0'\npackages:\n  /a/1.0.0_x@2:\n    dev: true\n  \
                    /@s/b@2.0.0(react@1.0.0):\n    resolution: {integrity: x}\n  c@3.0.0: {}\n  \
                    d@file:lib: {}\n";
        let packages = read(&all(|take| pnpm_lock(text.as_bytes(), take).unwrap()));
        assert_eq!(packages, ["@s/b=2.0.0", "a=1.0.0", "c=3.0.0"]);
        assert_eq!(read(&[pnpm_package("/@s/b/1.0.0_react").unwrap()]), ["@s/b=1.0.0"]);
        assert!(pnpm_lock(b"packages: [", &mut |_| true).is_err());
    }
}
