//! podman's `registries.conf`, version 2: where repositories really are, their mirrors, and which
//! registries are not to be spoken to.
//!
//! Of all tables the one with the longest prefix that fits a name counts, and no other. A later file
//! replaces tables of the same prefix.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rbuild_types::Reference;
use serde::Deserialize;

use crate::RegistryError;
use crate::options::{Mirror, Serves};
use crate::place::{split_location, without_port};
use crate::text::printable;

/// What a machine knows about registries, from one file or several.
#[derive(Debug, Clone, Default)]
pub struct RegistriesConf {
    rules: BTreeMap<String, Rule>,
    short_names: BTreeMap<String, String>,
}

/// A `[[registry]]` table.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// `host[:port]`, perhaps with a part of the path; or `*.domain`.
    prefix: String,
    /// What stands in the place of the prefix; nothing changes where it is missing.
    pub(crate) location: Option<String>,
    pub(crate) insecure: bool,
    pub(crate) blocked: bool,
    pub(crate) mirrors: Vec<Mirror>,
    /// The file that says so.
    pub(crate) file: PathBuf,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default, rename = "registry")]
    tables: Vec<Table>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    /// Version 1 has its lists below this.
    registries: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Table {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default, rename = "mirror")]
    mirrors: Vec<MirrorTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<PullFromMirror>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFromMirror {
    All,
    DigestOnly,
    TagOnly,
}

impl RegistriesConf {
    /// Adds what the text of `file` says.
    ///
    /// # Errors
    /// [`RegistryError::Registries`], which names the file.
    pub fn add(&mut self, file: &Path, text: &str) -> Result<(), RegistryError> {
        let refused = |reason| RegistryError::Registries { file: file.to_owned(), reason };
        let document: Document =
            toml::from_str(text).map_err(|error| refused(printable(error.message())))?;
        if document.registries.is_some() {
            return Err(refused(
                "it has the old form, version 1; write [[registry]] tables".into(),
            ));
        }
        for table in document.tables {
            let rule = table.rule(file).map_err(refused)?;
            self.rules.insert(rule.prefix.clone(), rule);
        }
        for (name, target) in document.aliases {
            if target.is_empty() {
                // Takes back what an earlier file says.
                self.short_names.remove(&name);
                continue;
            }
            let odd = || refused(format!("the alias {:?} has no full name", printable(&name)));
            let reference = target.parse::<Reference>().map_err(|_| odd())?;
            if !is_full(&target, &reference) {
                return Err(odd());
            }
            self.short_names.insert(name, target);
        }
        Ok(())
    }

    /// Reads a name as people write it: short ones may be aliases, else they are Docker Hub's.
    ///
    /// # Errors
    /// The grammar's.
    pub fn reference(&self, text: &str) -> Result<Reference, rbuild_types::ReferenceError> {
        let end = text.find('@').unwrap_or(text.len());
        // A colon before the last slash is that of a port.
        let tag = text[..end].rfind(':').filter(|at| !text[*at..end].contains('/'));
        let end = tag.unwrap_or(end);
        match self.short_names.get(&text[..end]) {
            Some(full) => format!("{full}{}", &text[end..]).parse(),
            None => text.parse(),
        }
    }

    /// The table that is about a repository, and what of its name is left behind the prefix.
    pub(crate) fn rule<'a>(&'a self, repository: &'a Reference) -> Option<(&'a Rule, &'a str)> {
        let fitting = self.rules.values().filter_map(|rule| Some((rule, rule.rest(repository)?)));
        fitting.max_by_key(|(rule, _)| rule.prefix.len())
    }
}

/// Whether the text names a registry, and all of the repository. Its canonical form may be longer:
/// `docker.io/foo` is `docker.io/library/foo`.
fn is_full(text: &str, reference: &Reference) -> bool {
    let has_host = text.split_once('/').is_some_and(|(host, _)| {
        host == "localhost" || host.contains(['.', ':']) || host == reference.host()
    });
    let last = text.rsplit('/').next().unwrap_or_default();
    has_host && !last.contains([':', '@'])
}

impl Table {
    fn rule(self, file: &Path) -> Result<Rule, String> {
        let prefix = self.prefix.filter(|prefix| !prefix.is_empty());
        let location = self.location.filter(|location| !location.is_empty());
        let Some(prefix) = prefix.or_else(|| location.clone()) else {
            return Err("a [[registry]] has neither prefix nor location".to_owned());
        };
        let wild = prefix.strip_prefix("*.");
        let plain = split_location(wild.unwrap_or(&prefix));
        let is_odd = |(host, path): (&str, &str)| host.contains('*') || path.contains([':', '@']);
        if plain.is_none_or(is_odd) {
            let shown = printable(&prefix);
            return Err(format!("the prefix {shown:?} is not of the form [*.]host[:port][/path]"));
        }
        if location.is_none() && wild.is_none() && !self.blocked {
            return Err(format!("the prefix {:?} has no location", printable(&prefix)));
        }
        let mirrors = self.mirrors.into_iter().map(|mirror| {
            let serves = match mirror.pull_from_mirror {
                Some(PullFromMirror::DigestOnly) => Serves::Digests,
                Some(PullFromMirror::TagOnly) => Serves::Tags,
                None if self.mirror_by_digest_only => Serves::Digests,
                Some(PullFromMirror::All) | None => Serves::All,
            };
            checked(&mirror.location)?;
            Ok(Mirror { location: mirror.location, insecure: mirror.insecure, serves })
        });
        let mirrors = mirrors.collect::<Result<_, String>>()?;
        if let Some(location) = &location {
            checked(location)?;
        }
        let (insecure, blocked, file) = (self.insecure, self.blocked, file.to_owned());
        Ok(Rule { prefix, location, insecure, blocked, mirrors, file })
    }
}

fn checked(location: &str) -> Result<(), String> {
    match split_location(location) {
        Some(_) => Ok(()),
        None => Err(format!(
            "the location {:?} is not of the form host[:port][/path]",
            printable(location)
        )),
    }
}

impl Rule {
    /// What is left of the repository's path behind the prefix, if that fits.
    fn rest<'a>(&self, repository: &'a Reference) -> Option<&'a str> {
        let (host, path) = self.prefix.split_once('/').unwrap_or((&self.prefix, ""));
        let fits = match host.strip_prefix('*') {
            // With or without the port: a registry is below its domain on every port.
            Some(domain) => [repository.host(), without_port(repository.host())]
                .into_iter()
                .any(|host| host.ends_with(domain)),
            None => repository.host() == host,
        };
        let rest = repository.path().strip_prefix(path.trim_end_matches('/')).filter(|_| fits)?;
        match rest.strip_prefix('/') {
            Some(rest) => Some(rest),
            None => (path.is_empty() || rest.is_empty()).then_some(rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(texts: &[&str]) -> Result<RegistriesConf, RegistryError> {
        let mut conf = RegistriesConf::default();
        for text in texts {
            conf.add(Path::new("/etc/containers/registries.conf"), text)?;
        }
        Ok(conf)
    }

    fn found(conf: &RegistriesConf, name: &str) -> Option<(String, String)> {
        let reference = name.parse().unwrap();
        conf.rule(&reference).map(|(rule, rest)| (rule.prefix.clone(), rest.to_owned()))
    }

    #[test]
    fn the_longest_prefix_counts() {
        let conf = read(&["[[registry]]\nlocation = 'docker.io'\n\
             [[registry]]\nprefix = 'docker.io/library'\nlocation = 'm.example/hub'\n\
             [[registry]]\nprefix = 'docker.io/library/python'\nlocation = 'm.example/py'\n\
             [[registry]]\nprefix = '*.corp.example'\n\
             [[registry]]\nprefix = 'r.corp.example:5000/a'\nblocked = true\n"])
        .unwrap();
        for (name, prefix, rest) in [
            ("alpine:3", "docker.io/library", "alpine"),
            ("python", "docker.io/library/python", ""),
            ("team/app", "docker.io", "team/app"),
            ("librarys/app", "docker.io", "librarys/app"),
            ("x.corp.example/a/b", "*.corp.example", "a/b"),
            ("r.corp.example:5000/a/b", "r.corp.example:5000/a", "b"),
        ] {
            assert_eq!(found(&conf, name), Some((prefix.into(), rest.into())), "{name}");
        }
        assert_eq!(
            found(&conf, "r.corp.example:5000/ab"),
            Some(("*.corp.example".into(), "ab".into()))
        );
        for name in ["corp.example/a", "corp.example:5000/a", "quay.io/a"] {
            assert_eq!(found(&conf, name), None, "{name}");
        }
    }

    #[test]
    fn a_longer_domain_counts_before_a_wider_one_and_a_host_before_both() {
        let conf = read(&["[[registry]]\nprefix = '*.invalid'\nlocation = 'm.example'\n\
             [[registry]]\nprefix = '*.corp.invalid'\nblocked = true\n\
             [[registry]]\nlocation = 'good.corp.invalid'\n\
             [[registry]]\nprefix = '*.port.invalid:5000'\nblocked = true\n"])
        .unwrap();
        for (name, prefix) in [
            ("x.invalid/a", "*.invalid"),
            ("x.corp.invalid/a", "*.corp.invalid"),
            ("x.corp.invalid:5000/a/b", "*.corp.invalid"),
            ("good.corp.invalid/a", "good.corp.invalid"),
            ("good.corp.invalid:5000/a", "*.corp.invalid"),
            ("x.port.invalid:5000/a", "*.port.invalid:5000"),
            ("x.port.invalid/a", "*.invalid"),
        ] {
            assert_eq!(found(&conf, name).map(|(prefix, _)| prefix), Some(prefix.into()), "{name}");
        }
    }

    #[test]
    fn mirrors_say_what_they_serve() {
        let conf = read(&["[[registry]]\nlocation = 'docker.io'\nmirror-by-digest-only = true\n\
             [[registry.mirror]]\nlocation = 'a.example'\n\
             [[registry.mirror]]\nlocation = 'b.example/hub'\ninsecure = true\n\
             pull-from-mirror = 'tag-only'\n\
             [[registry.mirror]]\nlocation = 'c.example'\npull-from-mirror = 'all'\n"])
        .unwrap();
        let reference = "alpine".parse().unwrap();
        let serves: Vec<_> =
            conf.rule(&reference).unwrap().0.mirrors.iter().map(|mirror| mirror.serves).collect();
        assert_eq!(serves, [Serves::Digests, Serves::Tags, Serves::All]);
    }

    #[test]
    fn later_files_replace_tables_and_take_aliases_back() {
        let conf = read(&[
            "unqualified-search-registries = ['quay.io']\nshort-name-mode = 'enforcing'\n\
             [[registry]]\nlocation = 'r.example'\nblocked = true\n\
             [aliases]\nfedora = 'registry.fedoraproject.org/fedora'\nfoo = 'docker.io/foo'\n\
             'team/x' = 'q.io/x'\nold = 'q.io/o'",
            "[[registry]]\nlocation = 'r.example'\n[aliases]\nold = ''",
        ])
        .unwrap();
        assert!(!conf.rules["r.example"].blocked);
        let named = |text| conf.reference(text).unwrap().to_string();
        assert_eq!(named("fedora"), "registry.fedoraproject.org/fedora:latest");
        assert_eq!(named("fedora:41"), "registry.fedoraproject.org/fedora:41");
        assert_eq!(named("team/x"), "q.io/x:latest");
        assert_eq!(named("old"), "docker.io/library/old:latest");
        assert_eq!(named("docker.io/library/fedora"), "docker.io/library/fedora:latest");
        assert_eq!(named("foo:1"), "docker.io/library/foo:1");
        assert_eq!(named("alpine"), "docker.io/library/alpine:latest");
        assert_eq!(named("fedora:5000/x"), "fedora:5000/x:latest");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_the_file_named() {
        for text in [
            "[[registry]]",
            "[[registry]]\nprefix = 'r.example'",
            "[[registry]]\nlocation = 'https://r.example'",
            "[[registry]]\nlocation = 'r.example/a:1'",
            "[[registry]]\nprefix = '*x.example'\nlocation = 'r.example'",
            "[[registry]]\nlocation = 'r.example'\n[[registry.mirror]]\nlocation = 'a b'",
            "[[registry]]\nlocation = 'r.example'\nblocked = 'yes'",
            "[aliases]\nx = 'y'",
            "[aliases]\nx = 'team/y'",
            "[aliases]\nx = 'q.io/y:1'",
            "[aliases]\nx = 'docker.io/y:1'",
            "[registries.search]\nregistries = ['docker.io']",
            "[[",
        ] {
            let error = read(&[text]).err().map(|error| error.to_string());
            let named = |error: &String| error.contains("/etc/containers/registries.conf");
            assert!(error.as_ref().is_some_and(named), "{text}: {error:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "([a-z=\n'\\[\\]./:*-]|registry|prefix|location|mirror){0,40}") {
            let _ = read(&[&text]);
        }

        #[test]
        fn any_prefix_ends(prefix in "[a-c.*/:0-9]{0,12}", name in "[a-c]{1,2}\\.[a-c](/[a-c]{1,2}){1,3}") {
            let text = format!("[[registry]]\nprefix = '{prefix}'\nlocation = 'r.example/x'");
            if let Ok(conf) = read(&[&text]) {
                let _ = found(&conf, &name);
            }
        }
    }
}
