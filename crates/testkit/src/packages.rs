//! The packages of the workspace, as cargo sees them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A package and the names of what it depends on.
#[derive(Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its folder, from the root.
    pub folder: PathBuf,
    /// What it is made with.
    pub dependencies: BTreeSet<String>,
    /// What only its tests, benches and examples use.
    pub dev_dependencies: BTreeSet<String>,
}

/// All packages. Asks cargo, which needs neither network nor lock for this.
///
/// # Panics
///
/// When cargo cannot be run or says something else.
pub fn packages() -> Vec<Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(crate::root())
        .output()
        .expect("cargo can be run");
    let said: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let all = said["packages"].as_array().expect("there are packages");
    all.iter().map(package).collect()
}

fn package(value: &Value) -> Package {
    let manifest = Path::new(value["manifest_path"].as_str().expect("a package has a manifest"));
    let folder = manifest.parent().expect("a manifest lies in a folder");
    let folder = folder.strip_prefix(crate::root()).expect("packages lie below the root");
    let mut package = Package {
        name: value["name"].as_str().expect("a package has a name").to_owned(),
        folder: folder.to_owned(),
        dependencies: BTreeSet::new(),
        dev_dependencies: BTreeSet::new(),
    };
    for dependency in value["dependencies"].as_array().expect("a package has dependencies") {
        let name = dependency["name"].as_str().expect("a dependency has a name").to_owned();
        match dependency["kind"].as_str() {
            Some("dev") => package.dev_dependencies.insert(name),
            _ => package.dependencies.insert(name),
        };
    }
    package
}
