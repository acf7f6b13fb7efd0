//! `.gitmodules`: which repository a submodule's commit is of.

use rbuild_plan::GitAddress;

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
        // Neither files of this machine nor programs.
        return match GitAddress::parse(url) {
            Ok(_) => Ok(url.to_owned()),
            Err(problem) => Err(wrong(&format!(
                "its URL is not one of another server ({problem}); ?submodules=false leaves \
                 submodules out"
            ))),
        };
    }
    // `https://host` or `user@host`, and what follows.
    let start = match parent.find("://") {
        Some(at) => parent[at + 3..].find('/').map_or(parent.len(), |slash| at + 3 + slash),
        None => parent.find(':').ok_or_else(|| wrong("no URL to start from"))? + 1,
    };
    let (server, path) = parent.split_at(start);
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
    // The path of `user@host:path` is relative to a home.
    let slash = if path.starts_with('/') || path.is_empty() { "/" } else { "" };
    Ok(format!("{server}{slash}{}", names.join("/")))
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
        let below = |parent: &str, url: &str| {
            let submodule = Submodule { path: "p".to_owned(), url: url.to_owned() };
            resolve(parent, &submodule).map_err(|error| error.to_string())
        };
        let url = |url: &str| below("https://h:8/team/r.git", url);
        assert_eq!(url("../a.git").unwrap(), "https://h:8/team/a.git");
        assert_eq!(url("./../../b/a.git").unwrap(), "https://h:8/b/a.git");
        assert_eq!(url("http://x/y").unwrap(), "http://x/y");
        assert_eq!(url("git@x:y").unwrap(), "git@x:y");
        assert_eq!(below("git@h:team/r.git", "../a.git").unwrap(), "git@h:team/a.git");
        assert_eq!(below("git@h:/r.git", "../a.git").unwrap(), "git@h:/a.git");
        assert_eq!(below("git://h/r.git", "./s.git").unwrap(), "git://h/r.git/s.git");
        for (bad, problem) in [
            ("../../../a", "above the server"),
            ("file:///etc", "not one of another server"),
            ("/etc/x.git", "not one of another server"),
            ("ext::sh -c x", "not one of another server"),
        ] {
            assert!(url(bad).unwrap_err().contains(problem), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,80}", url in "[./a:@]{0,20}") {
            parse(&format!("[submodule \"x\"]\n{text}"));
            for parent in ["http://h/a/b", "a@h:b/c"] {
                let _ = resolve(parent, &Submodule { path: "p".to_owned(), url: url.clone() });
            }
        }
    }
}
