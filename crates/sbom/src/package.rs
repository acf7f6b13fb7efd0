//! A package, and the URL that names it everywhere.

use std::collections::BTreeMap;
use std::fmt;

/// Where a package comes from, which says how its name is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Alpine's apk.
    Apk,
    /// Rust.
    Cargo,
    /// PHP.
    Composer,
    /// Debian's dpkg.
    Deb,
    /// Ruby.
    Gem,
    /// A Go module.
    Golang,
    /// JavaScript.
    Npm,
    /// Python.
    Pypi,
    /// rpm.
    Rpm,
}

impl Kind {
    /// The type in a package URL.
    pub fn purl_type(self) -> &'static str {
        match self {
            Self::Apk => "apk",
            Self::Cargo => "cargo",
            Self::Composer => "composer",
            Self::Deb => "deb",
            Self::Gem => "gem",
            Self::Golang => "golang",
            Self::Npm => "npm",
            Self::Pypi => "pypi",
            Self::Rpm => "rpm",
        }
    }

    /// Whether packages of this kind belong to the distribution.
    pub fn is_of_distro(self) -> bool {
        matches!(self, Self::Apk | Self::Deb | Self::Rpm)
    }
}

/// A package that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Where it comes from.
    pub kind: Kind,
    /// Its name as its own tools write it.
    pub name: String,
    /// Its version; empty where nobody says.
    pub version: String,
    /// What it was made for, such as `amd64`; empty where it does not matter.
    pub architecture: String,
    /// The source package it was built from, if its database says so, perhaps with a version:
    /// advisories are about those.
    pub upstream: String,
    /// Who made it.
    pub supplier: String,
    /// Licences, all of which hold, as its own tools write them.
    pub licences: Vec<String>,
}

impl Package {
    /// A package of which only the name and the version are known.
    pub fn new(kind: Kind, name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
            version: version.into(),
            architecture: String::new(),
            upstream: String::new(),
            supplier: String::new(),
            licences: Vec::new(),
        }
    }
}

/// Takes a package, and says whether more are wanted.
///
/// Readers give what they find one by one, so that no list of a stranger is held as packages
/// before something counts them.
pub type Take<'a> = &'a mut dyn FnMut(Package) -> bool;

/// Gives packages to `take` until it has enough.
pub(crate) fn give(packages: impl IntoIterator<Item = Package>, take: Take<'_>) {
    packages.into_iter().all(take);
}

/// Everything that a reader gives.
#[cfg(test)]
pub(crate) fn all(read: impl FnOnce(Take<'_>)) -> Vec<Package> {
    let mut packages = Vec::new();
    read(&mut |package| {
        packages.push(package);
        true
    });
    packages
}

/// How many packages a reader gives to someone who wants `wanted`.
#[cfg(test)]
pub(crate) fn given(wanted: usize, read: impl FnOnce(Take<'_>)) -> usize {
    let mut count = 0;
    read(&mut |_| {
        count += 1;
        count < wanted
    });
    count
}

/// A package URL (<https://github.com/package-url/purl-spec>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purl {
    /// Its type.
    pub kind: String,
    /// Names before the name, divided by `/`; may be empty.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The version; may be empty.
    pub version: String,
    /// Further facts; those without a value are left out.
    pub qualifiers: BTreeMap<&'static str, String>,
}

impl fmt::Display for Purl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pkg:{}", self.kind)?;
        for part in self.namespace.split('/').filter(|part| !part.is_empty()) {
            write!(f, "/{}", Escaped(part))?;
        }
        write!(f, "/{}", Escaped(&self.name))?;
        if !self.version.is_empty() {
            write!(f, "@{}", Escaped(&self.version))?;
        }
        let qualifiers = self.qualifiers.iter().filter(|(_, value)| !value.is_empty());
        for (number, (name, value)) in qualifiers.enumerate() {
            let before = if number == 0 { '?' } else { '&' };
            write!(f, "{before}{name}={}", Escaped(value))?;
        }
        Ok(())
    }
}

/// Text of which only letters that mean nothing in a package URL are left as they are.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                    write!(f, "{}", char::from(byte))?;
                }
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_is_escaped() {
        let purl = Purl {
            kind: "npm".to_owned(),
            namespace: "@scope/with space".to_owned(),
            name: "a/b".to_owned(),
            version: "1:2+3".to_owned(),
            qualifiers: [("b", "c/d".to_owned()), ("a", String::new()), ("z", "1".to_owned())]
                .into(),
        };
        let expected = "pkg:npm/%40scope/with%20space/a%2Fb@1:2%2B3?b=c%2Fd&z=1";
        assert_eq!(purl.to_string(), expected);
    }
}
