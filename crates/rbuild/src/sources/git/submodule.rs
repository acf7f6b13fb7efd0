//! `.gitmodules`: which repository a submodule's commit is of.

use super::error::GitError;

/// A submodule as the file names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Submodule {
    pub(super) path: String,
    /// As written: may be relative to the repository that has the file.
    pub(super) url: String,
}

/// Reads the file's sections; what is not about submodules is passed over.
pub(super) fn parse(text: &str) -> Vec<Submodule> {
    let mut found: Vec<Submodule> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line.starts_with("[submodule \"");
            if inside {
                found.push(Submodule::default());
            }
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| inside) else { continue };
        let Some(last) = found.last_mut() else { continue };
        match key.trim().to_ascii_lowercase().as_str() {
            "path" => last.path = plain(value).trim_matches('/').to_owned(),
            "url" => last.url = plain(value),
            _ => {}
        }
    }
    found.retain(|one| !one.path.is_empty() && !one.url.is_empty());
    found
}

/// A value without quotes and comment.
fn plain(value: &str) -> String {
    let mut out = String::new();
    let mut letters = value.trim().chars();
    let mut quoted = false;
    while let Some(letter) = letters.next() {
        match letter {
            '"' => quoted = !quoted,
            '\\' => out.extend(letters.next()),
            '#' | ';' if !quoted => break,
            letter => out.push(letter),
        }
    }
    out.trim_end().to_owned()
}

/// The URL of a submodule in the repository at `parent`.
pub(super) fn resolve(parent: &str, submodule: &Submodule) -> Result<String, GitError> {
    let wrong = |problem: &str| GitError::Submodule {
        path: submodule.path.clone(),
        problem: problem.to_owned(),
    };
    let mut url = submodule.url.as_str();
    if !url.starts_with("./") && !url.starts_with("../") {
        let scheme = url.split_once("://").map_or("ssh", |(scheme, _)| scheme);
        return match scheme {
            "http" | "https" => Ok(url.to_owned()),
            other => Err(wrong(&format!(
                "its URL is of {other}://, which is not supported yet; ?submodules=false leaves \
                 submodules out"
            ))),
        };
    }
    let (scheme, rest) = parent.split_once("://").ok_or_else(|| wrong("no URL to start from"))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    while !url.is_empty() {
        let (name, behind) = url.split_once('/').unwrap_or((url, ""));
        match name {
            "" | "." => {}
            ".." => {
                names.pop().ok_or_else(|| wrong("its URL leads above the server"))?;
            }
            name => names.push(name),
        }
        url = behind;
    }
    Ok(format!("{scheme}://{authority}/{}", names.join("/")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sections_and_relative_urls() {
        let text = "[core]\n\tpath = no\n[submodule \"a b\"]\n\tpath = lib/a\n\tURL = \"../a.git\" \
                    # near\n\tbranch = x\n[submodule \"c\"]\npath=c\nurl=https://h/c.git\n\
                    [submodule \"gone\"]\npath=d\n";
        let found = parse(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].path.as_str(), found[0].url.as_str()), ("lib/a", "../a.git"));
        let url = |url: &str| {
            let submodule = Submodule { path: "p".to_owned(), url: url.to_owned() };
            resolve("https://h:8/team/r.git", &submodule).map_err(|error| error.to_string())
        };
        assert_eq!(url("../a.git").unwrap(), "https://h:8/team/a.git");
        assert_eq!(url("./../../b/a.git").unwrap(), "https://h:8/b/a.git");
        assert_eq!(url("http://x/y").unwrap(), "http://x/y");
        for (bad, problem) in [
            ("../../../a", "above the server"),
            ("file:///etc", "file://"),
            ("git@h:x", "ssh://"),
            ("/etc/x.git", "ssh://"),
            ("ext::sh -c x", "ssh://"),
        ] {
            assert!(url(bad).unwrap_err().contains(problem), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,80}", url in "[./a:@]{0,20}") {
            parse(&format!("[submodule \"x\"]\n{text}"));
            let _ = resolve("http://h/a/b", &Submodule { path: "p".to_owned(), url });
        }
    }
}
