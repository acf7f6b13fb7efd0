//! The way through a root filesystem: databases at their places, lists by their names.
//!
//! Directories are entered one name at a time and links are not followed, so every file is met
//! once, whatever the image says. What is no regular file is not opened.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;

use rbuild_rooted::{DirEntry, FileKind, Follow, Root, RootedError};
use rbuild_types::{CancelToken, Cancelled};

use crate::distro::Distro;
use crate::found::Found;
use crate::limits;
use crate::package::{Kind, Package};
use crate::{alpine, debian, go, java_script, php, python, rpm, ruby, rust};

/// Directories at the top that are not of the image.
const NOT_OF_THE_IMAGE: [&str; 3] = ["proc", "sys", "dev"];

/// Directories below which packages are installed. What was locked there, was for those who made
/// them.
const INSIDE_PACKAGES: [&str; 6] = [
    "/node_modules/",
    "/site-packages/",
    "/dist-packages/",
    "/gems/",
    "cargo/registry/src/",
    "/go/pkg/mod/",
];

/// Finds the packages below `root`.
///
/// What cannot be read becomes a note; only the caller's wish ends it early.
pub fn scan(root: &Root, cancel: &CancelToken) -> Result<Found, Cancelled> {
    let mut found = Found::in_distro(Distro::of(root));
    databases(root, &mut found);
    files(root, &mut found, cancel)?;
    Ok(found)
}

/// Directories with one status file for each package, as distroless images have them.
const STATUS_D: &str = "var/lib/dpkg/status.d";

fn databases(root: &Root, found: &mut Found) {
    let read = |place: &str, found: &mut Found| {
        let bytes = root.read_small(place, limits::DATABASE);
        bytes.map_err(|error| problem(found, place, &error)).ok()
    };
    if let Some(bytes) = read("var/lib/dpkg/status", found) {
        let packages = debian::status(&bytes);
        found.add("/var/lib/dpkg/status", with_copyright(root, packages));
    }
    for entry in root.read_dir(STATUS_D).unwrap_or_default() {
        let Some(name) = entry.name.to_str().filter(|name| !name.ends_with(".md5sums")) else {
            continue;
        };
        let place = format!("{STATUS_D}/{name}");
        if let Some(bytes) = read(&place, found) {
            found.add(&format!("/{place}"), with_copyright(root, debian::status(&bytes)));
        }
    }
    for place in ["lib/apk/db/installed", "usr/lib/apk/db/installed"] {
        if let Some(bytes) = read(place, found) {
            found.add(&format!("/{place}"), alpine::installed(&bytes));
            break;
        }
    }
    for place in rpm::PLACES {
        match root.open_file(place, Follow::Yes) {
            Ok(file) => {
                rpm_database(root, place, &file, found);
                break;
            }
            Err(error) => problem(found, place, &error),
        }
    }
}

fn rpm_database(root: &Root, place: &str, file: &File, found: &mut Found) {
    let shown = format!("/{place}");
    match rpm::packages(file) {
        Ok(packages) => found.add(&shown, packages),
        Err(problem) => found.note(&shown, &problem),
    }
    let log = root.stat(format!("{place}-wal"), Follow::No).ok().flatten();
    if log.is_some_and(|log| log.size > 0) {
        found.note(&shown, "changes beside it, in a write-ahead log, are not read");
    }
}

fn with_copyright(root: &Root, mut packages: Vec<Package>) -> Vec<Package> {
    for package in &mut packages {
        // The name goes into a path, which stays below the root whatever it is.
        let place = format!("usr/share/doc/{}/copyright", package.name);
        if let Ok(bytes) = root.read_small(place, limits::DESCRIPTION) {
            package.licences = debian::copyright(&bytes);
        }
    }
    packages
}

/// Notes an error, unless it is that nothing is there.
fn problem(found: &mut Found, place: &str, error: &RootedError) {
    if !error.is_not_found() {
        found.note(&format!("/{place}"), &error.to_string());
    }
}

/// A directory that is being gone through.
struct Level {
    root: Root,
    path: String,
    entries: std::vec::IntoIter<DirEntry>,
}

fn files(root: &Root, found: &mut Found, cancel: &CancelToken) -> Result<(), Cancelled> {
    let mut levels: Vec<_> = level(root.try_clone(), String::new(), found).into_iter().collect();
    let mut looked = 0;
    while let Some(at) = levels.last_mut() {
        let Some(entry) = at.entries.next() else {
            levels.pop();
            continue;
        };
        looked += 1;
        if looked > limits::ENTRIES {
            found.note("/", "there are more files than are looked at");
            return Ok(());
        }
        // What has no name in UTF-8 is no list, but may hold one.
        let name = String::from_utf8_lossy(entry.name.as_bytes()).into_owned();
        match entry.kind {
            FileKind::Directory => {
                cancel.check()?;
                if at.path.is_empty() && NOT_OF_THE_IMAGE.contains(&name.as_str()) {
                    continue;
                }
                let path = format!("{}/{name}", at.path);
                let entered = at.root.enter(&entry.name);
                if levels.len() >= limits::DEPTH {
                    found.note(&path, "directories lie deeper than is looked");
                    continue;
                }
                levels.extend(level(entered, path, found));
            }
            FileKind::Regular => file(at, &entry, &name, found),
            _ => {}
        }
    }
    Ok(())
}

fn level(entered: Result<Root, RootedError>, path: String, found: &mut Found) -> Option<Level> {
    let read = entered.and_then(|root| Ok((root.read_dir("")?, root)));
    match read {
        Ok((entries, root)) => Some(Level { root, path, entries: entries.into_iter() }),
        Err(error) => {
            found.note(&path, &error.to_string());
            None
        }
    }
}

/// Reads a file whose name says that it is a list, and programs.
fn file(at: &Level, entry: &DirEntry, name: &str, found: &mut Found) {
    let place = format!("{}/{name}", at.path);
    let read = |cap| at.root.read_small(&entry.name, cap).map_err(|error| error.to_string());
    let list = || read(limits::LIST);
    let directory = at.path.rsplit('/').next().unwrap_or_default();
    let is_inner = INSIDE_PACKAGES.iter().any(|inside| place.contains(inside));
    let packages = match name {
        "METADATA" if directory.ends_with(".dist-info") => first(at, entry).map(python_package),
        "PKG-INFO" if directory.ends_with(".egg-info") => first(at, entry).map(python_package),
        _ if name.ends_with(".egg-info") => first(at, entry).map(python_package),
        "package.json" if is_module(&at.path) => {
            let read = read(limits::DESCRIPTION);
            read.and_then(|bytes| java_script::package_json(&bytes)).map(Vec::from_iter)
        }
        _ if name.ends_with(".gemspec") && is_of_gems(&at.path) => {
            Ok(ruby::installed(name).into_iter().collect())
        }
        "installed.json" if directory == "composer" => {
            list().and_then(|bytes| php::composer(&bytes))
        }
        _ => match locked(name).filter(|_| !is_inner) {
            Some(reader) => list().and_then(|bytes| reader(&bytes)),
            None => {
                program(at, entry, &place, found);
                return;
            }
        },
    };
    match packages {
        Ok(packages) => found.add(&place, packages),
        Err(problem) => found.note(&place, &problem),
    }
}

/// Reads a list of packages.
type Reader = fn(&[u8]) -> Result<Vec<Package>, String>;

/// What reads a lock file of this name.
fn locked(name: &str) -> Option<Reader> {
    Some(match name {
        "Cargo.lock" => |bytes| rust::toml_lock(Kind::Cargo, bytes),
        "Gemfile.lock" => |bytes| Ok(ruby::gemfile_lock(bytes)),
        "Pipfile.lock" => python::pipfile_lock,
        "composer.lock" => php::composer,
        "go.mod" => |bytes| Ok(go::go_mod(bytes)),
        "package-lock.json" | "npm-shrinkwrap.json" => java_script::package_lock,
        "pnpm-lock.yaml" => java_script::pnpm_lock,
        "poetry.lock" | "uv.lock" => |bytes| rust::toml_lock(Kind::Pypi, bytes),
        "yarn.lock" => |bytes| Ok(java_script::yarn_lock(bytes)),
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

fn python_package(bytes: Vec<u8>) -> Vec<Package> {
    python::metadata(&bytes).into_iter().collect()
}

/// The beginning of a file, however long it is.
fn first(at: &Level, entry: &DirEntry) -> Result<Vec<u8>, String> {
    let (file, _) = at.root.open_seen_file(&entry.name).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let mut start = file.take(limits::DESCRIPTION);
    start.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// The modules of a program of Go.
fn program(at: &Level, entry: &DirEntry, place: &str, found: &mut Found) {
    let is_program = |metadata: rbuild_rooted::Metadata| metadata.mode & 0o111 != 0;
    if !matches!(at.root.stat(&entry.name, Follow::No), Ok(Some(metadata)) if is_program(metadata))
    {
        return;
    }
    let Ok((file, _)) = at.root.open_seen_file(&entry.name) else { return };
    if let Some(packages) = go::build_info(&file) {
        found.add(place, packages);
    }
}
