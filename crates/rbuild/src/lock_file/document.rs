//! The text of a lock file: TOML, sorted, one table for each reference, so that a difference reads
//! as what moved.

use rbuild_types::{Digest, Platform, Reference};
use serde::{Deserialize, Serialize};

use super::Entries;
use crate::sources::git::{ObjectId, Resolved};

/// The form of the text.
const VERSION: u32 = 1;

const HEADER: &str = "\
# What the references of the Dockerfile stood for. `rbuild lock` writes it; `rbuild build --locked`
# takes nothing else.
";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    image: Vec<Image>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    url: Vec<Url>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    git: Vec<Git>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    reference: Reference,
    platform: String,
    digest: Digest,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Url {
    url: String,
    digest: Digest,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Git {
    remote: String,
    /// As written; empty is the default branch.
    #[serde(rename = "ref")]
    reference: String,
    /// The reference in full.
    name: String,
    commit: ObjectId,
    /// The annotated tag that leads to the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tag: Option<ObjectId>,
}

/// Reads the text; an error is what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Entries, String> {
    let document: Document = toml::from_str(text).map_err(|error| problem(&error))?;
    let Document { version, image: images, url: urls, git: repositories } = document;
    if version != VERSION {
        return Err(format!("it is of version {version}, and this program knows {VERSION}"));
    }
    let mut entries = Entries::default();
    let twice = |subject: String| Err(format!("{subject} is in it twice"));
    for Image { reference, platform, digest } in images {
        let platform: Platform = platform.parse().map_err(|_| bad("platform", &platform))?;
        let key = (reference.to_string(), platform.to_string());
        if entries.images.insert(key, digest).is_some() {
            return twice(format!("{reference} for {platform}"));
        }
    }
    for Url { url, digest } in urls {
        if entries.urls.insert(url.clone(), digest).is_some() {
            return twice(url);
        }
    }
    for Git { remote, reference, name, commit, tag } in repositories {
        let resolved = match tag {
            None => Resolved { name, id: commit, peeled: None },
            Some(tag) => Resolved { name, id: tag, peeled: Some(commit) },
        };
        if entries.repositories.insert((remote.clone(), reference), resolved).is_some() {
            return twice(remote);
        }
    }
    Ok(entries)
}

fn bad(what: &str, text: &str) -> String {
    format!("{:?} is no {what}", text.chars().take(100).collect::<String>())
}

/// What is wrong, on one line.
fn problem(error: &toml::de::Error) -> String {
    error.message().replace('\n', " ")
}

/// Writes the text.
pub(super) fn write(entries: &Entries) -> Result<String, String> {
    let image = |((reference, platform), digest): (&(String, String), &Digest)| {
        let reference = reference.parse().map_err(|_| bad("reference", reference))?;
        Ok::<_, String>(Image { reference, platform: platform.clone(), digest: *digest })
    };
    let git = |((remote, reference), at): (&(String, String), &Resolved)| Git {
        remote: remote.clone(),
        reference: reference.clone(),
        name: at.name.clone(),
        commit: at.commit(),
        tag: at.peeled.map(|_| at.id),
    };
    let urls = entries.urls.iter();
    let document = Document {
        version: VERSION,
        image: entries.images.iter().map(image).collect::<Result<_, _>>()?,
        url: urls.map(|(url, digest)| Url { url: url.clone(), digest: *digest }).collect(),
        git: entries.repositories.iter().map(git).collect(),
    };
    let text = toml::to_string(&document).map_err(|error| error.to_string())?;
    Ok(format!("{HEADER}{text}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = r#"version = 1

[[image]]
reference = "docker.io/library/alpine:3"
platform = "linux/amd64"
digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

[[url]]
url = "https://h/x"
digest = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

[[git]]
remote = "https://h/r.git"
ref = "v2"
name = "refs/tags/v2"
commit = "cccccccccccccccccccccccccccccccccccccccc"
tag = "dddddddddddddddddddddddddddddddddddddddd"
"#;

    #[test]
    fn what_is_written_is_read_again() {
        let entries = parse(TEXT).unwrap();
        assert_eq!(entries.lines().len(), 3);
        let text = write(&entries).unwrap();
        assert_eq!(text, format!("{HEADER}{TEXT}"));
        assert_eq!(parse(&text).unwrap(), entries);
        assert_eq!(write(&Entries::default()).unwrap(), format!("{HEADER}version = 1\n"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, told) in [
            ("version = 1", "version = 2", "version 2"),
            ("version = 1", "", "version"),
            ("sha256:aa", "sha256:", "digest"),
            ("linux/amd64", "linux/", "\"linux/\" is no platform"),
            ("cccc", "cc", "40 hexadecimal digits"),
            ("name = ", "names = ", "names"),
            ("version = 1", "<<<<<<< HEAD\nversion = 1", ""),
        ] {
            let error = parse(&TEXT.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(told) && !error.contains('\n'), "{to}: {error}");
        }
        let (_, image) = TEXT.split_once("\n\n").unwrap();
        let (image, _) = image.split_once("\n\n").unwrap();
        let twice = parse(&format!("{TEXT}\n{image}\n")).unwrap_err();
        assert_eq!(twice, "docker.io/library/alpine:3 for linux/amd64 is in it twice");
    }

    proptest! {
        #[test]
        fn no_text_panics(at in 0..TEXT.len(), with in "[\\PC\n\"=\\[\\]{}]{0,8}", cut in 0..20usize) {
            let end = (at + cut).min(TEXT.len());
            let changed = format!("{}{with}{}", &TEXT[..at], &TEXT[end..]);
            if let Ok(entries) = parse(&changed) {
                let text = write(&entries).unwrap();
                prop_assert_eq!(parse(&text).unwrap(), entries);
            }
        }
    }
}
