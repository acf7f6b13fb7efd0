//! The devices that this machine's files describe, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rbuild_parser::suggest;

use super::document::{Described, Document, Edits};

/// Longest file that is read; those of GPUs have some ten thousand bytes.
const MAX_DOCUMENT: u64 = 4 << 20;

/// Annotation: the device also goes by this name.
const CLASS: &str = "org.mobyproject.buildkit.device.class";
/// Annotation: whoever set up the machine lets every Dockerfile use the device.
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";

/// All that the directories hold.
#[derive(Debug, Default)]
pub(super) struct Registry {
    directories: Vec<PathBuf>,
    documents: Vec<(PathBuf, Document)>,
    /// By qualified name, `vendor/class=device`: which document, which of its devices.
    devices: BTreeMap<String, (usize, usize)>,
    /// What could not be read, and what contradicts each other.
    problems: Vec<String>,
}

impl Registry {
    /// Reads the directories; later ones count more. One that is not there is empty.
    pub(super) fn read(directories: &[PathBuf]) -> Self {
        let mut registry = Self { directories: directories.to_owned(), ..Self::default() };
        for directory in directories {
            let mut here: BTreeMap<String, (usize, usize)> = BTreeMap::new();
            let mut twice = BTreeSet::new();
            for path in registry.files(directory) {
                let document = match document(&path) {
                    Ok(document) => document,
                    Err(problem) => {
                        registry.problems.push(format!("{}: {problem}", path.display()));
                        continue;
                    }
                };
                let number = registry.documents.len();
                for (index, device) in document.devices.iter().enumerate() {
                    let name = format!("{}={}", document.kind, device.name);
                    if let Some((other, _)) = here.insert(name.clone(), (number, index)) {
                        let other = registry.documents[other].0.display();
                        let path = path.display();
                        let problem = format!("{name} is in {other} and in {path}, so in none");
                        registry.problems.push(problem);
                        twice.insert(name);
                    }
                }
                registry.documents.push((path, document));
            }
            registry.devices.extend(here);
            registry.devices.retain(|name, _| !twice.contains(name));
        }
        registry
    }

    /// The files of a directory in the order of their names.
    fn files(&mut self, directory: &Path) -> Vec<PathBuf> {
        let entries = match fs_err::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                self.problems.push(error.to_string());
                return Vec::new();
            }
        };
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| {
            path.extension().is_some_and(|extension| extension == "json" || extension == "yaml")
        });
        files.sort();
        files
    }

    /// The devices that a text asks for, by BuildKit's rules: `vendor/class=device`; all with
    /// `*`; the first in order without a device; else those of a class. Qualified names.
    pub(super) fn find(&self, asked: &str) -> Vec<&str> {
        let (kind, device) = asked.split_once('=').unwrap_or((asked, ""));
        let of_kind = || {
            let names = self.devices.keys().map(String::as_str);
            names.filter(|name| name.rsplit_once('=').is_some_and(|(its, _)| its == kind))
        };
        let found: Vec<_> = match device {
            _ if !kind.contains('/') => Vec::new(),
            "" => of_kind().take(1).collect(),
            "*" => of_kind().collect(),
            _ => of_kind().filter(|name| *name == asked).collect(),
        };
        if !found.is_empty() {
            return found;
        }
        let names = self.devices.keys().map(String::as_str);
        names.filter(|name| self.annotation(name, CLASS) == Some(asked)).collect()
    }

    /// Whether a device may be used without being asked about.
    pub(super) fn is_free(&self, name: &str) -> bool {
        let value = self.annotation(name, AUTO_ALLOW);
        value.is_some_and(|value| ["1", "t", "T", "TRUE", "true", "True"].contains(&value))
    }

    fn annotation(&self, name: &str, key: &str) -> Option<&str> {
        let (_, document, device) = self.device(name)?;
        let value = device.annotations.get(key).or_else(|| document.annotations.get(key));
        value.map(String::as_str)
    }

    fn device(&self, name: &str) -> Option<(&Path, &Document, &Described)> {
        let (document, device) = self.devices.get(name)?;
        let (path, document) = self.documents.get(*document)?;
        Some((path, document, document.devices.get(*device)?))
    }

    /// The edits of these devices with the files that they are from: those of a whole file once
    /// and before those of its devices.
    pub(super) fn edits<'a>(
        &'a self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Vec<(&'a Path, &'a Edits)> {
        let mut files = BTreeSet::new();
        let mut edits = Vec::new();
        for (path, document, device) in names.into_iter().filter_map(|name| self.device(name)) {
            if files.insert(path) {
                edits.push((path, &document.container_edits));
            }
            edits.push((path, &device.container_edits));
        }
        edits
    }

    /// What to say of a text that asks for nothing.
    pub(super) fn nothing_found(&self, asked: &str) -> String {
        let kinds = self.documents.iter().map(|(_, document)| document.kind.as_str());
        let classes = self.devices.keys().filter_map(|name| self.annotation(name, CLASS));
        let names = self.devices.keys().map(String::as_str).chain(kinds).chain(classes);
        let mut told = match (suggest(asked, names), self.directories.as_slice()) {
            (Some(near), _) => format!("did you mean {near}?"),
            (None, []) => "this engine has no directory to look for devices in".to_owned(),
            (None, directories) => {
                let shown: Vec<_> =
                    directories.iter().map(|path| path.display().to_string()).collect();
                let shown = shown.join(" and ");
                match self.devices.len() {
                    0 => format!("no device is described in {shown}"),
                    count => format!("{count} devices are described in {shown}, none of this name"),
                }
            }
        };
        for problem in &self.problems {
            told.push_str(&format!("; {problem}"));
        }
        told
    }
}

/// Reads one file. A pipe would hold everybody up, so only a regular one.
fn document(path: &Path) -> Result<Document, String> {
    let said = |error: std::io::Error| error.to_string();
    if !fs_err::metadata(path).map_err(said)?.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let mut text = String::new();
    let file = fs_err::File::open(path).map_err(said)?;
    file.take(MAX_DOCUMENT + 1).read_to_string(&mut text).map_err(said)?;
    if text.len() as u64 > MAX_DOCUMENT {
        return Err(format!("it has more than {MAX_DOCUMENT} bytes"));
    }
    match path.extension().is_some_and(|extension| extension == "json") {
        true => Document::from_json(&text),
        false => Document::from_yaml(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, kind: &str, devices: &[(&str, &str)], class: &str) {
        let mut text = format!("cdiVersion: \"0.6.0\"\nkind: {kind}\ndevices:\n");
        for (name, variable) in devices {
            text.push_str(&format!(
                "- name: {name}\n  containerEdits: {{env: [{variable}]}}\n  \
                 annotations: {{{CLASS}: {class}}}\n"
            ));
        }
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    fn env(registry: &Registry, name: &str) -> String {
        let edits = registry.edits(registry.find(name));
        edits.iter().flat_map(|(_, edits)| edits.env.clone()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn names_are_found_as_in_buildkit() {
        let place = tempfile::tempdir().unwrap();
        let [etc, run] = ["etc", "run"].map(|name| place.path().join(name));
        write(&etc.join("a.yaml"), "v.com/many", &[("foo", "F=1"), ("bar", "B=1")], "one");
        write(&etc.join("b.yaml"), "v.com/other", &[("x", "X=1")], "one");
        write(&run.join("a.yaml"), "v.com/many", &[("bar", "B=2")], "two");
        fs_err::write(etc.join("c.json"), "{").unwrap();
        fs_err::write(etc.join("d.txt"), "no").unwrap();
        let registry = Registry::read(&[etc, run, place.path().join("none")]);
        assert_eq!(registry.find("v.com/many"), ["v.com/many=bar"]);
        assert_eq!(registry.find("v.com/many=*"), ["v.com/many=bar", "v.com/many=foo"]);
        assert_eq!(env(&registry, "v.com/many=*"), "B=2 F=1", "the later directory counts");
        assert_eq!(registry.find("one"), ["v.com/many=foo", "v.com/other=x"]);
        assert_eq!(registry.find("two"), ["v.com/many=bar"]);
        for nothing in ["", "=", "*", "v.com", "v.com/man", "v.com/many=", "v.com/many=baz"] {
            let first = nothing == "v.com/many=";
            assert_eq!(registry.find(nothing).len(), usize::from(first), "{nothing}");
        }
        let told = registry.nothing_found("v.com/many=baz");
        assert!(told.starts_with("did you mean v.com/many=bar?"), "{told}");
        assert!(told.contains("c.json: EOF"), "{told}");
        let told = registry.nothing_found("elsewhere");
        assert!(told.starts_with("3 devices are described in /"), "{told}");
        assert!(told.contains("/etc and /"), "{told}");
    }

    #[test]
    fn a_name_that_two_files_have_is_nobodys() {
        let place = tempfile::tempdir().unwrap();
        for name in ["a.yaml", "b.yaml"] {
            write(&place.path().join(name), "v/c", &[("x", "X=1")], "one");
        }
        let registry = Registry::read(&[place.path().to_owned()]);
        assert!(registry.find("v/c=x").is_empty());
        assert!(registry.nothing_found("v/c=x").contains("b.yaml, so in none"));
    }
}
