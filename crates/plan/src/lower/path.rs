//! Paths as Go's `path` package reads them: slashes only, no look at any disk.

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
        assert!(!names_directory("a.") && !names_directory(".."));
    }
}
