//! Lock files in TOML that list `[[package]]` tables: those of Cargo, Poetry and uv.

use serde::Deserialize;

use crate::lists::text;
use crate::package::{Kind, Package, Take, give};
use crate::python;

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    #[serde(default)]
    version: String,
}

/// Packages of a lock file of one kind.
pub fn toml_lock(kind: Kind, bytes: &[u8], take: Take<'_>) -> Result<(), String> {
    let document: Document =
        toml::from_str(&text(bytes)).map_err(|error| error.message().to_owned())?;
    let packages = document.package.into_iter().map(|locked| {
        let name = match kind {
            Kind::Pypi => python::normal(&locked.name),
            _ => locked.name,
        };
        Package::new(kind, name, locked.version)
    });
    give(packages, take);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::all;

    #[test]
    fn tables_are_packages() {
        let text = "version = 4\n[[package]]\nname = \"a_b\"\nversion = \"1\"\n\
                    dependencies = [\"c\"]\n[[package]]\nname = \"c\"\nversion = \"2\"\n";
        let names = |kind| {
            let packages = all(|take| toml_lock(kind, text.as_bytes(), take).unwrap());
            packages.into_iter().map(|package| package.name).collect::<Vec<_>>()
        };
        assert_eq!(names(Kind::Cargo), ["a_b", "c"]);
        assert_eq!(names(Kind::Pypi), ["a-b", "c"]);
        assert!(toml_lock(Kind::Cargo, b"[[", &mut |_| true).is_err());
    }
}
