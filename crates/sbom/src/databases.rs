//! The databases of distributions' packages, at their places in a root filesystem.

use std::fs::File;

use rbuild_rooted::{Follow, Root, RootedError};
use rbuild_types::{CancelToken, Cancelled};

use crate::found::Found;
use crate::{alpine, debian, limits, rpm};

/// Directories with one status file for each package, as distroless images have them.
const STATUS_D: &str = "var/lib/dpkg/status.d";

/// Keeps the packages of every database below `root`.
pub(crate) fn databases(
    root: &Root,
    found: &mut Found,
    cancel: &CancelToken,
) -> Result<(), Cancelled> {
    let mut copyrights = Copyrights::below(root);
    dpkg(root, "var/lib/dpkg/status", &mut copyrights, found, cancel)?;
    for entry in root.read_dir(STATUS_D).unwrap_or_default() {
        if let Some(name) = entry.name.to_str().filter(|name| !name.ends_with(".md5sums")) {
            dpkg(root, &format!("{STATUS_D}/{name}"), &mut copyrights, found, cancel)?;
        }
        if found.is_full() {
            break;
        }
    }
    if copyrights.is_incomplete {
        found.note("/usr/share/doc", "there are more licences of packages than are read");
    }
    for place in ["lib/apk/db/installed", "usr/lib/apk/db/installed"] {
        if let Some(bytes) = read(root, place, found) {
            let place = format!("/{place}");
            alpine::installed(&bytes, &mut |package| {
                found.add(&place, package) && !cancel.is_cancelled()
            });
            break;
        }
    }
    for place in rpm::PLACES {
        match root.open_file(place, Follow::Yes) {
            Ok(file) => {
                rpm_database(root, place, &file, found, cancel);
                break;
            }
            Err(error) => problem(found, place, &error),
        }
    }
    cancel.check()
}

fn dpkg(
    root: &Root,
    place: &str,
    copyrights: &mut Copyrights<'_>,
    found: &mut Found,
    cancel: &CancelToken,
) -> Result<(), Cancelled> {
    if let Some(bytes) = read(root, place, found) {
        let place = format!("/{place}");
        debian::status(&bytes, &mut |mut package| {
            package.licences = copyrights.of(&package.name);
            found.add(&place, package) && !cancel.is_cancelled()
        });
    }
    cancel.check()
}

fn rpm_database(root: &Root, place: &str, file: &File, found: &mut Found, cancel: &CancelToken) {
    let shown = format!("/{place}");
    let read = rpm::packages(file, cancel, &mut |package| found.add(&shown, package));
    if let Err(problem) = read {
        found.note(&shown, &problem);
    }
    let log = root.stat(format!("{place}-wal"), Follow::No).ok().flatten();
    if log.is_some_and(|log| log.size > 0) {
        found.note(&shown, "changes beside it, in a write-ahead log, are not read");
    }
}

fn read(root: &Root, place: &str, found: &mut Found) -> Option<Vec<u8>> {
    let bytes = root.read_small(place, limits::DATABASE);
    bytes.map_err(|error| problem(found, place, &error)).ok()
}

/// Notes an error, unless it is that nothing is there.
fn problem(found: &mut Found, place: &str, error: &RootedError) {
    if !error.is_not_found() {
        found.note(&format!("/{place}"), &error.to_string());
    }
}

/// The `copyright` files of dpkg's packages.
///
/// A database may name one package any number of times, and names may be links to one file: what
/// was read last is remembered, and all that is read has a limit.
struct Copyrights<'r> {
    root: &'r Root,
    /// The package that was asked for last, and its licences.
    last: (String, Vec<String>),
    /// Bytes that may still be read.
    left: u64,
    /// Whether a package was asked for when there were none left.
    is_incomplete: bool,
}

impl<'r> Copyrights<'r> {
    fn below(root: &'r Root) -> Self {
        let last = (String::new(), Vec::new());
        Self { root, last, left: limits::COPYRIGHTS, is_incomplete: false }
    }

    /// The licences of a package.
    fn of(&mut self, package: &str) -> Vec<String> {
        if self.last.0 != package {
            self.last = (package.to_owned(), self.read(package));
        }
        self.last.1.clone()
    }

    fn read(&mut self, package: &str) -> Vec<String> {
        if self.left == 0 {
            self.is_incomplete = true;
            return Vec::new();
        }
        // The name goes into a path, which stays below the root whatever it is.
        let place = format!("usr/share/doc/{package}/copyright");
        let (size, licences) = match self.root.read_small(place, limits::DESCRIPTION) {
            Ok(bytes) => (bytes.len() as u64, debian::copyright(&bytes)),
            Err(RootedError::TooLarge { cap, .. }) => (cap, Vec::new()),
            Err(_) => return Vec::new(),
        };
        self.left = self.left.saturating_sub(size);
        licences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_copyrights(packages: &[&str], text: impl AsRef<[u8]>) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for package in packages {
            let place = directory.path().join("usr/share/doc").join(package);
            fs_err::create_dir_all(&place).unwrap();
            fs_err::write(place.join("copyright"), &text).unwrap();
        }
        directory
    }

    #[test]
    fn a_package_that_is_named_again_is_not_read_again() {
        let text = "Format: x\nLicense: MIT\n";
        let directory = with_copyrights(&["a", "b"], text);
        let root = Root::open(directory.path()).unwrap();
        let mut copyrights = Copyrights::below(&root);
        for package in [["a"; 400], ["b"; 400]].as_flattened() {
            assert_eq!(copyrights.of(package), ["MIT"]);
        }
        assert_eq!(limits::COPYRIGHTS - copyrights.left, 2 * text.len() as u64);
    }

    #[test]
    fn no_more_is_read_than_is_allowed_for() {
        let large = usize::try_from(limits::DESCRIPTION).unwrap() + 1;
        let directory = with_copyrights(&["a", "b"], vec![b' '; large]);
        let root = Root::open(directory.path()).unwrap();
        let mut copyrights = Copyrights::below(&root);
        copyrights.left = 2 * limits::DESCRIPTION;
        for (package, left) in [("a", limits::DESCRIPTION), ("none", limits::DESCRIPTION), ("b", 0)]
        {
            assert!(copyrights.of(package).is_empty());
            assert_eq!((copyrights.left, copyrights.is_incomplete), (left, false), "{package}");
        }
        assert!(copyrights.of("a").is_empty());
        assert!(copyrights.is_incomplete);
    }

    #[test]
    fn the_wish_to_stop_is_heard_inside_a_database() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("var/lib/dpkg/status");
        fs_err::create_dir_all(place.parent().unwrap()).unwrap();
        fs_err::write(place, "Package: a\n\nPackage: b\n\n").unwrap();
        let (mut found, cancel) = (Found::default(), CancelToken::default());
        cancel.cancel();
        let root = Root::open(directory.path()).unwrap();
        assert!(databases(&root, &mut found, &cancel).is_err());
        assert_eq!(found.packages.len(), 1);
    }
}
