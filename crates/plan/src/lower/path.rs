//! Paths as Go's `path` package reads them: slashes only, no look at any disk.

use std::borrow::Cow;

/// `path.Clean` of an absolute path: no `.`, `..`, double or trailing slash; never above `/`.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `path` from the directory `current` on, cleaned.
pub(super) fn join(current: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("{current}/{path}")) }
}

/// A path of a Dockerfile for `os` with slashes. That of Windows has a drive, which must be the
/// system's; nothing is known of others.
pub(super) fn with_slashes<'p>(path: &'p str, os: &str) -> Option<Cow<'p, str>> {
    if os != "windows" {
        return Some(Cow::Borrowed(path));
    }
    let slashed = path.replace('\\', "/");
    match slashed.split_once(':') {
        None => Some(Cow::Owned(slashed)),
        Some((drive, rest)) if drive.eq_ignore_ascii_case("c") && !rest.is_empty() => {
            Some(Cow::Owned(rest.to_owned()))
        }
        Some(_) => None,
    }
}

/// The other way round: as a process of `os` wants to see a path.
pub(super) fn for_system(path: String, os: &str) -> String {
    if os == "windows" { path.replace('/', "\\") } else { path }
}

/// Whether a destination was written as a directory.
pub(super) fn names_directory(path: &str) -> bool {
    path.is_empty() || path == "." || path.ends_with('/') || path.ends_with("/.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_never_leave_the_root() {
        assert_eq!(clean("/a/./b//../c/"), "/a/c");
        assert_eq!(clean("../../x"), "/x");
        assert_eq!(clean(""), "/");
        assert_eq!(join("/w", "../x"), "/x");
        assert_eq!(join("/w", "/y/"), "/y");
        assert!(names_directory("a/.") && names_directory("") && !names_directory("a"));
        assert_eq!(with_slashes("C:\\a\\b", "windows").as_deref(), Some("/a/b"));
        assert_eq!(with_slashes("a\\b", "windows").as_deref(), Some("a/b"));
        assert_eq!(with_slashes("a\\b", "linux").as_deref(), Some("a\\b"));
        assert_eq!(with_slashes("d:\\a", "windows"), None);
        assert_eq!(with_slashes("c:", "windows"), None);
        assert!(!names_directory("a.") && !names_directory(".."));
    }
}
