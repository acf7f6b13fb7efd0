//! The way through a root filesystem, and the lists that are known by their names.
//!
//! Directories are entered one name at a time and links are not followed, so every file is met
//! once, whatever the image says. What is no regular file is not opened.

use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;

use rbuild_rooted::{DirEntry, FileKind, Follow, Root, RootedError};
use rbuild_types::{CancelToken, Cancelled};

use crate::databases::databases;
use crate::distro::Distro;
use crate::found::Found;
use crate::limits;
use crate::package::{Kind, Package, Take, give};
use crate::{go, java_script, php, python, ruby, rust};

/// Directories at the top that are not of the image.
const NOT_OF_THE_IMAGE: [&str; 3] = ["proc", "sys", "dev"];

/// Directories below which packages are installed. What was locked there, was for those who made
/// them.
const INSIDE_PACKAGES: [&str; 6] = [
    "/node_modules/",
    "/site-packages/",
    "/dist-packages/",
    "/bundler/gems/",
    "cargo/registry/src/",
    "/go/pkg/mod/",
];

/// Finds the packages below `root`.
///
/// What cannot be read becomes a note; only the caller's wish ends it early.
pub fn scan(root: &Root, cancel: &CancelToken) -> Result<Found, Cancelled> {
    let mut found = Found::in_distro(Distro::of(root));
    databases(root, &mut found, cancel)?;
    files(root, &mut found, cancel)?;
    Ok(found)
}

/// A directory that is being gone through.
struct Level {
    root: Root,
    path: String,
    /// Whether it belongs to an installed gem.
    is_of_gem: bool,
    entries: std::vec::IntoIter<DirEntry>,
}

fn files(root: &Root, found: &mut Found, cancel: &CancelToken) -> Result<(), Cancelled> {
    let mut levels: Vec<_> =
        level(root.try_clone(), String::new(), false, found).into_iter().collect();
    let mut looked = 0;
    while let Some(at) = levels.last_mut() {
        let Some(entry) = at.entries.next() else {
            levels.pop();
            continue;
        };
        cancel.check()?;
        if found.is_full() {
            return Ok(());
        }
        looked += 1;
        if looked > limits::ENTRIES {
            found.note("/", "there are more files than are looked at");
            return Ok(());
        }
        // What has no name in UTF-8 is no list, but may hold one.
        let name = String::from_utf8_lossy(entry.name.as_bytes()).into_owned();
        match entry.kind {
            FileKind::Directory => {
                if at.path.is_empty() && NOT_OF_THE_IMAGE.contains(&name.as_str()) {
                    continue;
                }
                let path = format!("{}/{name}", at.path);
                let entered = at.root.enter(&entry.name);
                if levels.len() >= limits::DEPTH {
                    found.note(&path, "directories lie deeper than is looked");
                    continue;
                }
                let is_of_gem = is_of_gem(&levels, &name);
                levels.extend(level(entered, path, is_of_gem, found));
            }
            FileKind::Regular => file(at, &entry, &name, found, cancel),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a directory in the last of `levels` belongs to an installed gem, whose own is
/// `gems/NAME-VERSION` with `specifications/NAME-VERSION.gemspec` beside `gems`.
fn is_of_gem(levels: &[Level], name: &str) -> bool {
    let [.., home, gems] = levels else { return false };
    let specification = || {
        let place = format!("specifications/{name}.gemspec");
        home.root.stat(place, Follow::No).ok().flatten()
    };
    gems.is_of_gem || gems.path.ends_with("/gems") && specification().is_some()
}

fn level(
    entered: Result<Root, RootedError>,
    path: String,
    is_of_gem: bool,
    found: &mut Found,
) -> Option<Level> {
    let read = entered.and_then(|root| Ok((root.read_dir("")?, root)));
    match read {
        Ok((entries, root)) => Some(Level { root, path, is_of_gem, entries: entries.into_iter() }),
        Err(error) => {
            found.note(&path, &error.to_string());
            None
        }
    }
}

/// Reads a file whose name says that it is a list, and programs.
fn file(at: &Level, entry: &DirEntry, name: &str, found: &mut Found, cancel: &CancelToken) {
    let place = format!("{}/{name}", at.path);
    let read = |cap| at.root.read_small(&entry.name, cap).map_err(|error| error.to_string());
    let list = || read(limits::LIST);
    let directory = at.path.rsplit('/').next().unwrap_or_default();
    let is_inner = at.is_of_gem || INSIDE_PACKAGES.iter().any(|inside| place.contains(inside));
    let take: Take<'_> = &mut |package| found.add(&place, package) && !cancel.is_cancelled();
    let read = match name {
        "METADATA" if directory.ends_with(".dist-info") => python_package(at, entry, take),
        "PKG-INFO" if directory.ends_with(".egg-info") => python_package(at, entry, take),
        _ if name.ends_with(".egg-info") => python_package(at, entry, take),
        "package.json" if is_module(&at.path) => {
            let read = read(limits::DESCRIPTION);
            read.and_then(|bytes| java_script::package_json(&bytes)).map(|read| give(read, take))
        }
        _ if name.ends_with(".gemspec") && is_of_gems(&at.path) => {
            give(ruby::installed(name), take);
            Ok(())
        }
        "installed.json" if directory == "composer" => {
            list().and_then(|bytes| php::composer(&bytes, take))
        }
        _ => match locked(name).filter(|_| !is_inner) {
            Some(reader) => list().and_then(|bytes| reader(&bytes, take)),
            None => {
                give(program(at, entry).unwrap_or_default(), take);
                Ok(())
            }
        },
    };
    if let Err(problem) = read {
        found.note(&place, &problem);
    }
}

/// Reads a list of packages.
type Reader = fn(&[u8], Take<'_>) -> Result<(), String>;

/// What reads a lock file of this name.
fn locked(name: &str) -> Option<Reader> {
    Some(match name {
        "Cargo.lock" => |bytes, take| rust::toml_lock(Kind::Cargo, bytes, take),
        "Gemfile.lock" => |bytes, take| {
            ruby::gemfile_lock(bytes, take);
            Ok(())
        },
        "Pipfile.lock" => python::pipfile_lock,
        "composer.lock" => php::composer,
        "go.mod" => |bytes, take| {
            go::go_mod(bytes, take);
            Ok(())
        },
        "package-lock.json" | "npm-shrinkwrap.json" => java_script::package_lock,
        "pnpm-lock.yaml" => java_script::pnpm_lock,
        "poetry.lock" | "uv.lock" => |bytes, take| rust::toml_lock(Kind::Pypi, bytes, take),
        "yarn.lock" => |bytes, take| {
            java_script::yarn_lock(bytes, take);
            Ok(())
        },
        _ => return None,
    })
}

/// Whether a directory has the specifications of installed gems.
fn is_of_gems(path: &str) -> bool {
    path.ends_with("/specifications") || path.ends_with("/specifications/default")
}

/// Whether a directory is that of an installed package.
fn is_module(path: &str) -> bool {
    let mut names = path.rsplit('/').skip(1);
    match names.next() {
        Some(scope) if scope.starts_with('@') => names.next() == Some("node_modules"),
        directory => directory == Some("node_modules"),
    }
}

/// The package that the beginning of a file describes, however long the file is.
fn python_package(at: &Level, entry: &DirEntry, take: Take<'_>) -> Result<(), String> {
    let (file, _) = at.root.open_seen_file(&entry.name).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let mut start = file.take(limits::DESCRIPTION);
    start.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    give(python::metadata(&bytes), take);
    Ok(())
}

/// The modules of a program of Go.
fn program(at: &Level, entry: &DirEntry) -> Option<Vec<Package>> {
    let metadata = at.root.stat(&entry.name, Follow::No).ok()??;
    if metadata.mode & 0o111 == 0 {
        return None;
    }
    let (file, _) = at.root.open_seen_file(&entry.name).ok()?;
    go::build_info(&file)
}
