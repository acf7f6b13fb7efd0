//! The databases of dpkg.

use std::collections::BTreeSet;

use crate::limits;
use crate::lists::{fields, stanzas, text};
use crate::package::{Kind, Package, Take, give};

/// Packages of a status file: that of dpkg, or one of those that distroless images have instead.
pub fn status(bytes: &[u8], take: Take<'_>) {
    give(stanzas(&text(bytes)).filter_map(package), take);
}

fn package<'t>(stanza: impl Iterator<Item = (&'t str, &'t str)>) -> Option<Package> {
    let mut package = Package::new(Kind::Deb, "", "");
    for (name, value) in stanza {
        let value = value.to_owned();
        match name {
            "Package" => package.name = value,
            "Version" => package.version = value,
            "Architecture" => package.architecture = value,
            "Maintainer" => package.supplier = value,
            "Source" => package.upstream = upstream(&value),
            // What was removed and has left its configuration is no package any more.
            "Status" if !value.split(' ').any(|word| word == "installed") => return None,
            _ => {}
        }
    }
    (!package.name.is_empty()).then_some(package)
}

/// `name (version)` as `name@version`.
fn upstream(source: &str) -> String {
    match source.split_once(" (") {
        Some((name, version)) => format!("{name}@{}", version.trim_end_matches(')')),
        None => source.to_owned(),
    }
}

/// The first licences that a `copyright` file in the form of DEP-5 names, as many as a package may
/// have; other files are prose.
pub fn copyright(bytes: &[u8]) -> Vec<String> {
    let text = text(bytes);
    if !text.trim_start().starts_with("Format:") {
        return Vec::new();
    }
    let named = fields(&text).filter(|(name, _)| *name == "License").map(|(_, value)| value);
    let mut licences = BTreeSet::new();
    for value in named.filter(|value| !value.is_empty() && value.len() <= limits::FIELD) {
        licences.insert(expression(value));
        if licences.len() == limits::LICENCES {
            break;
        }
    }
    licences.into_iter().collect()
}

/// The short names of DEP-5 as those of SPDX, where they differ and mean the same.
fn expression(short: &str) -> String {
    let words = short.split_whitespace().map(|word| {
        let (word, comma) = match word.strip_suffix(',') {
            Some(word) => (word, true),
            None => (word, false),
        };
        let name = match word {
            "and" => "AND".to_owned(),
            "or" => "OR".to_owned(),
            "Expat" => "MIT".to_owned(),
            _ => gnu(word).unwrap_or_else(|| word.to_owned()),
        };
        if comma { format!("{name},") } else { name }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// `GPL-2+` as `GPL-2.0-or-later`.
fn gnu(word: &str) -> Option<String> {
    let (family, version) = word.split_once('-')?;
    if !matches!(family, "GPL" | "LGPL" | "AGPL") {
        return None;
    }
    let (version, which) = match version.strip_suffix('+') {
        Some(version) => (version, "or-later"),
        None => (version, "only"),
    };
    let number = match version {
        "1" | "2" | "3" => format!("{version}.0"),
        "1.0" | "2.0" | "2.1" | "3.0" => version.to_owned(),
        _ => return None,
    };
    Some(format!("{family}-{number}-{which}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::{all, given};

    #[test]
    fn what_is_installed_is_listed() {
        let text = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\n\
                    Source: glibc (2.36-9)\nVersion: 2.36-9+deb12u9\nMaintainer: GNU Libc <d@e>\n\
                    Description: x\n Version: 9\n\n\
                    Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                    Package: base-files\nVersion: 12.4\n";
        let packages = all(|take| status(text.as_bytes(), take));
        let names: Vec<_> = packages.iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["libc6", "base-files"]);
        assert_eq!(packages[0].version, "2.36-9+deb12u9");
        assert_eq!(packages[0].upstream, "glibc@2.36-9");
        assert_eq!(packages[0].supplier, "GNU Libc <d@e>");
        assert_eq!(given(1, |take| status(text.as_bytes(), take)), 1);
    }

    #[test]
    fn a_package_has_no_more_licences_than_fit() {
        let lines = |count: usize| (0..count).map(|number| format!("License: l{number:06}\n"));
        let text = format!("Format: x\n{}", lines(65_000).collect::<String>());
        let licences = copyright(text.as_bytes());
        assert_eq!(licences.len(), limits::LICENCES);
        assert_eq!(licences[limits::LICENCES - 1], format!("l{:06}", limits::LICENCES - 1));
        let long = format!("Format: x\nLicense: {}\n", "l".repeat(limits::FIELD + 1));
        assert!(copyright(long.as_bytes()).is_empty());
    }

    #[test]
    fn short_names_of_licences_become_those_of_spdx() {
        let text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
                    Files: *\nLicense: GPL-2+ or LGPL-2.1\n\nLicense: Expat\n text\n\nLicense:\n";
        assert_eq!(copyright(text.as_bytes()), ["GPL-2.0-or-later OR LGPL-2.1-only", "MIT"]);
        assert!(copyright(b"This package was debianized.\nLicense: GPL\n").is_empty());
    }
}
