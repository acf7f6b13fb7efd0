//! `.dockerignore`: reading and matching, by moby's rules.

use rbuild_types::Diagnostic;

/// The rules of one ignore file, or of the `--exclude` flags of one COPY.
#[derive(Debug, Clone, Default)]
pub struct Patterns {}

/// What the rules say of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the path is left out.
    pub excluded: bool,
    /// The rule that decided, as an index into the rules in file order.
    pub rule: Option<usize>,
}

impl Patterns {
    /// Reads an ignore file; bad lines come back as diagnostics with their span.
    pub fn parse(text: &str) -> (Self, Vec<Diagnostic>) {
        let _ = text;
        (Self::default(), Vec::new())
    }

    /// Makes rules from a list, one pattern each.
    pub fn from_list<S: AsRef<str>>(patterns: &[S]) -> Result<Self, Diagnostic> {
        let _ = patterns;
        Ok(Self::default())
    }

    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Whether some rule begins with `!`, so that a walker must look into excluded directories.
    pub fn has_exceptions(&self) -> bool {
        false
    }

    /// Judges a path given without a leading slash, parents included: `a/b` is excluded when `a`
    /// is and no later rule brings it back.
    pub fn matches(&self, path: &str) -> Verdict {
        let _ = path;
        Verdict { excluded: false, rule: None }
    }
}

/// Go's `filepath.Match`, as COPY's wildcards use it: `*`, `?`, `[a-z]`, `\`; never across `/`.
pub fn glob_match(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    let _ = (pattern, name);
    Ok(false)
}

/// A wildcard pattern that cannot be read, such as an open `[`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPattern;
