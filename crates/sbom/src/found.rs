//! What a scan has found so far, held to its limits.

use std::collections::{BTreeMap, BTreeSet};

use crate::distro::Distro;
use crate::limits;
use crate::package::Package;

/// The packages of a root filesystem.
#[derive(Debug, Default)]
pub struct Found {
    /// The distribution, if there is one.
    pub distro: Option<Distro>,
    /// Every package, sorted, and the files that name it.
    pub packages: BTreeMap<Package, BTreeSet<String>>,
    /// What could not be read, in words.
    pub notes: BTreeSet<String>,
    /// Bytes of text that are kept.
    held: usize,
    /// Whether something was left out for want of room.
    is_full: bool,
}

impl Found {
    pub(crate) fn in_distro(distro: Option<Distro>) -> Self {
        Self { distro, ..Self::default() }
    }

    /// Whether there is no room for more.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Keeps a package of one file, and says whether there is room for more.
    pub(crate) fn add(&mut self, place: &str, package: Package) -> bool {
        if !self.is_full {
            self.keep(place, package);
        }
        !self.is_full
    }

    fn keep(&mut self, place: &str, mut package: Package) {
        package.licences.retain(|licence| !licence.is_empty() && licence.len() <= limits::FIELD);
        package.licences.truncate(limits::LICENCES);
        package.licences.sort_unstable();
        package.licences.dedup();
        let Package { name, version, architecture, upstream, supplier, licences, .. } = &package;
        let fields = [name, version, architecture, upstream, supplier];
        if name.is_empty() || fields.iter().any(|field| field.len() > limits::FIELD) {
            return;
        }
        let bytes = fields.into_iter().chain(licences).map(String::len).sum::<usize>();
        if let Some(places) = self.packages.get_mut(&package) {
            if places.len() < limits::PLACES && self.held + place.len() <= limits::TEXT {
                self.held += place.len();
                places.insert(place.to_owned());
            }
            return;
        }
        let bytes = bytes + place.len();
        if self.packages.len() >= limits::PACKAGES || self.held + bytes > limits::TEXT {
            self.is_full = true;
            let text = "there are more packages than can be listed: some are left out";
            self.notes.insert(text.to_owned());
            return;
        }
        self.held += bytes;
        self.packages.insert(package, BTreeSet::from([place.to_owned()]));
    }

    /// Says that something could not be read.
    pub(crate) fn note(&mut self, place: &str, problem: &str) {
        if self.notes.len() < limits::NOTES {
            let problem = problem.lines().next().unwrap_or_default();
            let problem: String = problem.chars().take(limits::FIELD / 4).collect();
            self.notes.insert(format!("{place}: {problem}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::Kind;

    #[test]
    fn the_same_package_of_several_files_is_one() {
        let mut found = Found::default();
        for number in 0..limits::PLACES + 2 {
            found.add(&format!("/{number}"), Package::new(Kind::Npm, "a", "1"));
        }
        found.add("/x", Package::new(Kind::Npm, "", "1"));
        found.add("/x", Package::new(Kind::Npm, "b".repeat(limits::FIELD + 1), "1"));
        assert_eq!(found.packages.len(), 1);
        assert_eq!(found.packages.values().next().unwrap().len(), limits::PLACES);
    }

    #[test]
    fn what_is_too_much_is_left_out_and_said() {
        let mut found = Found::default();
        let name = |number: usize| format!("{number:01024}");
        let most = limits::TEXT / limits::FIELD;
        for number in 0..most + 5 {
            let has_room = found.add("", Package::new(Kind::Npm, name(number), ""));
            assert_eq!(has_room, number < most, "{number}");
        }
        assert_eq!(found.packages.len(), most);
        assert_eq!(found.notes.len(), 1);
    }
}
