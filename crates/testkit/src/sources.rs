//! Files of the checkout and lines of Rust.

use std::path::{Path, PathBuf};
use std::process::Command;

/// All files that are, or are about to be, in the repository, from the root; `None` where there
/// is no repository.
pub fn repository_files() -> Option<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(crate::root())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let paths = names.map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned()));
    // One that was removed and not yet committed is still listed.
    Some(paths.filter(|path| crate::root().join(path).is_file()).collect())
}

/// The Rust files below a folder of the workspace, from the root, in order.
pub fn rust_files(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    let root = crate::root();
    let mut files = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs_err::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.extend(path.strip_prefix(&root).map(Path::to_owned));
            }
        }
    }
    files.sort();
    files
}

/// The lines of a Rust text with their numbers, comments cut off. Knows no strings: a `//` in
/// one hides the rest of its line, which is good enough for looking for words.
pub fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = |line: &str| line.find("//").unwrap_or(line.len());
    text.lines().enumerate().map(move |(index, line)| (index + 1, &line[..code(line)]))
}

/// Whether `path::name`, such as
/// `crates/testkit/src/sources.rs::comments_are_no_code`, names a function without
/// arguments in a file of the workspace, which is what a test is.
pub fn defines_test(place: &str) -> bool {
    let Some((path, name)) = place.split_once("::") else { return false };
    let source = fs_err::read_to_string(crate::root().join(path)).unwrap_or_default();
    source.contains(&format!("fn {name}()"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_found_by_place_and_name() {
        let place = "crates/testkit/src/sources.rs::tests_are_found_by_place_and_name";
        assert!(defines_test(place));
        assert!(!defines_test("crates/testkit/src/sources.rs::tests_are_found"));
        assert!(!defines_test("crates/testkit/src/sources.rs") && !defines_test("x::y"));
    }

    #[test]
    fn comments_are_no_code() {
        let lines: Vec<_> = code_lines("a // b\n/// c\nd").collect();
        assert_eq!(lines, [(1, "a "), (2, ""), (3, "d")]);
    }
}
